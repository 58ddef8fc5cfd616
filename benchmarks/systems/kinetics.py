"""Decaying kinetics: Akzo Nobel, E5 and Robertson with its rates as parameters."""

from collections.abc import Callable

import numpy as np
from scipy.integrate import odeint

from benchmarks.systems.base import Starts, System, Values, free_starts, log_times

_K1, _K2, _K3, _K4 = 18.7, 0.58, 0.09, 0.42
_EQUILIBRIUM, _TRANSFER, _SOLUBILITY, _PRESSURE, _HENRY = 34.4, 3.3, 115.83, 0.9, 737.0
_A, _B, _C, _M = 7.89e-10, 1.1e7, 1.13e3, 1e6


def _solved(
    right: Callable[[float, Values], Values | list[float]],
    x0: Values,
    times: Values,
    atol: float,
) -> Values:
    states, found = odeint(
        right,
        x0,
        times,
        tfirst=True,
        rtol=1e-9,
        atol=atol,
        mxstep=100_000,
        full_output=True,
    )
    if found["message"] != "Integration successful.":
        raise RuntimeError(found["message"])
    return states


def _akzo(t: float, y: Values) -> list[float]:
    y1, y2, y3, y4, y5 = y.tolist()
    root = max(y2, 0.0) ** 0.5
    y6 = _SOLUBILITY * y1 * y4
    r1 = _K1 * y1**4 * root
    r2 = _K2 * y3 * y4
    r3 = _K2 / _EQUILIBRIUM * y1 * y5
    r4 = _K3 * y1 * y4**2
    r5 = _K4 * y6**2 * root
    inflow = _TRANSFER * (_PRESSURE / _HENRY - y2)
    return [
        -2 * r1 + r2 - r3 - r4,
        -0.5 * r1 - r4 - 0.5 * r5 + inflow,
        r1 - r2 + r3,
        -r2 + r3 - 2 * r4,
        r2 - r3 + r5,
    ]


def akzo_nobel() -> System:
    """Five concentrations and the algebraic sixth, as the differential equation."""
    times = log_times(1e-4, 180.0, 80)

    def sample(rng: np.random.Generator, count: int) -> Starts:
        high = np.array([0.6, 0.002, 0.05, 0.015, 0.02])
        low = np.array([0.3, 0.0005, 0.0, 0.002, 0.0])
        return free_starts(rng.uniform(low, high, (count, 5)), len(times))

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        return _solved(_akzo, x0, at, 1e-11)

    return System(
        "akzo_nobel",
        "kinetics",
        "Akzo Nobel kinetics, five concentrations with square root and fourth power",
        ("y1", "y2", "y3", "y4", "y5"),
        times,
        sample,
        flow,
    )


def _e5(t: float, y: Values) -> list[float]:
    y1, y2, y4 = y.tolist()
    y3 = y2 - y4
    first, second, third, fourth = _A * y1, _B * y1 * y3, _M * _C * y2 * y3, _C * y4
    return [-first - second, first - third, second - fourth]


def e5() -> System:
    """The pyrolysis E5 over fifteen decades of time, concentrations down to 1e-20."""
    times = log_times(1e-4, 1e11, 100)

    def sample(rng: np.random.Generator, count: int) -> Starts:
        y1 = rng.uniform(0.5, 1.5, count) * 1.76e-3
        y3, y4 = rng.uniform(0, 1, (2, count)) * [[1e-11], [1e-9]]
        return free_starts(np.stack([y1, y3 + y4, y3, y4], axis=1), len(times))

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        # Without y3 = y2 - y4: as the sum of its own errors it would decide the tails,
        # where y2 and y3 vanish together.
        y1, y2, y4 = _solved(_e5, x0[[0, 1, 3]], at, 1e-24).T
        return np.stack([y1, y2, y2 - y4, y4], axis=1)

    return System(
        "e5",
        "kinetics",
        "E5: y1' = -A y1 - B y1 y3, and three radicals",
        ("y1", "y2", "y3", "y4"),
        times,
        sample,
        flow,
    )


def robertson_rates() -> System:
    """Robertson's reaction with its three rate constants as parameters."""
    times = log_times(1e-5, 1e5, 50)
    nominal = np.array([0.04, 1e4, 3e7])

    def sample(rng: np.random.Generator, count: int) -> Starts:
        x0 = rng.uniform(0, 0.1, (count, 3)) * [-1, 1e-5, 1] + [1, 0, 0]
        rates = nominal * 3.0 ** rng.uniform(-1, 1, (count, 3))
        return free_starts(x0, len(times), rates)

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        k1, k2, k3 = p.tolist()

        def right(t: float, y: Values) -> list[float]:
            y1, y2, y3 = y.tolist()
            slow, fast = -k1 * y1 + k2 * y2 * y3, k3 * y2 * y2
            return [slow, -slow - fast, fast]

        return _solved(right, x0, at, 1e-13)

    return System(
        "robertson_rates",
        "kinetics",
        "Robertson with its rate constants, each within a factor of 3",
        ("y1", "y2", "y3"),
        times,
        sample,
        flow,
        parameters=("k1", "k2", "k3"),
    )
