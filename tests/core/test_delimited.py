"""Tables as text: what is read, and what is refused with its row."""

import numpy as np
import pytest

from spnode_core.dataset import load_dataset
from spnode_core.errors import InvalidInput


def read(tmp_path, text):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "upload").write_bytes(content)
    return load_dataset(tmp_path / "upload")


def refused(tmp_path, text):
    with pytest.raises(InvalidInput) as error:
        read(tmp_path, text)
    return str(error.value)


HEADER = "trajectory,time,y1,y2\n"


def test_a_row_that_is_too_short_is_refused_with_its_row(tmp_path):
    said = refused(tmp_path, HEADER + "0,0,1,2\n0,1,2\n1,0,1,2\n1,1,2,3\n")
    assert said.startswith("row 2: found 3 cells in line 3; expected 4")
    assert "cut off" not in said


def test_a_last_row_that_is_cut_off_is_no_parameter_that_changes(tmp_path):
    header = "# from a rig\ntrajectory;time;y1;parameter:k\n\n"
    said = refused(tmp_path, header + '"a #1";0;1;5 # start\n"a #1";1;2;5\nb;0;1;5\nb')
    assert said.startswith("row 4: found 1 cell in line 7, the last; expected 4")
    assert "cut off" in said


def test_empty_cells_are_missing_samples_beside_comments_and_blanks(tmp_path):
    rows = '"a, b",0,1,2\n# half time\n   \n"a, b",1,2,\n"a #1",0,1,2 # one\n"a #1",1,,3'
    found = read(tmp_path, HEADER + rows)
    assert np.isnan(found.states[0, 1, 1])
    assert found.mask.sum() == 6


def test_rows_with_names_or_a_last_delimiter_can_be_too_short(tmp_path):
    ended = HEADER + "0,0,1,2,\n0,1,2,\n"
    assert "row 2: found 4 cells in line 3, the last; expected 5" in refused(
        tmp_path, ended
    )
    named = HEADER + "a,0,0,1,2\nb,0,1,2\n"
    assert "row 2: found 4 cells in line 3, the last; expected 5" in refused(
        tmp_path, named
    )
