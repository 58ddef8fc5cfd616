"""Fronts: viscous Burgers on 128 points."""

import numpy as np
from scipy.integrate import solve_ivp

from benchmarks.systems.base import Starts, System, Values, free_starts


def burgers() -> System:
    """Waves that steepen to fronts and decay; spectral, dealiased."""
    points, viscosity = 128, 0.01
    times = np.linspace(0.0, 2.0, 101)
    x = np.arange(points) / points
    wave = 2 * np.pi * np.arange(points // 2 + 1)
    kept = np.arange(points // 2 + 1) <= points // 3

    def sample(rng: np.random.Generator, count: int) -> Starts:
        fields = rng.uniform(-0.3, 0.3, (count, 1)) * np.ones(points)
        for k in (1, 2, 3):
            amplitude = rng.uniform(0, 0.6 / k, (count, 1))
            phase = rng.uniform(0, 1, (count, 1))
            fields = fields + amplitude * np.sin(2 * np.pi * k * (x - phase))
        return free_starts(fields, len(times))

    def right(t: float, u: Values) -> Values:
        spectrum = np.fft.rfft(u)
        square = np.fft.rfft(np.fft.irfft(spectrum * kept) ** 2)
        return np.fft.irfft(
            -0.5j * wave * square * kept - viscosity * wave**2 * spectrum
        )

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        found = solve_ivp(right, (0, at[-1]), x0, "LSODA", at, rtol=1e-7, atol=1e-8)
        return found.y.T

    return System(
        "burgers",
        "front",
        "u_t = -u u_x + 0.01 u_xx, periodic on [0, 1], 128 points",
        tuple(f"u{i}" for i in range(points)),
        times,
        sample,
        flow,
    )
