"""More samples than the data has: inferred operators run on from its ends.

Networks that see each sample by itself fit a few ten thousand of them too closely; the
operators, with far fewer coefficients, do not, and make as many more as are wanted.
"""

import numpy as np

from spnode_core.training.defect_correction import integrate
from spnode_core.training.operator_inference import Operators, Snapshots

MOST_SAMPLES = 1_000_000
# A path ends where it leaves the box of the data by this part of the box's width.
_ROOM = 0.1


def continuations(
    operators: Operators, snapshots: list[Snapshots], times: float
) -> list[Snapshots]:
    """Paths of the operators from the last samples of trajectories.

    Their samples lie as far apart as the data's mostly do, under the inputs that each
    trajectory had last. What leaves the range of the data is left out.

    Args:
        operators: What was inferred from the trajectories.
        snapshots: The trajectories.
        times: How many samples to make at most, as a multiple of the data's.
    """
    z = np.stack([each.z[-1] for each in snapshots])
    others = np.stack([each.others[-1] for each in snapshots])
    seen = np.concatenate([each.z for each in snapshots])
    low, high = seen.min(axis=0), seen.max(axis=0)
    room = _ROOM * (high - low)
    wanted = min(round(times * len(seen)), MOST_SAMPLES)
    steps = -(-wanted // len(z))
    width = float(np.median(np.concatenate([np.diff(s.times) for s in snapshots])))
    path = np.full((len(z), steps, z.shape[1]), np.nan)
    for k in range(steps):
        path[:, k] = z = integrate(operators, z, others, width)[:, -1]
    inside = ((path >= low - room) & (path <= high + room)).all(axis=2)
    lengths = np.where(inside.all(axis=1), steps, inside.argmin(axis=1))
    return [
        Snapshots(path[row, :n], np.arange(1, n + 1) * width, held[None].repeat(n, 0))
        for row, (n, held) in enumerate(zip(lengths, others, strict=True))
        if n
    ]
