"""Contestants measured in turns, and the ratios of their rounds with their spread.

What computes is held against others by CPU time of all threads, which a machine that
is busy otherwise leaves alone; where threads share the work on free cores the clock
shows more.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spread = dict[str, float]
# Long enough that the caches of the contestant before do not count.
_LEAST_S = 0.1
_MOST_REPEATS = 2000


@dataclass(frozen=True)
class Took:
    """What a call took.

    Args:
        wall_s: By the clock.
        cpu_s: Of all threads of the process that ran it.
    """

    wall_s: float
    cpu_s: float


Contestant = Callable[[], Took]


def in_turns(
    contestants: Mapping[str, Contestant], rounds: int
) -> dict[str, list[Took]]:
    """Measure each contestant once a round, beginning with another each time."""
    names = list(contestants)
    found: dict[str, list[Took]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(contestants[name]())
    return found


def repeated(call: Callable[[], Any], least_s: float = _LEAST_S) -> Contestant:
    """A contestant that calls so often that the clock's grain is no matter.

    The first call warms and is not counted; the second says how often.
    """
    call()
    once = measured(call, 1).cpu_s
    repeats = min(_MOST_REPEATS, max(1, round(least_s / max(once, 1e-7))))
    return lambda: measured(call, repeats)


def measured(call: Callable[[], Any], repeats: int) -> Took:
    """Wall and CPU time of a call, the mean of so many."""
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    wall = time.perf_counter() - began
    return Took(wall / repeats, (time.process_time() - cpu) / repeats)


def spread(values: Sequence[float]) -> Spread:
    """Smallest, quartiles and largest, and how many there are."""
    ordered = sorted(values)
    if len(ordered) > 1:
        q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
    else:
        q1 = median = q3 = ordered[0]
    return {
        "min": ordered[0],
        "q1": q1,
        "median": median,
        "q3": q3,
        "max": ordered[-1],
        "rounds": len(ordered),
    }


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The spread of ``above / below``, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def compared(
    mine: Sequence[Took], others: Sequence[Took], errors: Mapping[str, float]
) -> dict[str, Any]:
    """How many times less we take, with both times and both errors, as numbers."""
    by_clock = ratios(walls(others), walls(mine))["median"]
    return {
        "value": ratios(cpus(others), cpus(mine)),
        "ours": f"{in_words(median(mine))}, error {errors['ours']:.1e}",
        "theirs": f"{in_words(median(others))}, error {errors['theirs']:.1e}",
        "errors": dict(errors),
        "notes": [f"By the clock the median is {by_clock:.3g}x."],
    }


def median(taken: Sequence[Took]) -> float:
    """The median of the CPU times."""
    return statistics.median(cpus(taken))


def in_words(seconds: float) -> str:
    """A short time as a person writes it."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.0f} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def walls(taken: Sequence[Took]) -> list[float]:
    """The wall times."""
    return [each.wall_s for each in taken]


def cpus(taken: Sequence[Took]) -> list[float]:
    """The CPU times."""
    return [each.cpu_s for each in taken]
