"""How the rows of a batch are cut into tiles: pieces of few fixed sizes.

Matrix products of different sizes may round differently, so a row's bits are kept by
computing it in a tile of one size, or of sizes that have shown the same bits: smaller
ones always get to show them, larger ones once a batch would fill them. Where throughput
is asked for, tiles are large at once and that promise does not hold.
"""

import functools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from services.rollouts.request import Arrays

TILES = (2, 8, 32)
"""Rows of a tile where bits are promised; the largest computes every shape first."""
LARGE_TILES = (2, 8, 32, 64, 256)
"""Rows of a tile where throughput is asked for, or bits have turned out the same."""
DERIVATIVE_TILES = (2, 8, 32, 64, 128)
"""The same for derivatives, whose stored steps leave the cache sooner."""
WORTH_A_THREAD = 64
"""Rows: fewer take longer on two threads than on one."""
BACKWARDS = frozenset({"vjp", "hvp", "objective"})
"""Operations that keep every step until they come back to it."""
DERIVATIVES = BACKWARDS | {"jvp"}
MOST_KEPT_BYTES = 2**28
"""Of the steps of a tile for its way back, by ``kept_bytes``; where it would be more,
each step is computed again. Of a network of 2 x 100 units that is 57 MB instead of 8,
and takes twice as long: it does not stay in the cache."""
# Beside its rows a tile costs a dispatch and a scan: by prototypes' times about as much
# as 4 rows.
_COST = 4
_ATTEMPTS = 5
# Of rows that two tiles are compared on; at least one piece is, however long it takes.
_COMPARED_ROWS, _COMPARED_BYTES, _COMPARED_S = 1024, 2**26, 1.0
# By so much times as short as these are differ from call to call.
_LONGER = 1.5
# What a larger tile must save, as it is another program to keep.
_SHORTER = 0.95


def tiles_of(operation: str, *, throughput: bool) -> tuple[int, ...]:
    """Tiles that an operation may use at all, smallest first."""
    if not throughput:
        return TILES
    if operation == "hvp":
        return TILES  # 1.25 times as long in tiles of 64
    return DERIVATIVE_TILES if operation in DERIVATIVES else LARGE_TILES


def larger_tiles(operation: str) -> tuple[int, ...]:
    """Tiles that may turn out to give the bits that are promised, smallest first."""
    every = tiles_of(operation, throughput=True)
    return tuple(tile for tile in every if tile > TILES[-1])


def for_cores(tiles: tuple[int, ...], rows: int, cores: int) -> tuple[int, ...]:
    """Of the largest tiles those of which so many rows fill one on each core."""
    most = max(WORTH_A_THREAD, rows // cores)
    return tuple(tile for tile in tiles if tile <= most) or tiles[:1]


@functools.lru_cache(maxsize=256)
def pieces(
    rows: int, tiles: tuple[int, ...], cores: int
) -> tuple[tuple[int, int, int], ...]:
    """Start, stop and tile of each piece: whole large tiles, then the cheapest.

    Args:
        rows: Rows of the batch.
        tiles: Sizes to choose from, smallest first.
        cores: How many compute.
    """
    tiles = for_cores(tiles, rows, cores)
    start, largest = 0, tiles[-1]
    whole, rest = divmod(rows, largest)
    found = []
    for tile in (largest,) * whole + _cheapest(rest, tiles):
        stop = min(start + tile, rows)
        found.append((start, stop, tile))
        start = stop
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _cheapest(rows: int, tiles: tuple[int, ...]) -> tuple[int, ...]:
    """The tiles, large ones first, that hold so many rows at least cost."""
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for count in range(1, rows + 1):
        best.append(
            min(
                (tile + _COST + cost, (tile, *others))
                for tile in tiles
                for cost, others in [best[max(count - tile, 0)]]
            )
        )
    return tuple(sorted(best[rows][1], reverse=True))


def filled(array: np.ndarray, tile: int) -> np.ndarray:
    """The rows, filled up to a tile with copies of the last one, which are finite."""
    missing = tile - len(array)
    if not missing:
        return array
    if len(array) == 1:
        return array.repeat(tile, 0)
    return np.concatenate([array, array[-1:].repeat(missing, 0)])


def joined(parts: list[Arrays]) -> Arrays:
    """Results one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def is_worth_it(
    one: Callable[[Arrays], Arrays],
    usual: Callable[[Arrays], Arrays],
    rows: Arrays,
    tile: int,
    largest: int,
) -> bool:
    """Whether a tile takes short enough, beside the largest that is used.

    A smaller one hardly longer than that, for all that it holds: one that a compiler
    makes badly takes many times as long. A larger one clearly shorter for as many rows:
    it may leave the cache that smaller ones stay in.

    Args:
        one: Computes rows in the tile.
        usual: Computes them in the largest.
        rows: As many as the larger of both, or more.
        tile: How many rows the tile holds.
        largest: How many the largest does.
    """
    if tile > largest:
        piece = some(rows, tile)
        return is_quicker(partial(one, piece), partial(usual, piece), by=_SHORTER)
    few, many = some(rows, tile), some(rows, largest)
    return is_quicker(partial(one, few), partial(usual, many), by=_LONGER)


def is_quicker(one: Callable[[], Any], usual: Callable[[], Any], *, by: float) -> bool:
    """Whether something takes at most ``by`` times as long as what is usual.

    Each has several attempts, of which the shortest counts, as other work may hold it
    up; fewer where they take long.
    """

    def seconds(compute: Callable[[], Any]) -> float:
        began = time.perf_counter()
        compute()
        return time.perf_counter() - began

    least, least_usual, spent = math.inf, math.inf, 0.0
    for _ in range(_ATTEMPTS):
        ones, usuals = seconds(one), seconds(usual)
        least, least_usual = min(least, ones), min(least_usual, usuals)
        spent += ones + usuals
        if spent > _COMPARED_S:
            break
    return least <= by * least_usual


def same_bits(one: Arrays, other: Arrays) -> bool:
    """Whether two results are equal to the last bit."""
    return all(array.tobytes() == other[name].tobytes() for name, array in one.items())


def some(rows: Arrays, count: int, start: int = 0) -> Arrays:
    """So many of the rows."""
    return {name: array[start : start + count] for name, array in rows.items()}


def rows_to_compare(row_bytes: int) -> int:
    """On how many rows, each of so many bytes, tiles are to give the same bits."""
    return max(TILES[-1], min(_COMPARED_ROWS, _COMPARED_BYTES // max(row_bytes, 1)))


def round_alike(
    one: Callable[[Arrays], Arrays],
    other: Callable[[Arrays], Arrays],
    rows: Arrays,
    at_a_time: int,
) -> bool:
    """Whether two ways to compute rows give the same bits, as far as time allows.

    Where one row of fifty rounds otherwise, thirty rows often show none.
    """
    began = time.monotonic()
    for start in range(0, len(rows["x0"]), at_a_time):
        piece = some(rows, at_a_time, start)
        if not same_bits(one(piece), other(piece)):
            return False
        if time.monotonic() - began > _COMPARED_S:
            break
    return True
