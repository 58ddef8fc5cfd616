"""What a person reads about a dataset."""

import numpy as np
import pytest

from spnode_client.commands.dataset_report import print_brief, print_report
from spnode_client.records import Dataset
from spnode_core import check_arrays
from spnode_core.data_report import summarise


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Two species that turn into each other, one start twice, one sample missing."""
    times = np.append(0.0, np.geomspace(1e-3, 10.0, 30))
    a = np.array([0.2, 0.9, 0.2])[:, None] * np.exp(-times)
    states = np.stack([a, 1 - a], axis=-1)
    mask = np.ones(states.shape, bool)
    mask[1, 7, 0] = False
    arrays = {
        "states": states,
        "times": times,
        "names": ["A", "B"],
        "units": ["mol/L", "mol/L"],
        "time_unit": "s",
        "mask": mask,
        "parameters": np.array([[1.0], [2.0], [1.0]]),
        "parameter_names": ["k"],
    }
    summary = summarise(check_arrays(arrays))
    return Dataset("ds_1", {"id": "ds_1", "name": "reaction", "summary": summary})


def test_a_report_says_what_is_there(dataset, capsys) -> None:
    print_report(dataset)
    said = capsys.readouterr().out
    assert "ds_1  reaction" in said
    assert "3 trajectories of 31 samples, on one time grid" in said
    assert "up to 10 s, shortest step" in said
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line}
    assert rows["A"][1] == "mol/L"
    assert rows["A"][3] == "0.9"
    assert rows["A"][-1] == "1"
    assert rows["k"][1:] == ["parameter", "1", "2"]


def test_what_is_noteworthy_goes_to_standard_error(dataset, capsys) -> None:
    print_brief(dataset)
    said = capsys.readouterr()
    assert said.out == ""
    assert "constant along every trajectory: A + B" in said.err
    assert "warning: trajectories that repeat others: 2 = 0" in said.err


def test_states_that_do_not_move_are_named(dataset, capsys) -> None:
    odd = {"constant": [f"c{i}" for i in range(7)], "constant_along": ["k", "l"]}
    print_report(Dataset("ds_1", {"id": "ds_1", "summary": dataset.summary | odd}))
    said = capsys.readouterr().out
    assert "warning: the same in all samples: c0, c1, c2, c3, c4, ..." in said
    assert "warning: changes between trajectories only: k, l; parameters" in said
    print_report(dataset)
    assert "only" not in capsys.readouterr().out


def test_one_trajectory_is_counted_as_one(dataset, capsys) -> None:
    print_report(Dataset("ds_1", {"summary": dataset.summary | {"trajectories": 1}}))
    assert "\n1 trajectory of 31 samples, on one" in capsys.readouterr().out
