"""Datasets: what is accepted, what is refused, and where the fault is said to be."""

import io
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from spnode_core.data_report import summarise
from spnode_core.dataset import (
    check_arrays,
    load_dataset,
    save_dataset,
)
from spnode_core.errors import InvalidInput
from spnode_core.spec import SplitSpec
from spnode_core.training.step_grids import step_grid


def arrays(batch=4, samples=5, size=2, **more):
    random = np.random.default_rng(3)
    return {
        "states": random.uniform(1, 2, (batch, samples, size)),
        "times": np.arange(samples) * 0.5,
        **more,
    }


def written(tmp_path, content):
    path = tmp_path / "data.npz"
    np.savez(path, **content)
    return path


def test_plain_arrays_become_a_dataset_with_default_names():
    dataset = check_arrays(arrays())
    assert dataset.names == ("x1", "x2")
    assert dataset.times.shape == (4, 5)
    assert dataset.mask.all()
    assert dataset.trajectories == 4


def test_saved_dataset_loads_to_the_same_digest_and_file_bytes(tmp_path):
    dataset = check_arrays(
        arrays(
            names=["a", "b"],
            units=["mol", "mol"],
            time_unit="s",
            parameters=np.ones((4, 1)),
            controls=np.zeros((4, 5, 2)),
            conserved=[[1.0, 1.0]],
            conserved_names=["mass"],
            positive=np.array(True),
            lengths=np.array([5, 4, 3, 5]),
        )
    )
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_dataset(dataset, first)
    again = load_dataset(first)
    save_dataset(again, second)
    assert again.digest == dataset.digest
    assert first.read_bytes() == second.read_bytes()
    assert again.conserved == {"mass": {"a": 1.0, "b": 1.0}}
    assert again.positive
    assert again.units == ("mol", "mol")


def test_digest_changes_with_one_value_and_not_with_the_container(tmp_path):
    content = arrays()
    digest = check_arrays(content).digest
    np.savez_compressed(tmp_path / "c.npz", **content)
    assert load_dataset(tmp_path / "c.npz").digest == digest
    content["states"][1, 2, 0] += 1e-12
    assert check_arrays(content).digest != digest
    assert check_arrays(arrays(names=["a", "b"])).digest != digest


def test_ragged_trajectories_are_masked_and_padding_is_ignored():
    content = arrays(lengths=np.array([5, 3, 2, 5]))
    content["states"][1, 3:] = np.nan
    content["times"] = np.tile(content["times"], (4, 1))
    content["times"][2, 2:] = np.nan
    dataset = check_arrays(content)
    assert dataset.mask.sum(axis=(1, 2)).tolist() == [10, 6, 4, 10]
    assert dataset.times[2].tolist() == [0, 0.5, 1, 1.5, 2]
    assert np.isnan(dataset.states[1, 3:]).all()


def test_padding_of_controls_widens_no_range():
    controls = np.full((4, 5, 1), 300.0)
    controls[1, 3:], controls[2, 2:] = np.nan, 1e30
    controls[1, 2], controls[2, 1] = 301.0, 299.0
    dataset = check_arrays(arrays(controls=controls, lengths=np.array([5, 3, 2, 5])))
    assert dataset.controls[1, :, 0].tolist() == [300, 300, 301, 301, 301]
    assert dataset.controls[2, :, 0].tolist() == [300, 299, 299, 299, 299]
    found = summarise(dataset)["controls"]["u1"]
    assert found == {"minimum": 299.0, "maximum": 301.0}


def test_columns_that_no_trajectory_reaches_are_no_content():
    content = arrays()
    longer = arrays(lengths=np.array([5] * 4))
    longer["states"] = np.pad(
        content["states"], ((0, 0), (0, 2), (0, 0)), constant_values=np.nan
    )
    longer["times"] = np.append(content["times"], [90.0, 91.0])
    assert check_arrays(longer).digest == check_arrays(content).digest


def test_missing_states_within_a_sample_are_kept_apart():
    mask = np.ones((4, 5, 2), bool)
    mask[0, 3, 1] = False
    dataset = check_arrays(arrays(mask=mask))
    assert np.isnan(dataset.states[0, 3, 1])
    assert summarise(dataset)["missing"] == 1
    assert dataset.present.all()


def broken(**changes):
    content = arrays()
    for key, change in changes.items():
        content[key] = change(content) if callable(change) else change
    return content


def nan_at(index):
    def change(content):
        states = content["states"].copy()
        states[index] = np.nan
        return states

    return change


FAULTS = {
    "no states": ({"states": lambda c: c["states"][0]}, "states", "three dimensions"),
    "no trajectory": ({"states": lambda c: c["states"][:0]}, "states", "at least 1"),
    "one time": (
        {"states": lambda c: c["states"][:, :1], "times": [0.0]},
        "states",
        "at least 2 times",
    ),
    "huge states": (
        {"states": lambda c: 1e300 * c["states"]},
        r"states\[0, 0, 0\]",
        "at most 1e\\+150",
    ),
    "huge times": (
        {"times": np.geomspace(1, 1e200, 5)},
        r"times\[4\]",
        "at most 1e\\+150",
    ),
    "text states": ({"states": np.full((4, 5, 2), "a")}, "states", "real numbers"),
    "complex": ({"states": np.ones((4, 5, 2), complex)}, "states", "real numbers"),
    "nan": ({"states": nan_at((3, 2, 1))}, r"states\[3, 2, 1\]", "found nan"),
    "times shape": ({"times": np.arange(4.0)}, "times", r"\(5,\) or \(4, 5\)"),
    "times equal": (
        {"times": np.array([0, 1, 1, 2, 3.0])},
        r"times\[2\]",
        "strictly increasing",
    ),
    "times negative step": (
        {"times": np.tile([0, 2, 1, 4, 5.0], (4, 1))},
        r"times\[0, 2\]",
        "1.0 after 2.0",
    ),
    "times inf": ({"times": np.array([0, 1, 2, 3, np.inf])}, r"times\[4\]", "finite"),
    "unknown": ({"wibble": np.ones(1)}, "wibble", "one of conserved"),
    "names": ({"names": ["a", "a"]}, r"names\[1\]", "of its own"),
    "names count": ({"names": ["a"]}, "names", "2 texts"),
    "parameters": ({"parameters": np.ones(4)}, "parameters", r"\(4, number"),
    "parameters nan": (
        {"parameters": np.array([[1.0], [np.nan], [1], [1]])},
        r"parameters\[1, 0\]",
        "finite",
    ),
    "controls": ({"controls": np.ones((4, 5))}, "controls", r"\(4, 5, number"),
    "first missing": (
        {"mask": np.arange(5) > np.zeros((4, 1))},
        r"mask\[0, 0, 0\]",
        "first sample",
    ),
    "mask dtype": ({"mask": np.ones((4, 5))}, "mask", "bool"),
    "lengths": ({"lengths": np.array([5, 5, 9, 5])}, r"lengths\[2\]", "from 2 to 5"),
    "negative": (
        {"states": lambda c: -c["states"], "positive": np.array(True)},
        r"states\[0, 0, 0\]",
        "positive is set",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_its_place(fault, tmp_path):
    changes, field, message = FAULTS[fault]
    content = broken(**changes)
    with pytest.raises(InvalidInput, match=message) as caught:
        check_arrays(content)
    assert re.fullmatch(field, caught.value.field)
    with pytest.raises(InvalidInput, match=message):
        load_dataset(written(tmp_path, content))


def test_a_negative_seed_is_named():
    with pytest.raises(InvalidInput, match="seed: found -1; expected at least 0"):
        check_arrays(arrays()).split(SplitSpec(), -1)


def test_missing_array_is_named():
    with pytest.raises(InvalidInput, match="times: found no such array"):
        check_arrays({"states": np.ones((2, 3, 1))})


def test_pickled_array_is_refused_unread(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, states=np.array([[[{"a": 1}]]], dtype=object), times=np.arange(2.0))
    with pytest.raises(InvalidInput, match="pickled"):
        load_dataset(path)


@pytest.mark.parametrize("order", "<>")
def test_text_of_no_characters_is_refused(tmp_path, order):
    numbers = np.full(3, 0x44444444, f"{order}u4")
    path = written(tmp_path, arrays() | {"names": numbers.view(f"{order}U1")})
    with pytest.raises(InvalidInput, match="names: found a character 0x44444444"):
        load_dataset(path)


def test_truncated_file_is_refused(tmp_path):
    path = written(tmp_path, arrays(batch=40))
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidInput, match="complete"):
            load_dataset(path)


def test_damaged_bytes_are_refused(tmp_path):
    path = written(tmp_path, arrays(batch=40))
    whole = bytearray(path.read_bytes())
    whole[400] ^= 255
    path.write_bytes(whole)
    with pytest.raises(InvalidInput, match="damaged"):
        load_dataset(path)


def test_size_limit_is_checked_before_reading(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, states=np.zeros((2, 10**6, 1)), times=np.arange(1e6))
    assert path.stat().st_size < 2_000_000
    with pytest.raises(InvalidInput, match="at most 1000000"):
        load_dataset(path, limit_bytes=1_000_000)


def test_header_that_claims_too_much_is_refused_before_allocation(tmp_path):
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6, 10**3)}
    np.lib.format.write_array_header_1_0(buffer, header)
    path = tmp_path / "claims.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("states.npy", buffer.getvalue())
    with pytest.raises(InvalidInput, match=r"states: found .* bytes"):
        load_dataset(path)


def test_other_members_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil", b"")
    with pytest.raises(InvalidInput, match="unknown array"):
        load_dataset(path)
    with pytest.raises(InvalidInput, match="no such file"):
        load_dataset(tmp_path / "nowhere.npz")
    with pytest.raises(InvalidInput, match="a folder"):
        load_dataset(tmp_path)


def test_split_is_disjoint_complete_and_repeatable():
    dataset = check_arrays(arrays(batch=20))
    parts = dataset.split(SplitSpec(), seed=5)
    assert [p.trajectories for p in parts] == [16, 2, 2]
    starts = np.concatenate([p.states[:, 0, 0] for p in parts])
    assert sorted(starts) == sorted(dataset.states[:, 0, 0])
    again = dataset.split(SplitSpec(), seed=5)
    other = dataset.split(SplitSpec(), seed=6)
    own = dataset.split(SplitSpec(seed=5), seed=6)
    assert [p.digest for p in parts] == [p.digest for p in own]
    assert [p.digest for p in parts] == [p.digest for p in again]
    assert parts[1].digest != other[1].digest


@pytest.mark.parametrize(("batch", "said"), [(1, "1 trajectory"), (2, "2 traject")])
def test_trajectories_are_counted_in_words(batch, said):
    dataset = check_arrays(arrays(batch=batch))
    with pytest.raises(InvalidInput, match=f"split: found {said}.* for training, "):
        dataset.split(SplitSpec(), seed=0)


@pytest.mark.parametrize(("size", "said"), [(1, "1 text"), (2, "2 texts")])
def test_texts_are_counted_in_words(size, said):
    given = arrays(size=size, units=np.array(["m", "m", "m"]))
    with pytest.raises(InvalidInput, match=f"units: .*expected {said}, shape"):
        check_arrays(given)


def test_split_of_too_few_trajectories_says_what_to_do():
    dataset = check_arrays(arrays(batch=2))
    with pytest.raises(
        InvalidInput, match=r"at least 3.*pieces.*set split\.validation"
    ):
        dataset.split(SplitSpec(), seed=0)
    with pytest.raises(InvalidInput, match=r"5 complete.*at least 11.*more traj"):
        dataset.split(SplitSpec(pieces=5), seed=0)
    train, validation, test = dataset.split(SplitSpec(validation=0.1, test=0), seed=0)
    assert (train.trajectories, validation.trajectories, test.trajectories) == (1, 1, 0)


def test_one_long_trajectory_is_cut_before_it_is_divided():
    content = arrays(batch=1, samples=44, parameters=np.ones((1, 1)))
    content |= {"times": 1.7e9 + np.arange(44) / 3, "controls": np.ones((1, 44, 1))}
    dataset = check_arrays(content)
    parts = dataset.split(SplitSpec(pieces=10), seed=5)
    assert [p.trajectories for p in parts] == [8, 1, 1]
    pieces = dataset.pieces(10)
    for number in range(10):
        there = slice(4 * number, 4 * number + 5)
        np.testing.assert_array_equal(pieces.states[number], dataset.states[0, there])
        np.testing.assert_array_equal(pieces.times[number], dataset.times[0, there])
    # Rounded as they are, seconds since 1970 are steps of a third.
    assert step_grid(pieces)[0].step == pytest.approx(1 / 3, abs=1e-6)
    assert (pieces.parameters.shape, pieces.controls.shape) == ((10, 1), (10, 5, 1))
    held = [p.states[:, 0, 0] for p in parts]
    assert sorted(np.concatenate(held)) == sorted(pieces.states[:, 0, 0])


def test_pieces_begin_and_end_with_complete_samples():
    mask = np.ones((2, 9), bool)
    mask[0, [2, 4]] = mask[1, 5:] = False
    dataset = check_arrays(arrays(batch=2, samples=9, mask=mask))
    pieces = dataset.pieces(2)
    assert pieces.mask[:, 0].all()
    assert pieces.mask.all(axis=2).sum(axis=1).tolist() == [4, 4, 3, 3]
    kept = [0, 1, 3, 5, 6, 7, 8]
    np.testing.assert_array_equal(
        np.concatenate([pieces.states[0][pieces.present[0]], dataset.states[0, 6:]]),
        dataset.states[0, kept],
    )
    times = pieces.elapsed[0][pieces.present[0]]
    np.testing.assert_array_equal(times, [0.0, 0.5, 1.5, 2.5])
    with pytest.raises(
        InvalidInput, match=r"split\.pieces: found 5 complete samples in"
    ):
        dataset.pieces(3)


def test_summary_is_plain_json():
    summary = summarise(check_arrays(arrays(parameters=np.ones((4, 1)))))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["times"]["longest"] == 2.0
    assert summary["states"]["x1"]["positive"]


def test_dataset_needs_no_jax():
    code = (
        "import sys, spnode_core.dataset, spnode_core.systems; "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
