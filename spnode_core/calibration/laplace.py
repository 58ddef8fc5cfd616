r"""Intervals of estimates: the normal distribution that fits the optimum.

.. math:: C = s^2 (J^T J)^{-1}, \quad
          \hat v_j \pm q \sqrt{C_{jj}}

in the unit box, so in each unknown's own scale. ``J`` has the rows of the priors;
``s = 1`` where the noise is known, else the residuals' standard deviation. For the
stated probability ``c``, ``q`` is the normal quantile (Student's where the noise is
estimated) of ``(1 + c) / 2``; of ``1 - (1 - c) / 2n`` for ``n`` intervals that are to
hold at once (Bonferroni).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from spnode_core.calibration.box import Box
from spnode_core.calibration.problem import Unknown
from spnode_core.calibration.result import Estimate

Floats = NDArray[np.float64]
# Singular values below this part of the largest are rounding.
_RANK = 1e-9
# What is this near to a bound, in widths of the box, lies on it.
_AT_BOUND = 1e-4
# A direction's component below this is left out when it is told.
_SMALL = 0.05


@dataclass(frozen=True)
class Laplace:
    """The spread of the unknowns around an optimum, in the unit box.

    Args:
        v: The optimum.
        covariance: ``(unknown, unknown)``, NaN for what the data do not tell at all.
        vague: Directions, unit vectors ``(direction, unknown)``, along which the
            standard deviation exceeds the width of the box.
    """

    v: Floats
    covariance: Floats
    vague: Floats

    @classmethod
    def of(cls, v: Floats, jacobian: Floats, factor: float) -> "Laplace":
        """The spread at an optimum.

        Args:
            v: The optimum.
            jacobian: Of the residuals, ``(residual, unknown)``.
            factor: ``s``.
        """
        _, sizes, directions = np.linalg.svd(jacobian, full_matrices=True)
        sizes = np.pad(sizes, (0, len(v) - len(sizes)))
        told = sizes > _RANK * max(sizes.max(), 1e-300)
        sd = np.where(told, factor / np.where(told, sizes, 1.0), np.inf)
        known = directions[told]
        covariance = (known.T * sd[told] ** 2) @ known
        lost = np.any(np.abs(directions[~told]) > _SMALL, axis=0)
        covariance[lost] = np.nan
        covariance[:, lost] = np.nan
        return cls(v, covariance, directions[sd > 1])

    def estimates(
        self, unknowns: tuple[Unknown, ...], coverage: float, freedom: int | None
    ) -> tuple[Estimate, ...]:
        """Values and intervals in physical units.

        Args:
            unknowns: What was to be found.
            coverage: The probability that intervals are made for.
            freedom: Degrees of freedom that the noise was estimated with, or None.
        """
        box = Box.of(unknowns)
        sd = np.sqrt(np.diag(self.covariance))
        one = _quantile((1 + coverage) / 2, freedom)
        all_of_them = _quantile(1 - (1 - coverage) / (2 * len(unknowns)), freedom)
        values, errors = box.values(self.v), box.slopes(self.v) * sd
        alone, together = (
            self._bounds(box, one * sd),
            self._bounds(box, all_of_them * sd),
        )
        vague = np.any(np.abs(self.vague) > _SMALL, axis=0)
        return tuple(
            Estimate(
                field=each.field,
                name=each.name,
                control_interval=each.interval,
                value=float(values[i]),
                standard_error=float(errors[i]),
                interval=(float(alone[0][i]), float(alone[1][i])),
                simultaneous=(float(together[0][i]), float(together[1][i])),
                at_bound=_bound_at(float(self.v[i])),
                is_identifiable=not bool(vague[i]),
            )
            for i, each in enumerate(unknowns)
        )

    def _bounds(self, box: Box, half: Floats) -> tuple[Floats, Floats]:
        """Ends of intervals; the bounds are known to hold whatever the data say."""
        half = np.where(np.isnan(half), np.inf, half)
        lower, upper = (np.clip(self.v + side, 0.0, 1.0) for side in (-half, half))
        return box.values(lower), box.values(upper)

    def vague_directions(
        self, unknowns: tuple[Unknown, ...]
    ) -> tuple[dict[str, float], ...]:
        """The directions that the data do not tell, by label."""
        labels = [each.label for each in unknowns]
        return tuple(
            {
                label: float(part * np.sign(direction[np.argmax(np.abs(direction))]))
                for label, part in zip(labels, direction, strict=True)
                if abs(part) > _SMALL
            }
            for direction in self.vague
        )

    def physical(self, unknowns: tuple[Unknown, ...]) -> Floats:
        """The covariance in physical units."""
        slopes = Box.of(unknowns).slopes(self.v)
        return self.covariance * np.outer(slopes, slopes)

    def correlation(self) -> Floats:
        """The covariance, scaled to ones on its diagonal."""
        sd = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sd, sd)


def _quantile(probability: float, freedom: int | None) -> float:
    if freedom is None:
        return float(norm.ppf(probability))
    return float(t.ppf(probability, freedom))


def _bound_at(v: float) -> str | None:
    if v < _AT_BOUND:
        return "lower"
    return "upper" if v > 1 - _AT_BOUND else None
