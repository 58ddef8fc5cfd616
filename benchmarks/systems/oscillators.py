"""Oscillators: stiff FitzHugh-Nagumo and the Brusselator with diffusion."""

import numpy as np
from scipy.integrate import solve_ivp

from benchmarks.systems.base import Starts, System, Values, free_starts


def fitzhugh_nagumo() -> System:
    """Relaxation oscillations whose jumps take a hundredth of a turn."""
    times = np.linspace(0.0, 6.0, 201)
    separation = 0.01

    def sample(rng: np.random.Generator, count: int) -> Starts:
        return free_starts(rng.uniform([-2, -1], [2, 1.5], (count, 2)), len(times))

    def right(t: float, y: Values) -> list[float]:
        v, w = y
        return [(v - v**3 / 3 - w + 0.5) / separation, v + 0.7 - 0.8 * w]

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        found = solve_ivp(right, (0, at[-1]), x0, "LSODA", at, rtol=1e-9, atol=1e-10)
        return found.y.T

    return System(
        "fitzhugh_nagumo",
        "oscillator",
        "v' = 100 (v - v³/3 - w + 0.5), w' = v + 0.7 - 0.8 w",
        ("v", "w"),
        times,
        sample,
        flow,
    )


def brusselator() -> System:
    """Two species on 64 points with diffusion, fixed at both ends."""
    points, diffusion = 64, 0.02
    times = np.linspace(0.0, 10.0, 101)
    x = np.arange(1, points + 1) / (points + 1)
    inverse = diffusion * (points + 1) ** 2

    def sample(rng: np.random.Generator, count: int) -> Starts:
        modes = np.sin(np.pi * np.outer([1, 2, 3], x))
        u = 1 + rng.uniform(-0.5, 1.0, (count, 3)) / [1, 2, 3] @ modes
        v = 3 + rng.uniform(-0.7, 0.7, (count, 3)) / [1, 2, 3] @ modes
        return free_starts(np.concatenate([u, v], axis=1), len(times))

    def right(t: float, y: Values) -> Values:
        # u and v alternate, so that the Jacobian has two bands.
        u, v = y[0::2], y[1::2]
        change = np.empty_like(y)
        product = u * u * v
        change[0::2] = 1 + product - 4 * u + inverse * _curvature(u, 1.0)
        change[1::2] = 3 * u - product + inverse * _curvature(v, 3.0)
        return change

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        start = np.stack([x0[:points], x0[points:]], axis=1).ravel()
        found = solve_ivp(
            right,
            (0, at[-1]),
            start,
            "LSODA",
            at,
            rtol=1e-8,
            atol=1e-9,
            lband=2,
            uband=2,
        )
        return np.concatenate([found.y[0::2], found.y[1::2]]).T

    return System(
        "brusselator",
        "oscillator",
        "u' = 1 + u²v - 4u + 0.02 u_xx, v' = 3u - u²v + 0.02 v_xx, 64 points",
        tuple(f"{s}{i}" for s in "uv" for i in range(points)),
        times,
        sample,
        flow,
    )


def _curvature(u: Values, end: float) -> Values:
    padded = np.concatenate([[end], u, [end]])
    return padded[:-2] - 2 * u + padded[2:]
