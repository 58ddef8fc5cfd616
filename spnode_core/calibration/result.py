"""What a calibration finds; every part is fit for JSON once arrays are lists."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """One unknown: its value and how well the observations tell it.

    Args:
        field: ``x0``, ``parameters`` or ``controls``.
        name: The model's name for it.
        control_interval: Which interval of the controls it belongs to; else None.
        value: At the best optimum.
        standard_error: NaN where the observations do not tell it.
        interval: With the stated probability it lies in here.
        simultaneous: With that probability all unknowns lie in theirs at once.
        at_bound: ``lower`` or ``upper`` where the optimum lies on a bound: intervals
            are then not to be trusted.
        is_identifiable: Whether the observations tell it better than its bounds do.
    """

    field: str
    name: str
    control_interval: int | None
    value: float
    standard_error: float
    interval: tuple[float, float]
    simultaneous: tuple[float, float]
    at_bound: str | None
    is_identifiable: bool

    @property
    def label(self) -> str:
        """How people refer to it, e.g. ``parameters.k1``."""
        part = "" if self.control_interval is None else f"[{self.control_interval}]"
        return f"{self.field}.{self.name}{part}"


@dataclass(frozen=True)
class Misfit:
    """How well the model explains the observations at the best optimum.

    Args:
        chi_squared: Sum of the squared standardised residuals of the observations.
        prior: The same of the priors.
        observations: How many there are.
        degrees_of_freedom: Observations and priors less unknowns.
        reduced: Both sums over that; NaN without any freedom.
        p_value: Probability of so large a misfit, were model and noise right, the
            model error of a state being one for all its observations; NaN where
            the noise was estimated.
    """

    chi_squared: float
    prior: float
    observations: int
    degrees_of_freedom: int
    reduced: float
    p_value: float


@dataclass(frozen=True)
class LocalOptimum:
    """One of the places where searches ended.

    Args:
        values: Of the unknowns.
        cost: Sum of all squared residuals.
        starts: How many searches ended here.
    """

    values: Floats
    cost: float
    starts: int


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Args:
        estimates: The unknowns: parameters, x0 and controls in the order of the
            vector of inputs.
        covariance: Of the unknowns, in physical units; NaN where not identifiable.
        correlation: The same, scaled.
        coverage: The probability that intervals are made for.
        misfit: How well the observations are explained.
        noise: Standard deviation of the noise by state: as given (its mean square
            over the times), or as estimated.
        predicted: Observed states of the model at the times, ``(time, observed)``.
        residuals: ``(observation - prediction) / standard deviation``, NaN where
            nothing was observed.
        optima: Different local optima, the best first.
        starts: Number of searches.
        converged: How many ended by themselves.
        unidentified: Combinations of unknowns that the observations do not tell, as
            unit vectors over the width of the bounds, by label.
        warnings: What a reader must know, in sentences.
    """

    estimates: tuple[Estimate, ...]
    covariance: Floats
    correlation: Floats
    coverage: float
    misfit: Misfit
    noise: dict[str, float]
    predicted: Floats
    residuals: Floats
    optima: tuple[LocalOptimum, ...]
    starts: int
    converged: int
    unidentified: tuple[dict[str, float], ...]
    warnings: tuple[str, ...]

    @property
    def values(self) -> dict[str, float]:
        """Estimates by label."""
        return {each.label: each.value for each in self.estimates}

    def __getitem__(self, label: str) -> Estimate:
        """The estimate of a label, or of a name that stands in one field only."""
        for each in self.estimates:
            if label in (each.label, each.name):
                return each
        raise KeyError(label)

    def as_record(self) -> dict[str, Any]:
        """All of it as plain mappings, lists and numbers; NaN where there is none."""
        return {
            "estimates": [vars(each) for each in self.estimates],
            "covariance": self.covariance.tolist(),
            "correlation": self.correlation.tolist(),
            "coverage": self.coverage,
            "misfit": vars(self.misfit),
            "noise": self.noise,
            "predicted": self.predicted.tolist(),
            "residuals": self.residuals.tolist(),
            "optima": [
                {**vars(each), "values": each.values.tolist()} for each in self.optima
            ],
            "starts": self.starts,
            "converged": self.converged,
            "unidentified": list(self.unidentified),
            "warnings": list(self.warnings),
        }
