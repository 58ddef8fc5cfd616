"""Noise taken out of trajectories that share their times, before anything is fitted.

Noise on initial states is worse than noise elsewhere: who regresses on noisy starts
learns that starts matter less than they do. Trajectories of one system lie near few
directions in the space of all samples, noise in all of them.
"""

import dataclasses

import numpy as np

from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput


def denoised(dataset: Dataset) -> Dataset:
    r"""The trajectories projected on the directions that stand out of the noise.

    Singular values of the centred trajectories, each state over its range, are kept
    above

    .. math:: \tau = \omega(\beta)\, \mathrm{median}(\sigma), \quad
       \omega(\beta) \approx 0.56 \beta^3 - 0.95 \beta^2 + 1.82 \beta + 1.43

    with :math:`\beta` the ratio of the matrix's sides: the best hard threshold for
    white noise of unknown strength. Where there is no noise almost all are kept.

    Args:
        dataset: At least two trajectories on the same times, no state missing.

    Raises:
        InvalidInput: Times differ between trajectories, or states are missing.

    Source:
        Gavish & Donoho (2014), IEEE Trans. Inf. Theory 60, 5040-5053, (4), (5),
        doi:10.1109/TIT.2014.2323359.
    """
    elapsed = dataset.elapsed
    if not (elapsed == elapsed[0]).all() or not dataset.mask.all():
        raise InvalidInput(
            "dataset",
            found="trajectories whose times differ or whose states are missing",
            expected="the same times in all of them, and every state",
        )
    scale = np.ptp(dataset.states, axis=(0, 1))
    scale = np.where(scale > 0, scale, 1.0)
    rows = (dataset.states / scale).reshape(dataset.trajectories, -1)
    mean = rows.mean(axis=0)
    left, values, right = np.linalg.svd(rows - mean, full_matrices=False)
    ratio = min(rows.shape) / max(rows.shape)
    omega = 0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43
    kept = int((values > omega * np.median(values)).sum())
    smooth = mean + (left[:, :kept] * values[:kept]) @ right[:kept]
    states = smooth.reshape(dataset.states.shape) * scale
    return dataclasses.replace(dataset, states=states)
