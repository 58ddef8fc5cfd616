"""The rows of rollout jobs, some at a time, and npz members that are read by rows."""

import numpy as np
import pytest

from services.rollouts.rows import (
    DatasetRows,
    SentRows,
    dataset_members,
    sent_members,
)
from spnode_core.dataset import check_arrays, save_dataset
from spnode_core.errors import InvalidInput
from spnode_core.npz import open_npz

LIMIT = 2**30


def saved(tmp_path, compressed=False, **arrays):
    path = tmp_path / "arrays.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_come_in_order_and_what_all_share_with_each(tmp_path, compressed) -> None:
    x0 = np.arange(21, dtype=np.float32).reshape(7, 3)
    path = saved(tmp_path, compressed, x0=x0, parameters=[2, 3], times=[1.0, 2.0])
    with sent_members(path, LIMIT) as members:
        rows = SentRows(members)
        assert rows.count == 7
        first = rows.take(2)
        rows.skip(3)
        rest = rows.take(9)
    np.testing.assert_array_equal(first["x0"], x0[:2])
    np.testing.assert_array_equal(rest["x0"], x0[5:])
    for taken in (first, rest):
        assert taken["x0"].dtype == np.float64
        assert taken["parameters"].tolist() == [2.0, 3.0]
        assert taken["times"].tolist() == [1.0, 2.0]


def test_one_state_is_one_row(tmp_path) -> None:
    with sent_members(saved(tmp_path, x0=[1.0, 2.0]), LIMIT) as members:
        rows = SentRows(members)
        assert (rows.count, rows.take(1)["x0"].tolist()) == (1, [[1.0, 2.0]])


def test_a_number_that_is_none_is_named_by_its_row_in_the_file(tmp_path) -> None:
    x0 = np.zeros((100, 2))
    x0[71, 1] = np.inf
    with sent_members(saved(tmp_path, x0=x0), LIMIT) as members:
        rows = SentRows(members)
        rows.take(70)
        with pytest.raises(InvalidInput, match=r"x0\[71, 1\]: found inf"):
            rows.take(20)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"x0": np.zeros((3, 2)), "parameters": np.zeros((4, 1))},
            "parameters: found 4",
        ),
        ({"x0": np.zeros((0, 2))}, "x0: found 0 rows"),
        ({"x0": np.zeros((2, 2, 2))}, "x0: found an array of shape"),
        ({"times": np.zeros((2, 2))}, "times: found an array of shape"),
        ({"x0": np.zeros(2), "controls": np.zeros(2)}, "controls: found an array"),
        ({"x0": np.zeros(2**23 + 1)}, "that all rows share"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, arrays, said) -> None:
    with (
        sent_members(saved(tmp_path, **arrays), LIMIT) as members,
        pytest.raises(InvalidInput, match=said),
    ):
        SentRows(members)


def test_a_dataset_gives_its_first_samples_in_the_order_asked_for(tmp_path) -> None:
    states = np.arange(2 * 5 * 3, dtype=float).reshape(2, 5, 3) + 1
    arrays = {
        "states": states,
        "times": np.arange(5.0),
        "parameters": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "parameter_names": np.array(["k1", "k2"]),
    }
    path = tmp_path / "dataset.npz"
    save_dataset(check_arrays(arrays), path)
    with dataset_members(path, LIMIT) as members:
        rows = DatasetRows(members, [2, 0], [1], {"times": np.array([1.0])})
        assert rows.count == 2
        rows.skip(1)
        row = rows.take(1)
    assert row["x0"].tolist() == [[states[1, 0, 2], states[1, 0, 0]]]
    assert row["parameters"].tolist() == [[4.0]]
    assert row["times"].tolist() == [1.0]


def test_members_know_their_shape_before_they_are_read(tmp_path) -> None:
    path = saved(tmp_path, x=np.zeros((5, 2)), t=np.asfortranarray(np.ones((2, 3))))
    with open_npz(path, allowed=("x", "t"), limit_bytes=LIMIT) as members:
        assert (members["x"].shape, members["x"].row_bytes) == ((5, 2), 16)
        assert members["x"].rows(9).shape == (5, 2)
        assert members["x"].rows(1).shape == (0, 2)
        with pytest.raises(InvalidInput, match="Fortran order; expected C order"):
            members["t"].rows(1)
        assert members["t"].whole().tolist() == [[1.0] * 3] * 2


def test_a_file_that_is_none_or_cut_off_is_refused(tmp_path) -> None:
    path = saved(tmp_path, x0=np.zeros((1000, 2)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInput, match="no complete zip archive"):
        sent_members(path, LIMIT).__enter__()
    with pytest.raises(InvalidInput, match="no such file"):
        sent_members(tmp_path / "nothing", LIMIT).__enter__()
    path.write_bytes(content.replace(b"\0" * 64, b"\1" * 64, 1))
    with (
        sent_members(path, LIMIT) as members,
        pytest.raises(InvalidInput, match="x0: found a damaged member"),
    ):
        SentRows(members).take(1000)
