"""Tables as text, CSV: cells between commas, semicolons or tabs."""

from pathlib import Path
from typing import Any

import pandas as pd

from spnode_core.errors import InvalidInput


def read_csv(path: Path) -> pd.DataFrame:
    """The table of a CSV file, one column for each name of its header.

    Raises:
        InvalidInput: Two columns have one name.
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
    # One delimiter more at the end of rows would move every column by one; names of
    # rows in front of the others are left out.
    if not isinstance(frame.index, pd.RangeIndex) and frame.iloc[:, -1].isna().all():
        frame = pd.read_csv(path, index_col=False, **form)
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
