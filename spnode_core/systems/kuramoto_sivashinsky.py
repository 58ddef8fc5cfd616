"""The Kuramoto-Sivashinsky equation on a periodic interval: chaos from a stiff PDE.

``x_t = -x x_s - x_ss - x_ssss``. Pseudo-spectral in space with the 2/3 rule, Krogstad's
exponential Runge-Kutta method of order 4 in time; the linear part, with rates up to
``q^4``, is exact.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spnode_core.systems.base import AbstractSystem, Floats

Spectrum = NDArray[np.complex128]

_STEP = 0.05
_RTOL_AT_STEP = 3e-7
"""Error of Krogstad's method at ``_STEP`` after ten units; it falls with step^4."""


class KuramotoSivashinsky(AbstractSystem):
    """Kuramoto-Sivashinsky with chaotic starts.

    Args:
        length: Period L; 22 is the smallest chaos commonly studied.
        points: Grid points in space, even.
        end: Last sampling time.
        interval: Time between samples.
        transient: Time that each random start runs before sampling begins.

    Source:
        Kuramoto & Tsuzuki (1976), Sivashinsky (1977); L = 22 with 64 points and
        samples each 1.0 as in arXiv 2503.01775, section 4.3.
    """

    name: ClassVar[str] = "kuramoto_sivashinsky"
    equations: ClassVar[str] = "x_t = -x x_s - x_ss - x_ssss, periodic with period L"

    def __init__(
        self,
        *,
        length: float = 22.0,
        points: int = 64,
        end: float = 50.0,
        interval: float = 1.0,
        transient: float = 200.0,
    ) -> None:
        self.length = length
        self.points = points
        self.end = end
        self.interval = interval
        self.transient = transient
        self.states = tuple(f"x{i:0{len(str(points - 1))}d}" for i in range(points))

    def sample(self, trajectories: int, seed: int) -> Floats:
        """Run smooth random fields through the transient, onto the attractor."""
        random = np.random.default_rng(seed)
        modes = np.zeros((trajectories, self.points // 2 + 1), complex)
        draws = random.normal(size=(2, trajectories, 4))
        modes[:, 1:5] = 0.25 * self.points * (draws[0] + 1j * draws[1])
        start = np.fft.irfft(modes, self.points)
        if self.transient == 0:
            return start
        return self.reference(start, np.array([0.0, self.transient]), rtol=1e-6)[:, -1]

    def times(self) -> Floats:
        """Return multiples of ``interval`` from 0 to ``end``."""
        return np.asarray(
            np.arange(round(self.end / self.interval) + 1) * self.interval, np.float64
        )

    def reference(
        self, x0: Floats, times: Floats, *, rtol: float = 3e-7, atol: float = 1e-13
    ) -> Floats:
        """Solve by ETDRK4 (Krogstad) with a fixed step that ``rtol`` sets.

        The estimate behind the step is the error after ten units; chaos multiplies it
        by ten about every 48 units more.
        """
        finest = _STEP * min(1.0, (max(rtol, 1e-13) / _RTOL_AT_STEP) ** 0.25)
        spectrum = np.fft.rfft(x0)
        states = [x0]
        for width in np.diff(times):
            steps = max(1, int(np.ceil(width / finest * (1 - 1e-12))))
            advance = self._stepper(float(width / steps))
            for _ in range(steps):
                spectrum = advance(spectrum)
            states.append(np.fft.irfft(spectrum, self.points))
        return np.stack(states, axis=1)

    def _stepper(self, step: float) -> Callable[[Spectrum], Spectrum]:
        wave = 2 * np.pi / self.length * np.arange(self.points // 2 + 1)
        kept = np.arange(self.points // 2 + 1) <= self.points // 3
        factor = -0.5j * wave * kept
        weights = _krogstad(step * (wave**2 - wave**4), step)

        def nonlinear(spectrum: Spectrum) -> Spectrum:
            field = np.fft.irfft(spectrum * kept, self.points)
            return factor * np.fft.rfft(field * field)

        return lambda spectrum: _step(spectrum, nonlinear, weights)


class _Weights(NamedTuple):
    half: Floats
    full: Floats
    a: Floats
    b: Floats
    c: Floats
    c_last: Floats
    first: Floats
    middle: Floats
    last: Floats


def _krogstad(z: Floats, step: float) -> _Weights:
    half1, half2, _ = _phi(z / 2)
    phi1, phi2, phi3 = _phi(z)
    return _Weights(
        half=np.exp(z / 2),
        full=np.exp(z),
        a=step / 2 * half1,
        b=step * half2,
        c=step * phi1,
        c_last=2 * step * phi2,
        first=step * (phi1 - 3 * phi2 + 4 * phi3),
        middle=step * (2 * phi2 - 4 * phi3),
        last=step * (4 * phi3 - phi2),
    )


def _step(
    v: Spectrum, nonlinear: Callable[[Spectrum], Spectrum], w: _Weights
) -> Spectrum:
    n0 = nonlinear(v)
    a = w.half * v + w.a * n0
    na = nonlinear(a)
    b = a + w.b * (na - n0)
    nb = nonlinear(b)
    c = w.full * v + w.c * n0 + w.c_last * (nb - n0)
    return w.full * v + w.first * n0 + w.middle * (na + nb) + w.last * nonlinear(c)


def _phi(z: Floats) -> tuple[Floats, Floats, Floats]:
    """phi_1..phi_3 as means over a circle around z (Kassam & Trefethen 2005)."""
    points = z[:, None] + np.exp(1j * np.pi * (np.arange(64) + 0.5) / 64)
    phi1 = (np.exp(points) - 1) / points
    phi2 = (phi1 - 1) / points
    phi3 = (phi2 - 0.5) / points
    return phi1.real.mean(axis=1), phi2.real.mean(axis=1), phi3.real.mean(axis=1)
