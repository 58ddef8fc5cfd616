"""Reference solutions of built-in systems, by a limited process for each."""

import json

import numpy as np

from services import limited
from services.errors import Invalid, NotFound
from services.reference_solver import REFUSED
from services.settings import Settings
from spnode_core import systems

MOST_SECONDS = 10
"""How long one solution may take."""
MOST_VALUES = 1_000_000
"""Times of one solution, multiplied by states."""


def solve(system: str, x0: list[float], times: np.ndarray, settings: Settings) -> bytes:
    """Solve a system to the tolerance of its datasets.

    Args:
        system: One of ``spnode_core.systems.names()``, with its usual options.
        x0: Its state at time 0.
        times: Where the solution is wanted, increasing, ``(time,)``.
        settings: Memory of the process; those that read files have the same.

    Returns:
        JSON, ``{"times": […], "x": [[…]]}``, ``x`` as ``(time, state)``.

    Raises:
        NotFound: There is no such system.
        Invalid: It has other states, there is no solution, or it takes too long.
    """
    if system not in systems.names():
        raise NotFound("system", system, hint="GET /v1/systems lists them")
    states = systems.get(system).states
    if len(x0) != len(states):
        raise Invalid(
            "/x0", found=f"{len(x0)} numbers", expected=f"{len(states)}, of {system}"
        )
    if len(times) * len(states) > MOST_VALUES:
        raise Invalid(
            "/times",
            found=f"{len(times)} times of {len(states)} states",
            expected=f"at most {MOST_VALUES // len(states)} times",
        )
    try:
        done = limited.run(
            "services.reference_solver",
            system,
            memory_bytes=settings.parser_memory_bytes,
            seconds=MOST_SECONDS,
            given=json.dumps({"x0": x0, "times": times.tolist()}).encode(),
        )
    except limited.TooDear as error:
        raise Invalid(
            "/times",
            found=f"a solution that takes more than {MOST_SECONDS} s",
            expected="fewer or earlier times, or a job that makes a dataset",
        ) from error
    if done.returncode == REFUSED:
        told = json.loads(done.stdout)
        raise Invalid(f"/{told.pop('field')}", **told)
    if done.returncode:
        why = limited.last_words(done) or f"signal {-done.returncode}"
        raise Invalid(
            "/x0",
            found=f"a start that ended the process which solves it ({why[:200]})",
            expected="a start nearer to those of the system's datasets",
        )
    return done.stdout
