r"""How a chaotic surrogate compares with its system: for how long, and in which sense.

A chaotic trajectory can be followed for a while only: the *valid prediction time* is
when the error

.. math:: e(t) = \| x(t) - \hat x(t) \| \,/\, \mathrm{rms} \| x \|

passes a stated threshold. Beyond it only statistics compare; for a field on a periodic
interval that is the joint density of its first two derivatives in space.
"""

import numpy as np
from numpy.typing import NDArray

from spnode_core.errors import InvalidInput

Floats = NDArray[np.float64]


def error_curve(predicted: Floats, truth: Floats) -> Floats:
    """The error of each trajectory over time, relative to the attractor's size.

    Args:
        predicted: States, ``(trajectory, time, state)``; may be infinite or NaN.
        truth: States at the same times.

    Returns:
        ``||x - xh|| / rms ||x||``, ``(trajectory, time)``; infinite where ``predicted``
        is not finite. The mean square runs over all trajectories and times.

    Raises:
        InvalidInput: The shapes differ.
    """
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise InvalidInput(
            "predicted",
            found=f"shape {predicted.shape}",
            expected=f"(trajectory, time, state), that of the truth: {truth.shape}",
        )
    finite = np.asarray(np.isfinite(predicted).all(axis=2))
    difference = np.where(finite[:, :, None], predicted, 0.0) - truth
    size = np.sqrt(np.mean(np.sum(truth**2, axis=2)))
    error = np.linalg.norm(difference, axis=2) / size
    return np.where(finite, error, np.inf)


def valid_prediction_time(
    predicted: Floats, truth: Floats, times: Floats, threshold: float
) -> Floats:
    """When the relative error of each trajectory first passes a threshold.

    Between two samples the error is taken to be linear.

    Args:
        predicted: States, ``(trajectory, time, state)``.
        truth: States at the same times.
        times: Increasing times, ``(time,)``.
        threshold: A part of the attractor's size, e.g. 0.4.

    Returns:
        Times, ``(trajectory,)``, in the unit of ``times``; the last of these where the
        error stays below.

    Raises:
        InvalidInput: The shapes differ.
    """
    error = error_curve(predicted, truth)
    passed = error > threshold
    first = np.where(passed.any(axis=1), passed.argmax(axis=1), len(times) - 1)
    rows = np.arange(len(error))
    before = np.maximum(first - 1, 0)
    low, high = error[rows, before], error[rows, first]
    rise = np.where(np.isfinite(high) & (high > low), high - low, np.inf)
    part = np.clip((threshold - low) / rise, 0.0, 1.0)
    crossed = times[before] + part * (times[first] - times[before])
    return np.where(passed.any(axis=1), crossed, times[-1])


def spectral_derivative(fields: Floats, length: float, order: int) -> Floats:
    """A derivative in space of periodic fields, exact for those that are resolved.

    Args:
        fields: Values on equidistant points, ``(..., point)``.
        length: Period.
        order: Which derivative, at least 0.
    """
    points = fields.shape[-1]
    wave = 2 * np.pi / length * np.arange(points // 2 + 1)
    factor = (1j * wave) ** order
    if points % 2 == 0 and order % 2 == 1:
        # The highest mode of an even grid has no odd derivative on it.
        factor[-1] = 0.0
    return np.fft.irfft(factor * np.fft.rfft(fields), points)


def joint_density(
    fields: Floats, length: float, *, bins: int = 60, extent: float = 4.0
) -> Floats:
    """Probability of the first two derivatives in space over cells of a square.

    Args:
        fields: Periodic fields, ``(..., point)``; those that are not finite are left
            out.
        length: Period.
        bins: Cells along each side.
        extent: The square is ``[-extent, extent]^2``; what lies outside is counted in
            the nearest cell.

    Returns:
        ``(bins, bins)``, first derivative along the first axis; the sum is 1.

    Raises:
        InvalidInput: There is no finite field.
    """
    fields = fields.reshape(-1, fields.shape[-1])
    fields = fields[np.isfinite(fields).all(axis=1)]
    if not len(fields):
        raise InvalidInput("fields", found="none that is finite", expected="some")
    cells = []
    for order in (1, 2):
        values = spectral_derivative(fields, length, order)
        scaled = np.clip((values + extent) / (2 * extent), 0.0, 1.0)
        cells.append(np.minimum((scaled * bins).astype(np.int64), bins - 1).ravel())
    counts = np.bincount(cells[0] * bins + cells[1], minlength=bins * bins)
    return counts.reshape(bins, bins) / counts.sum()


def hellinger_distance(p: Floats, q: Floats) -> float:
    r"""``sqrt(1 - sum sqrt(p q))``: 0 for equal densities, 1 for disjoint ones."""
    return float(np.sqrt(max(0.0, 1.0 - np.sum(np.sqrt(p * q)))))


def relative_entropy(p: Floats, q: Floats) -> float:
    """Kullback-Leibler divergence ``sum p log(p / q)``, in nats.

    Cells that are empty in ``q`` count as a tenth of its smallest probability, since a
    density estimated from samples has empty cells.
    """
    floor = 0.1 * float(q[q > 0].min())
    inside = p > 0
    return float(np.sum(p[inside] * np.log(p[inside] / np.maximum(q[inside], floor))))
