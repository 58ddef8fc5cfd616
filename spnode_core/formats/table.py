"""Tables in long form, CSV or Parquet: a row for every sample of every trajectory.

::

    trajectory, time [s], y1 [mol/L], y2 [mol/L], parameter:k1, control:u
    0,          0,        1.0,        0.0,        0.04,         0.5

Every other column is a state; an empty cell is a missing sample.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spnode_core.dataset_checks import USABLE, is_usable
from spnode_core.errors import InvalidInput
from spnode_core.formats.delimited import named_twice, read_csv
from spnode_core.formats.reading import check_size

_HEADER = re.compile(r"^\s*(?:(parameter|control):)?\s*(.*?)\s*(?:\[([^\]]*)\])?\s*$")
# 1.0D-3, as Fortran writes numbers of eight bytes.
_FORTRAN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)\s*")
_NAMELESS = re.compile(r"\s*|Unnamed: \d+")
_NEEDED = "columns `trajectory` and `time`, and one for each state"
_STARTED = "the first sample of every trajectory complete: a rollout starts there"
Columns = dict[str, np.ndarray]


def read(path: Path, kind: str, limit_bytes: int) -> Mapping[str, Any]:
    """The arrays of a dataset.

    Raises:
        InvalidInput: The table is damaged, or a cell is wrong: which row and column.
    """
    try:
        if kind == "Parquet":
            frame = _parquet(path, limit_bytes)
        else:
            # The shortest number takes two bytes here, and eight in memory.
            check_size(4 * path.stat().st_size, limit_bytes)
            frame = read_csv(path)
        columns = {str(name): frame[name].to_numpy() for name in frame.columns}
    except InvalidInput:
        raise
    except Exception as error:  # readers raise whatever their parts raise
        raise InvalidInput(
            "file", found=f"a damaged {kind} table: {error}", expected="a whole table"
        ) from error
    return _arrays(columns)


def _parquet(path: Path, limit_bytes: int) -> pd.DataFrame:
    metadata = pq.read_metadata(path)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    unpacked = sum(
        group.column(i).total_uncompressed_size
        for group in groups
        for i in range(group.num_columns)
    )
    numbers = 8 * metadata.num_rows * metadata.num_columns
    check_size(max(numbers, unpacked), limit_bytes)
    # A long word that is repeated takes its length once, as it does in the file.
    words = [
        field.name
        for field in pq.read_schema(path)
        if pa.types.is_string(field.type) or pa.types.is_binary(field.type)
    ]
    return pq.read_table(path, use_threads=False, read_dictionary=words).to_pandas()


def _arrays(columns: Columns) -> Mapping[str, Any]:
    time_unit, states, units, others = "", {}, [], {"parameter": {}, "control": {}}
    trajectory = times = None
    seen: set[tuple[str | None, str]] = set()
    for header, column in columns.items():
        if _NAMELESS.fullmatch(header):
            raise InvalidInput(
                "file",
                found=f"a column without a name ({header!r})",
                expected="a name for each; pandas leaves its row numbers out by "
                "to_csv(..., index=False)",
            )
        match = _HEADER.match(header)
        role, name, unit = match.groups() if match else (None, header, None)
        called = name.lower() if name.lower() in ("trajectory", "time") else name
        if (role, called) in seen:
            raise named_twice(header, called)
        seen.add((role, called))
        if role is not None:
            others[role][name] = _numbers(header, column)
        elif name.lower() == "trajectory":
            trajectory = column
        elif name.lower() == "time":
            times, time_unit = _numbers(header, column), unit or ""
        else:
            states[name] = _numbers(header, column)
            units.append(unit or "")
    if trajectory is None or times is None or not states:
        raise InvalidInput(
            "file", found=f"columns {', '.join(columns)[:200]}", expected=_NEEDED
        )
    if not len(trajectory):
        raise InvalidInput("file", found="no row below the header", expected=_NEEDED)
    places = _Places(trajectory, times)
    places.check_samples(states, others["control"])
    values = places.by_trajectory(states)
    found: dict[str, Any] = {
        "states": values,
        "times": places.times(),
        "names": np.array(list(states)),
        "time_unit": time_unit,
    }
    if any(units):
        found["units"] = np.array(units)
    if np.isnan(values).any():
        found["mask"] = ~np.isnan(values)
    if others["parameter"]:
        found["parameter_names"] = np.array(list(others["parameter"]))
        found["parameters"] = places.constants(others["parameter"])
    if others["control"]:
        found["control_names"] = np.array(list(others["control"]))
        found["controls"] = places.by_trajectory(others["control"])
    return found


class _Places:
    """Where each row of the table belongs: its trajectory and its place there."""

    def __init__(self, trajectory: np.ndarray, times: np.ndarray) -> None:
        codes, self.labels = pd.factorize(trajectory)
        if (codes < 0).any():
            raise _wrong("trajectory", int((codes < 0).argmax()), "nothing", "a label")
        self.order = np.argsort(codes, kind="stable")
        self.codes = codes[self.order]
        self.counts = np.bincount(codes, minlength=len(self.labels))
        starts = np.cumsum(self.counts) - self.counts
        self.index = np.arange(len(codes)) - starts[self.codes]
        self._times = times[self.order]
        bad = np.isnan(self._times)
        if bad.any():
            raise _wrong("time", int(self.order[bad.argmax()]), "nothing", "a time")
        before = (np.diff(self._times) <= 0) & (np.diff(self.codes) == 0)
        if before.any():
            place = int(before.argmax()) + 1
            raise _wrong(
                "time",
                int(self.order[place]),
                f"{self._times[place]} after {self._times[place - 1]}",
                "times that increase within a trajectory",
            )

    def check_samples(self, states: Columns, controls: Columns) -> None:
        """Refuse cells that are empty where a rollout needs them.

        Raises:
            InvalidInput: A state at the start of a trajectory, or a control up to its
                last sample, is missing; or there is no later sample.
        """
        first = self.index == 0
        present = np.zeros(len(self.codes), bool)
        for name, column in states.items():
            self._require(name, first & np.isnan(column[self.order]), _STARTED)
            present |= ~np.isnan(column[self.order])
        last = np.zeros(len(self.counts), np.int64)
        np.maximum.at(last, self.codes, self.index * present)
        if not last.all():
            place = int((last == 0).argmax())
            row = self.order[np.flatnonzero(first)[place]]
            raise InvalidInput(
                f"trajectory {self.labels[place]}",
                found=f"only the sample at its start, in row {row + 1}",
                expected="at least one later sample in every trajectory",
            )
        within = self.index <= last[self.codes]
        for name, column in controls.items():
            empty = within & np.isnan(column[self.order])
            self._require(f"control:{name}", empty, "a value up to the last sample")

    def _require(self, column: str, empty: np.ndarray, expected: str) -> None:
        if empty.any():
            place = int(empty.argmax())
            label, time = self.labels[self.codes[place]], self._times[place]
            found = f"nothing, in trajectory {label} at time {time:g}"
            raise _wrong(column, int(self.order[place]), found, expected)

    def times(self) -> np.ndarray:
        """``(trajectory, time)``, going on behind the end of the shorter ones."""
        padded = self._spread(self._times)
        last = padded[np.arange(len(self.counts)), self.counts - 1]
        return np.where(np.isnan(padded), last[:, None], padded)

    def by_trajectory(self, columns: Columns) -> np.ndarray:
        """``(trajectory, time, column)``, NaN where there is no row."""
        return np.stack(
            [self._spread(column[self.order]) for column in columns.values()], axis=2
        )

    def constants(self, columns: Columns) -> np.ndarray:
        """``(trajectory, column)``, of columns that keep one value along each."""
        values = self.by_trajectory(columns)
        within = np.arange(values.shape[1]) < self.counts[:, None]
        differs = within[:, :, None] & ~(values == values[:, :1])
        if differs.any():
            row, place, column = np.argwhere(differs)[0]
            value = values[row, place, column]
            told = "nothing" if np.isnan(value) else str(value)
            in_order = int(np.cumsum(self.counts)[row] - self.counts[row] + place)
            raise _wrong(
                f"parameter:{list(columns)[column]}",
                int(self.order[in_order]),
                f"{told} after {values[row, 0, column]}" if place else told,
                "one value along a trajectory; call what changes `control:`",
            )
        return values[:, 0]

    def _spread(self, column: np.ndarray) -> np.ndarray:
        spread = np.full((len(self.counts), self.counts.max()), np.nan)
        spread[self.codes, self.index] = column
        return spread


def _numbers(header: str, column: np.ndarray) -> np.ndarray:
    numbers = _read_numbers(header, column)
    bad = ~is_usable(numbers) & ~np.isnan(numbers)
    if bad.any():
        row = int(bad.argmax())
        raise _wrong(header.strip(), row, str(numbers[row]), USABLE)
    return numbers


def _read_numbers(header: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind in "fiu":
        return column.astype(np.float64)
    if column.dtype.kind in "mMc":
        # Their units are not the header's: seconds would become nanoseconds.
        raise _wrong(
            header.strip(),
            0,
            f"{', '.join(map(str, column[:1]))} of {column.dtype}",
            "a number: convert dates and durations to seconds, or another unit, first",
        )
    series = pd.Series(column)
    numbers = np.array(pd.to_numeric(series, errors="coerce"), np.float64)
    for row in np.flatnonzero(np.isnan(numbers) & ~np.asarray(pd.isna(series))):
        found = _FORTRAN.fullmatch(str(column[row]))
        if found is None:
            raise _wrong(header.strip(), int(row), repr(column[row]), "a number")
        numbers[row] = float("e".join(found.groups()))
    return numbers


def _wrong(column: str, row: int, found: str, expected: str) -> InvalidInput:
    """The error that names a cell; rows count from 1 below the header."""
    place = f"row {row + 1}, column {column}"
    return InvalidInput(place, found=found, expected=expected)
