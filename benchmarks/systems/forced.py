"""A forced system: Prothero-Robinson, its slow manifold moved by a control."""

import numpy as np

from benchmarks.systems.base import Starts, System, Values


def prothero_robinson() -> System:
    """``y`` is drawn to a curve of ``s``, and ``s`` follows a control that jumps."""
    times = np.linspace(0.0, 10.0, 201)
    rate = 1e4

    def curve(s: Values) -> Values:
        return s + 0.5 * np.sin(2 * s)

    def sample(rng: np.random.Generator, count: int) -> Starts:
        x0 = rng.uniform([-2, -1], [2, 1], (count, 2))
        levels = rng.uniform(-1.5, 1.5, (count, 20))
        held = np.repeat(levels, 10, axis=1)
        controls = np.concatenate([held, held[:, -1:]], axis=1)[:, :, None]
        return Starts(x0, np.zeros((count, 0)), controls)

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        # y - g(s) decays by itself, and s is linear in each interval: exact.
        s, now = x0[1], 0.0
        found = np.empty((len(at), 2))
        for k, start in enumerate(changes):
            end = changes[k + 1] if k + 1 < len(changes) else np.inf
            inside = (at >= start) & (at < end)
            level = u[k, 0]
            found[inside, 1] = level + (s - level) * np.exp(-(at[inside] - start))
            now = min(end, at[-1])
            s = level + (s - level) * np.exp(-(now - start))
        gap = x0[0] - curve(x0[1])
        found[:, 0] = curve(found[:, 1]) + gap * np.exp(-rate * at)
        return found

    return System(
        "prothero_robinson",
        "forced",
        "y' = -1e4 (y - g(s)) + g'(s) s', s' = u - s, g(s) = s + sin(2 s)/2",
        ("y", "s"),
        times,
        sample,
        flow,
        controls=("u",),
    )
