"""Robertson's reaction with its three rate constants as parameters.

``y1' = -k1 y1 + k3 y2 y3``, ``y2' = k1 y1 - k3 y2 y3 - k2 y2^2``, ``y3' = k2 y2^2``.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import odeint

from spnode_core.dataset import Dataset, check_arrays
from spnode_core.systems.robertson import Robertson

Floats = NDArray[np.float64]

PARAMETERS = ("k1", "k2", "k3")
NOMINAL = np.array([0.04, 3e7, 1e4])
FACTOR = 3.0
"""Each constant lies within this factor of its nominal value."""
TRAINED_FACTOR = 3.5
"""And was learned within this one: a surrogate errs most at the edge of its data."""
SYSTEM = Robertson(end=1e5)


def draw_constants(
    count: int, draws: np.random.Generator, factor: float = FACTOR
) -> Floats:
    """Constants that are log-uniform within a factor, ``(count, 3)``."""
    return NOMINAL * factor ** draws.uniform(-1, 1, (count, 3))


def solve(x0: Floats, constants: Floats, times: Floats) -> Floats:
    """Solve by LSODA to a relative tolerance of 1e-9, a trajectory at a time.

    Args:
        x0: Initial states, ``(trajectory, 3)``.
        constants: Rate constants, ``(trajectory, 3)``.
        times: Increasing times, the first one 0.

    Returns:
        States, ``(trajectory, time, 3)``.

    Raises:
        RuntimeError: LSODA gave up.
    """
    pairs = zip(x0, constants, strict=True)
    return np.stack([_solve_one(start, k, times) for start, k in pairs])


def dataset(trajectories: int, seed: int) -> Dataset:
    """Trajectories from the starts of the built-in system, each with its constants."""
    x0 = SYSTEM.sample(trajectories, seed)
    # A stream of its own: the starts are drawn with the bare seed.
    draws = np.random.default_rng([seed, 1])
    constants = draw_constants(trajectories, draws, TRAINED_FACTOR)
    times = SYSTEM.times()
    return check_arrays(
        {
            "states": solve(x0, constants, times),
            "times": times,
            "names": np.array(SYSTEM.states),
            "parameters": constants,
            "parameter_names": np.array(PARAMETERS),
        }
    )


def _solve_one(start: Floats, constants: Floats, times: Floats) -> Floats:
    k1, k2, k3 = constants.tolist()

    def derivative(t: float, y: Floats) -> tuple[float, float, float]:
        y1, y2, y3 = y.tolist()
        slow, fast = k3 * y2 * y3 - k1 * y1, k2 * y2 * y2
        return slow, -slow - fast, fast

    def jacobian(t: float, y: Floats) -> list[list[float]]:
        _, y2, y3 = y.tolist()
        return [
            [-k1, k3 * y3, k3 * y2],
            [k1, -k3 * y3 - 2 * k2 * y2, -k3 * y2],
            [0.0, 2 * k2 * y2, 0.0],
        ]

    states, information = odeint(
        derivative,
        start,
        times,
        Dfun=jacobian,
        rtol=1e-9,
        atol=1e-13,
        tfirst=True,
        full_output=True,
        mxstep=100_000,
    )
    if information["message"] != "Integration successful.":
        raise RuntimeError(f"LSODA failed from {start!r}: {information['message']}")
    return states
