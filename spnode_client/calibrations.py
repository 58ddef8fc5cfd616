"""What a calibration job found: estimates with intervals, and how well they explain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from spnode_client.records import Record


@dataclass(frozen=True)
class Estimate:
    """One unknown: its value and how well the observations tell it.

    Attributes:
        label: ``parameters.k1``, ``x0.y1`` or ``controls.u[2]``.
        value: At the best optimum.
        standard_error: None where the observations do not tell it.
        interval: With the stated probability it lies in here.
        simultaneous: With that probability all unknowns lie in theirs at once.
        at_bound: ``lower`` or ``upper`` where the optimum lies on a bound.
        is_identifiable: Whether the observations tell it better than its bounds do.
    """

    label: str
    value: float
    standard_error: float | None
    interval: tuple[float, float]
    simultaneous: tuple[float, float]
    at_bound: str | None
    is_identifiable: bool

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Read the service's answer."""
        part = record["control_interval"]
        place = "" if part is None else f"[{part}]"
        low, high = record["interval"]
        lowest, highest = record["simultaneous"]
        return cls(
            label=f"{record['field']}.{record['name']}{place}",
            value=record["value"],
            standard_error=record["standard_error"],
            interval=(low, high),
            simultaneous=(lowest, highest),
            at_bound=record["at_bound"],
            is_identifiable=record["is_identifiable"],
        )


@dataclass(frozen=True)
class Calibration:
    """What a calibration job found.

    Attributes:
        estimates: The unknowns.
        covariance: Of the unknowns in their order, NaN where not identifiable.
        predicted: Observed states of the model at the times, ``(time, observed)``.
        residuals: Standardised, NaN where nothing was observed.
        is_inside: Whether the estimates lie in the training domain.
        warnings: What a reader must know, in sentences.
        record: The whole answer: ``misfit``, ``optima``, ``correlation``, ….
    """

    estimates: tuple[Estimate, ...]
    covariance: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    residuals: np.ndarray = field(repr=False)
    is_inside: bool
    warnings: tuple[str, ...]
    record: Record = field(repr=False)

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read the service's answer."""
        return cls(
            estimates=tuple(map(Estimate.of, record["estimates"])),
            covariance=np.array(record["covariance"], np.float64),
            predicted=np.array(record["predicted"], np.float64),
            residuals=np.array(record["residuals"], np.float64),
            is_inside=record["domain"]["inside"],
            warnings=tuple(record["warnings"]),
            record=record,
        )

    @property
    def values(self) -> dict[str, float]:
        """Estimates by label."""
        return {each.label: each.value for each in self.estimates}

    def __getitem__(self, label: str) -> Estimate:
        """The estimate of a label, or of a name that stands in one field only."""
        for each in self.estimates:
            if label in (each.label, each.label.partition(".")[2]):
                return each
        raise KeyError(label)


def calibration_request(
    model: str, times: Any, observations: Any, unknowns: Record, options: Record
) -> Record:
    """The body of a calibration job; NaN becomes null, options at None are left out."""
    given = {"times": times, "observations": observations, **options}
    body: Record = {"kind": "calibration", "model": model, "unknowns": dict(unknowns)}
    for name, value in given.items():
        if value is not None:
            body[name] = _plain(value)
    return body


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
