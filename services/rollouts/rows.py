"""Where the rows of a rollout job come from, some at a time and in order.

Sent arrays, the start of a dataset's trajectories, or the grid of a sweep: none of them
is ever in memory as a whole. What all rows share is read once.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from services.rollouts.request import ARRAYS, Arrays
from services.rollouts.sweep import Grid
from spnode_core.dataset_checks import KEYS
from spnode_core.errors import InvalidInput
from spnode_core.npz import Member, open_npz

NUMERIC = (*ARRAYS, "times")
"""Arrays that a caller may send."""
TEXT = "request"
"""The member of a sent npz file that holds all else, as JSON."""
# Of what is read to be left out, at a time.
_BLOCK_BYTES = 8 * 2**20
# Of an array that all rows share: it is in memory as a whole.
_SHARED_BYTES = 64 * 2**20
_RANKS = {"x0": 1, "parameters": 1, "controls": 2}


class AbstractRows(Protocol):
    """Rows in order, from the first to the last."""

    count: int

    def take(self, count: int) -> Arrays:
        """The next rows, and what all rows share."""
        ...

    def skip(self, count: int) -> None:
        """Leave the next rows out."""
        ...


class SentRows:
    """The arrays of a file that a caller sent.

    Args:
        members: Its arrays.

    Raises:
        InvalidInput: Arrays with different numbers of rows, or with none.
    """

    def __init__(self, members: dict[str, Member]) -> None:
        numeric = {name: members[name] for name in NUMERIC if name in members}
        for member in numeric.values():
            _check_rank(member)
        self._by_row = {
            name: each
            for name, each in numeric.items()
            if len(each.shape) == _RANKS.get(name, len(each.shape)) + 1
        }
        self.shared = {
            name: floats(name, each.whole())
            for name, each in numeric.items()
            if name not in self._by_row
        }
        self.count = _count(self._by_row)
        self._read = 0

    @property
    def first(self) -> Arrays:
        """The first row in the form in which it was sent; taken, where it is one."""
        return self.take(1) if self._by_row else self.shared

    def take(self, count: int) -> Arrays:
        """The next rows, and what all rows share."""
        found = dict(self.shared)
        for name, member in self._by_row.items():
            found[name] = floats(name, member.rows(count), start=self._read)
        self._read += count
        if not self._by_row and "x0" in found:
            found["x0"] = found["x0"][None]
        return found

    def skip(self, count: int) -> None:
        """Leave the next rows out."""
        self._read += count
        for member in self._by_row.values():
            skip_rows(member, count)


class DatasetRows:
    """The first samples and the parameters of a dataset's trajectories.

    Args:
        members: The arrays of the dataset's file.
        states: Place in the dataset of each state that the model takes.
        parameters: The same of parameters, or None where the request gives them.
        shared: What all rows share.
    """

    def __init__(
        self,
        members: dict[str, Member],
        states: list[int],
        parameters: list[int] | None,
        shared: Arrays,
    ) -> None:
        self._states, self._order = members["states"], states
        self._parameters = None if parameters is None else members["parameters"]
        self._columns = parameters
        self._shared = shared
        self.count = self._states.shape[0]

    def take(self, count: int) -> Arrays:
        """The next rows, and what all rows share."""
        found = dict(self._shared)
        found["x0"] = np.concatenate(
            [block[:, 0, self._order] for block in _blocks(self._states, count)]
        )
        if self._parameters is not None:
            found["parameters"] = self._parameters.rows(count)[:, self._columns]
        return {name: np.asarray(each, np.float64) for name, each in found.items()}

    def skip(self, count: int) -> None:
        """Leave the next rows out."""
        skip_rows(self._states, count)
        if self._parameters is not None:
            skip_rows(self._parameters, count)


class SweepRows:
    """The rows of a sweep's grid.

    Args:
        grid: The grid.
        shared: What all rows share beside it.
    """

    def __init__(self, grid: Grid, shared: Arrays) -> None:
        self.grid = grid
        self._shared = shared
        self._next = 0
        self.count = grid.count

    def take(self, count: int) -> Arrays:
        """The next rows, and what all rows share."""
        start = self._next
        self._next = min(start + count, self.count)
        return {**self._shared, **self.grid.rows(start, self._next)}

    def skip(self, count: int) -> None:
        """Leave the next rows out."""
        self._next = min(self._next + count, self.count)


@contextlib.contextmanager
def sent_members(path: Path, limit_bytes: int) -> Iterator[dict[str, Member]]:
    """Open a file of arrays that a caller sent.

    Raises:
        InvalidInput: It is no such file, or holds what it may not.
    """
    with open_npz(path, allowed=(TEXT, *NUMERIC), limit_bytes=limit_bytes) as members:
        for name, member in members.items():
            if name != TEXT and member.dtype.kind not in "fiu":
                raise InvalidInput(
                    name,
                    found=f"dtype {member.dtype}",
                    expected="float64, or another number",
                )
        yield members


@contextlib.contextmanager
def dataset_members(path: Path, limit_bytes: int) -> Iterator[dict[str, Member]]:
    """Open the file of a dataset in the store."""
    with open_npz(path, allowed=KEYS, limit_bytes=limit_bytes) as members:
        yield members


def _count(by_row: dict[str, Member]) -> int:
    """The number of rows, one where every array is for all rows."""
    count, first = 1, ""
    for name, member in by_row.items():
        found = member.shape[0]
        if found == 0 or (first and found != count):
            expected = f"{count}, as in {first}, or one for all rows"
            raise InvalidInput(
                name,
                found=f"{found} rows",
                expected=expected if first else "at least one",
            )
        count, first = found, first or name
    return count


def _check_rank(member: Member) -> None:
    """Check a shape before anything of it is read."""
    rank = _RANKS.get(member.name)
    ranks = (1,) if rank is None else (rank, rank + 1)
    if len(member.shape) not in ranks:
        raise InvalidInput(
            member.name,
            found=f"an array of shape {member.shape}",
            expected=f"{' or '.join(map(str, ranks))} axes",
        )
    size = member.row_bytes * member.shape[0]
    if len(member.shape) == ranks[0] and size > _SHARED_BYTES:
        raise InvalidInput(
            member.name,
            found=f"{size} bytes that all rows share",
            expected=f"at most {_SHARED_BYTES}",
        )


def floats(name: str, array: np.ndarray, start: int = 0) -> np.ndarray:
    """The numbers as float64, all of them finite.

    Args:
        name: What they are called, for errors.
        array: The numbers.
        start: The row of the first of them, where they are rows.

    Raises:
        InvalidInput: Names the first that is not finite.
    """
    array = np.ascontiguousarray(array, np.float64)
    if np.isfinite(array).all():
        return array
    place = [int(index) for index in np.argwhere(~np.isfinite(array))[0]]
    value = float(array[tuple(place)])
    if place:
        place[0] += start
    raise InvalidInput(
        f"{name}[{', '.join(map(str, place))}]" if place else name,
        found=repr(value),
        expected="a finite number",
    )


def skip_rows(member: Member, count: int) -> None:
    """Read rows and leave them out, a bounded number at a time."""
    for _ in _blocks(member, count):
        pass


def _blocks(member: Member, count: int) -> Iterator[np.ndarray]:
    """The next rows in pieces of bounded size."""
    most = max(1, _BLOCK_BYTES // max(1, member.row_bytes))
    while count > 0:
        block = member.rows(min(count, most))
        count -= most
        if not len(block):
            return
        yield block
