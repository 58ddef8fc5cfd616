"""Tables as text, CSV: cells between commas, semicolons or tabs."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from spnode_core.errors import InvalidInput, counted
from spnode_core.formats.reading import UTF_16

_EXPONENT = r"(?:[eEdD][+-]?\d+)?"
_COMMA = rf"[+-]?(?:\d+,\d*|,\d+){_EXPONENT}"
_POINT = rf"[+-]?(?:\d+\.\d*|\.\d+){_EXPONENT}"
_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"
_TRAJECTORY = re.compile(r"\s*trajectory\s*(\[|$)", re.IGNORECASE)
_BEFORE_COMMENT = re.compile(r'(?:"[^"]*"|[^"#])*')


def read_csv(path: Path) -> pd.DataFrame:
    """The table of a CSV file, one column for each name of its header.

    Raises:
        InvalidInput: It is in no known encoding, two columns have one name, a row has
            too few cells, or decimal signs differ.
    """
    encoding = encoding_of(path)
    form: dict[str, Any] = {
        "sep": _separator(path, encoding),
        "comment": "#",
        "skipinitialspace": True,
        "encoding": encoding,
        "low_memory": False,
    }
    # pandas would call the second of two `y1` by another name.
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, **form).iloc[0]
    names = [name.strip() for name in header if isinstance(name, str)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise named_twice(twice[0], twice[0])
    frame = _frame(path, form)
    # Between commas a decimal comma would be a delimiter.
    if form["sep"] != "," and _has_decimal_commas(frame):
        frame = _with_points(_frame(path, form | {"decimal": ","}), frame)
    return frame


def _frame(path: Path, form: dict[str, Any]) -> pd.DataFrame:
    frame = pd.read_csv(path, **form)
    has_more = not isinstance(frame.index, pd.RangeIndex)
    # One delimiter more at the end of rows would move every column by one; names of
    # rows in front of the others are left out.
    if has_more and frame.iloc[:, -1].isna().all():
        frame = pd.read_csv(path, index_col=False, **form)
    # What a row lacks at its end pandas takes for empty cells.
    if frame.iloc[:, -1].isna().any():
        _check_rows(path, form, len(frame.columns) + has_more)
    return frame


def encoding_of(path: Path) -> str:
    """How letters are written: UTF-8, UTF-16 with its mark, or else Windows-1252.

    Raises:
        InvalidInput: None of them: which byte, and where.
    """
    found = ""
    with path.open("rb") as file:
        if file.read(2) in UTF_16:
            return "utf-16"
        file.seek(0)
        for number, line in enumerate(file, 1):
            if not line.isascii():
                found = _encoding(line, number, found)
    return found or "utf-8-sig"


def _encoding(line: bytes, number: int, before: str) -> str:
    """The encoding of a line with letters beyond ASCII, after lines of another."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        if before != "utf-8-sig" and _is_windows_1252(line):
            return "cp1252"
        raise InvalidInput(
            "file",
            found=f"the byte 0x{line[error.start]:02X} in line {number}, place "
            f"{error.start + 1}",
            expected="text in UTF-8",
        ) from error
    return before or "utf-8-sig"


def _is_windows_1252(line: bytes) -> bool:
    try:
        line.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


def named_twice(header: str, name: str) -> InvalidInput:
    """The error that names a column which is there already."""
    return InvalidInput(
        header.strip(),
        found=f"two columns {name!r}",
        expected="one of each name; units do not tell them apart",
    )


def _separator(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding) as file:
        header = next((line for line in file if not line.startswith("#")), "")
    return max(",;\t", key=header.count)


def _check_rows(path: Path, form: dict[str, Any], cells: int) -> None:
    """Refuse a row that is too short; rows count from 1 below the header."""
    with path.open(encoding=form["encoding"], newline="") as file:
        lines = map(_without_comment, file)
        rows = csv.reader(lines, delimiter=form["sep"], skipinitialspace=True)
        counts = enumerate(_counts(rows))
        next(counts)
        for row, count in counts:
            if count >= cells:
                continue
            line, is_last = rows.line_num, next(counts, None) is None
            raise InvalidInput(
                f"row {row}",
                found=f"{counted(count, 'cell')} in line {line}"
                f"{', the last' * is_last}",
                expected=f"{cells}, as in other rows: empty ones where samples are "
                f"missing{'; the file seems cut off' * is_last}",
            )


def _without_comment(line: str) -> str:
    found = _BEFORE_COMMENT.match(line) if "#" in line else None
    return found.group() if found else line


def _counts(rows: Iterator[list[str]]) -> Iterator[int]:
    """Cells of each row that is not blank."""
    for row in rows:
        if len(row) > 1 or any(cell.strip() for cell in row):
            yield len(row)


def _has_decimal_commas(frame: pd.DataFrame) -> bool:
    """Whether cells are numbers with a decimal comma.

    Raises:
        InvalidInput: The commas may be those of thousands.
    """
    doubtful = None
    for name, cells in _texts(frame).items():
        with_comma = cells[cells.str.fullmatch(_COMMA)]
        if not with_comma.str.fullmatch(_THOUSANDS).all():
            return True
        if doubtful is None and len(with_comma):
            doubtful = name, with_comma
    if doubtful is not None:
        name, cells = doubtful
        raise InvalidInput(
            _place(name, cells.index[0]),
            found=f"{cells.iloc[0]!r}, where the comma may be one of thousands",
            expected="numbers with decimal points, and nothing between thousands",
        )
    return False


def _with_points(frame: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """A table read by decimal commas, what was left as text by decimal points.

    Args:
        frame: Read so.
        before: The same table, read by decimal points.

    Raises:
        InvalidInput: Cells have points and others have commas.
    """
    for name, cells in _texts(frame).items():
        with_point = cells[cells.str.fullmatch(_POINT)]
        if len(with_point):
            commas = (
                (other, found[found.str.fullmatch(_COMMA)])
                for other, found in _texts(before).items()
            )
            other, found = next(each for each in commas if len(each[1]))
            raise InvalidInput(
                _place(name, with_point.index[0]),
                found=f"{with_point.iloc[0]!r}, but {found.iloc[0]!r} in "
                f"{_place(other, found.index[0])}",
                expected="decimal points or decimal commas, one of them in all cells",
            )
        with_comma = cells.str.fullmatch(_COMMA)
        if with_comma.any():
            pointed = cells.str.replace(",", ".", regex=False)
            frame[name] = frame[name].where(~with_comma.to_numpy(), pointed.to_numpy())
    return frame


def _texts(frame: pd.DataFrame) -> dict[str, Any]:
    """Columns that are no numbers as they are read, by number of row, but labels."""
    return {
        name: frame[name].reset_index(drop=True).astype(str).str.strip()
        for name in frame.columns
        if frame[name].dtype.kind == "O" and not _TRAJECTORY.match(str(name))
    }


def _place(column: str, row: int) -> str:
    return f"row {row + 1}, column {column.strip()}"
