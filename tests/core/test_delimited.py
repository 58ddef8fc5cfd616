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
    rows = (
        '"a, b",0,1,2\n# half time\n   \n"a, b",1,2,\n"a #1",0,1,2 # one\n"a #1",1,,3'
    )
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("lines", [0, 200])
def test_letters_are_read_in_the_encodings_of_spreadsheets(tmp_path, encoding, lines):
    """The first letter beyond ASCII may come late."""
    note = "# nothing but ASCII here\r\n" * lines
    text = f"{note}trajectory;time [s];y1 [µmol/L]\r\nä;0;1\r\nä;1;2\r\n"
    found = read(tmp_path, text.encode(encoding))
    assert found.units == ("µmol/L",)
    np.testing.assert_array_equal(found.states[0, :, 0], [1, 2])


def test_what_is_in_no_encoding_is_refused_with_its_byte(tmp_path):
    mixed = HEADER.encode() + "µ,0,1,2\n".encode() + b"a,0,1,2\n\xb5,1,2,3\n"
    said = refused(tmp_path, mixed)
    assert said == (
        "file: found the byte 0xB5 in line 4, place 1; expected text in UTF-8"
    )
    unknown = HEADER.encode() + b"a,0,1,2\na\x81,1,2,3\n"
    assert "the byte 0x81 in line 3, place 2" in refused(tmp_path, unknown)


def test_bytes_that_are_no_text_are_still_no_table(tmp_path):
    for content in (b"\xff\xd8,;\x00\x10JFIF", b"\x89PNG\r\n\x1a\n,\xff", b"\xb5" * 99):
        assert "begins with" in refused(tmp_path, content)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas_are_those_numbers(tmp_path, delimiter):
    rows = ["1,5;0;1;-,25", "1,5;0,5;2,5e-3;", "b;0;1,234;3", "b;1;2;4"]
    text = HEADER.replace(",", delimiter)
    text += "\n".join(row.replace(";", delimiter) for row in rows)
    found = read(tmp_path, text)
    np.testing.assert_array_equal(found.times, [[0, 0.5], [0, 1]])
    np.testing.assert_array_equal(found.states[:, :, 0], [[1, 2.5e-3], [1.234, 2]])
    np.testing.assert_array_equal(found.states[0, :, 1], [-0.25, np.nan])


def test_commas_and_points_in_one_file_are_refused_with_both_places(tmp_path):
    header = HEADER.replace(",", ";")
    said = refused(tmp_path, header + "a;0,5;1;2\na;1;1;2,5\nb;0;1.5;2\nb;1;1;2\n")
    assert said == (
        "row 3, column y1: found '1.5', but '0,5' in row 1, column time; expected "
        "decimal points or decimal commas, one of them in all cells"
    )


def test_commas_that_may_be_of_thousands_are_refused(tmp_path):
    header = HEADER.replace(",", "\t")
    said = refused(tmp_path, header + "a\t0\t1\t2\na\t1\t1,234\t2\n")
    assert said.startswith("row 2, column y1: found '1,234', where the comma may be")


def test_what_is_no_number_beside_decimal_commas_is_named_as_it_stands(tmp_path):
    header = HEADER.replace(",", ";")
    said = refused(tmp_path, header + "a;0,5;1;2\na;1;1,5;2\nb;0;1.000,5;2\n")
    assert said.startswith("row 3, column y1: found '1.000,5'; expected a number")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_exponents_of_fortran_are_those_numbers(tmp_path, delimiter):
    text = HEADER + "0,0,1.0D-3,1\n0,1.5d+0,-1D2,.5d1\n"
    found = read(tmp_path, text.replace(",", delimiter))
    np.testing.assert_array_equal(found.states[0], [[1e-3, 1], [-100, 5]])
    np.testing.assert_array_equal(found.times[0], [0, 1.5])
    mixed = text.replace("0,1.5d+0", "0,d+0").replace(",", delimiter)
    assert "row 2, column time: found 'd+0'; expected a number" in refused(
        tmp_path, mixed
    )


def test_exponents_of_fortran_stand_beside_decimal_commas(tmp_path):
    found = read(tmp_path, HEADER.replace(",", ";") + "0;0;1,0D-3;1\n0;1,5;-2,5;2\n")
    np.testing.assert_array_equal(found.states[0, :, 0], [1e-3, -2.5])
