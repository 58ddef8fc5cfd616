"""When which fault happens: drawn from a seed, the same for the same seed.

Kinds come in blocks, each block a shuffle of all of them, so that a short run meets
every kind as well.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_S = 3.0
"""Work is under way before the first fault."""
QUIET_S = 2.0
"""No fault begins so short before the end."""


@dataclass(frozen=True)
class Planned:
    """A fault of the schedule.

    Args:
        at_s: Seconds after the start of the run.
        kind: Name of the fault.
        seconds: How long it lasts.
        choice: From 0 up to 1; says which of the processes or links is hit.
    """

    at_s: float
    kind: str
    seconds: float
    choice: float


def draw(
    seed: int,
    run_s: float,
    kinds: Mapping[str, tuple[float, float]],
    *,
    every_s: float,
) -> tuple[Planned, ...]:
    """Draw the faults of a run.

    Args:
        seed: Seed of everything drawn.
        run_s: How long the run is.
        kinds: For each kind the shortest and the longest time that it lasts.
        every_s: Mean time from one fault to the next.

    Returns:
        The faults in the order of their times.
    """
    source = random.Random(seed)
    found: list[Planned] = []
    at_s, block = FIRST_S, []
    while at_s < run_s - QUIET_S:
        if not block:
            block = sorted(kinds)
            source.shuffle(block)
        kind = block.pop()
        seconds = round(source.uniform(*kinds[kind]), 2)
        found.append(Planned(round(at_s, 2), kind, seconds, source.random()))
        at_s += every_s * source.uniform(0.5, 1.5)
    return tuple(found)
