"""Tables as text, CSV: cells between commas, semicolons or tabs."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from spnode_core.errors import InvalidInput

_BEFORE_COMMENT = re.compile(r'(?:"[^"]*"|[^"#])*')


def read_csv(path: Path) -> pd.DataFrame:
    """The table of a CSV file, one column for each name of its header.

    Raises:
        InvalidInput: Two columns have one name, or a row has too few cells.
    """
    form: dict[str, Any] = {
        "sep": _separator(path),
        "comment": "#",
        "skipinitialspace": True,
        "encoding": "utf-8-sig",
        "low_memory": False,
    }
    # pandas would call the second of two `y1` by another name.
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, **form).iloc[0]
    names = [name.strip() for name in header if isinstance(name, str)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise named_twice(twice[0], twice[0])
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


def named_twice(header: str, name: str) -> InvalidInput:
    """The error that names a column which is there already."""
    return InvalidInput(
        header.strip(),
        found=f"two columns {name!r}",
        expected="one of each name; units do not tell them apart",
    )


def _separator(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as file:
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
                found=f"{count} cell{'s' * (count != 1)} in line {line}"
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
