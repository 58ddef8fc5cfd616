"""The process that solves a built-in system: limited, without JAX, and expendable.

``python -m services.reference_solver SYSTEM MEMORY_BYTES SECONDS`` reads
``{"x0": […], "times": […]}`` and prints ``{"times": […], "x": [[…]]}``; where it ends
with ``REFUSED``, ``{"field", "found", "expected"}``.
"""

import json
import sys
from typing import Any

from services.limited import limit_to
from spnode_core.errors import InvalidInput, TrainingError

REFUSED = 65
"""As EX_DATAERR: it is a start or times for which there is no solution."""


def main() -> None:
    """Solve as the command line says."""
    limit_to(*(int(each) for each in sys.argv[2:4]))
    try:
        answer = _solved(sys.argv[1], **json.load(sys.stdin))
    except InvalidInput as error:
        told = {name: getattr(error, name) for name in ("field", "found", "expected")}
        print(json.dumps(told))  # noqa: T201
        sys.exit(REFUSED)
    print(json.dumps(answer, allow_nan=False))  # noqa: T201


def _solved(system: str, x0: list[float], times: list[float]) -> dict[str, Any]:
    # Imported under the limits, which are what makes this process expendable.
    import numpy as np

    from spnode_core.systems import get

    solver = get(system)
    start = np.array([x0])
    # A system is solved from the first of its times.
    before = [] if times[0] == 0 else [0.0]
    if times == [0.0]:
        return {"times": times, "x": [x0]}
    try:
        with np.errstate(all="ignore"):
            found = solver.reference(start, np.array([*before, *times]))
    except TrainingError as error:
        raise _unsolved(str(error)) from error
    x = found[0, len(before) :]
    wrong = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if wrong.size:
        raise _unsolved(f"it leaves the finite range at {times[wrong[0]]:g}")
    return {"times": times, "x": x.tolist()}


def _unsolved(why: str) -> InvalidInput:
    return InvalidInput(
        "x0",
        found=f"a start from which the solver of references gave up: {why}",
        expected="a start nearer to those of the system's datasets, or earlier times",
    )


if __name__ == "__main__":
    main()
