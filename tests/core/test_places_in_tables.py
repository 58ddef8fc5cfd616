"""What is wrong in a table is named by its row and column, not by arrays' places."""

import numpy as np
import pandas as pd
import pytest

from spnode_core.dataset import load_dataset
from spnode_core.errors import InvalidInput

HEADER = "trajectory,time,y1,y2"
STARTED = "the first sample of every trajectory complete"


@pytest.mark.parametrize(
    ("rows", "field", "found", "expected"),
    [
        # Rows of two trajectories in turns: their order in arrays is another.
        (
            "b,0,1,1 a,0,2, b,1,1,1 a,1,1,1",
            "row 2, column y2",
            "nothing, in trajectory a at time 0",
            STARTED,
        ),
        (
            "a,0,1,1 7,0.5,1,1 a,1,1, 7,2,,",
            "trajectory 7",
            "only the sample at its start, in row 2",
            "at least one later sample",
        ),
        (
            "a,0,1,1 b,0,1,1",
            "trajectory a",
            "only the sample at its start, in row 1",
            "at least one later sample",
        ),
        ("a,0,1,1 a,1,inf,1", "row 2, column y1", "inf", "a finite number"),
        ("a,0,1,1 a,1e200,1,1", "row 2, column time", "1e+200", "a finite number"),
        ("a,0,1,1 a,1,1,-1e151", "row 2, column y2", "-1e+151", "a finite number"),
    ],
)
@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_a_wrong_cell_has_its_row(tmp_path, kind, rows, field, found, expected):
    path = tmp_path / "upload"
    path.write_text("\n".join([HEADER, *rows.split()]))
    if kind == "Parquet":
        pd.read_csv(path).to_parquet(path)
    with pytest.raises(InvalidInput) as refused:
        load_dataset(path)
    assert (refused.value.field, refused.value.found) == (field, found)
    assert expected in refused.value.expected


@pytest.mark.parametrize(
    ("column", "cells", "place", "found"),
    [
        ("parameter:k", ["1", "", "2", "2"], 2, "nothing after 1.0"),
        ("parameter:k", ["1", "1", "", ""], 3, "nothing"),
        ("control:u", ["1", "1", "1", ""], 4, "nothing, in trajectory b at time 1"),
    ],
)
def test_an_empty_input_is_told_as_such(tmp_path, column, cells, place, found):
    starts = ("a,0,1", "a,1,1", "b,0,1", "b,1,1")
    rows = [f"{start},{cell}" for start, cell in zip(starts, cells, strict=True)]
    (tmp_path / "a").write_text("\n".join([f"trajectory,time,y1,{column}", *rows]))
    with pytest.raises(InvalidInput) as refused:
        load_dataset(tmp_path / "a")
    assert refused.value.field == f"row {place}, column {column}"
    assert refused.value.found == found


def test_a_control_behind_the_last_sample_may_be_empty(tmp_path):
    rows = ["a,0,1,5", "a,1,1,5", "a,2,,", "b,0,1,5", "b,1,,5", "b,2,1,5"]
    (tmp_path / "a").write_text("\n".join(["trajectory,time,y1,control:u", *rows]))
    found = load_dataset(tmp_path / "a")
    np.testing.assert_array_equal(found.mask[:, :, 0], [[1, 1, 0], [1, 0, 1]])
