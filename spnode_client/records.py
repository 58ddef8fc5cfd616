"""What the service answers, as plain records; ``record`` keeps the whole answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

Record = dict[str, Any]
"""What the service says of a thing, as JSON."""
ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Dataset:
    """An immutable set of trajectories in the service's store."""

    id: str
    record: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """Read the service's answer."""
        return cls(record["id"], record)

    @property
    def summary(self) -> dict[str, Any]:
        """Counts, ranges and names, as found at arrival."""
        return self.record.get("summary") or {}


@dataclass(frozen=True)
class ModelVersion:
    """One immutable version of a model in the registry."""

    model: str
    number: int
    digest: str
    record: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """Read the service's answer."""
        return cls(
            record["model"], int(record["number"]), record.get("digest", ""), record
        )

    def __str__(self) -> str:
        return f"{self.model}/{self.number}"


# What everybody asks of a version; the first of each row that holds is told.
_ASKED = (
    ("spectral_abscissa",),
    ("invariant_box", "invariant_ball"),
    ("relaxation_contraction", "step_contraction", "contraction"),
    ("step_refinement",),
)
# That rollouts do not all come together is usual: nothing to tell.
_UNUSUAL = ("spectral_abscissa", "invariant_box", "step_refinement")


def claims(certificate: dict[str, Any], holds: bool) -> dict[str, dict[str, Any]]:
    """The claims of a certificate that hold, or those that do not, by name."""
    return {
        name: claim
        for name, claim in certificate.items()
        if isinstance(claim, dict) and bool(claim.get("holds", True)) == holds
    }


def statements(certificate: dict[str, Any]) -> list[str]:
    """What matters most of a certificate: a sentence each, also for what fails."""
    proved, failed = claims(certificate, True), claims(certificate, False)
    found = []
    for names in _ASKED:
        holding = [name for name in names if name in proved]
        failing = [name for name in names if name in failed and name in _UNUSUAL]
        if holding:
            found.append(str(proved[holding[0]]["statement"]))
        elif failing:
            found.append(f"NOT: {failed[failing[0]]['statement']}")
    return found


def held_out(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Errors on trajectories that were held out: for test, or else for validation."""
    return evaluation.get("test") or evaluation.get("validation") or evaluation


def errors_by_state(evaluation: Record, version: Record) -> dict[str, Any]:
    """Held-out errors of each state, in the order of the version's signature.

    Args:
        evaluation: Of the version; JSON that was kept has its names by the alphabet.
        version: The version's record.
    """
    found = held_out(evaluation).get("states")
    states = found if isinstance(found, dict) else {}
    names = (version.get("signature") or {}).get("states") or ()
    return {name: states[name] for name in (*names, *states) if name in states}


def cautions(evaluation: dict[str, Any]) -> list[str]:
    """What speaks against a version, a sentence each; it stands with the errors."""
    judged = held_out(evaluation)
    if judged is evaluation:
        judged = evaluation.get("train") or {}
    found = judged.get("warnings")
    return [f"WARNING: {each}" for each in found] if isinstance(found, list) else []


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: its kind and what it carries."""

    id: str
    """Of ``progress``, which is not kept, that of the event before."""
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Rollout:
    """Trajectories of a model version, ``x`` being ``([batch,] time, state)``."""

    x: np.ndarray
    times: np.ndarray
    model: str
    version: int
    digest: str
    warnings: tuple[str, ...] = ()
    sweep: Record | None = None
    """What the rows stand for, where they are those of a sweep: ``shape``, ``axes``."""
    lower: np.ndarray | None = None
    """Lower ends of prediction intervals, of the shape of ``x``, where asked for."""
    upper: np.ndarray | None = None
    coverage: float | None = None
    """Part of the truth that they hold."""
    spread: np.ndarray | None = None
    """Standard deviation over an ensemble's members, where asked for."""
    z: np.ndarray | None = None
    """Latent trajectories, ``([batch,] time, latent)``, where asked for."""
    domain: Record | None = None
    """Where rows leave the training domain: ``inside``, and what else was asked for."""
    rows: list[Record] | None = None
    """How each row ended, where those that leave the finite range are masked."""

    def grid(self) -> np.ndarray:
        """``x`` in the shape of its sweep: ``(*axes, time, state)``.

        Raises:
            ValueError: The rows are no sweep's.
        """
        return in_grid(self.x, self.sweep)


def in_grid(x: np.ndarray, sweep: Record | None) -> np.ndarray:
    """Rows shaped into the grid of a sweep, its axes first.

    Raises:
        ValueError: The rows are no sweep's.
    """
    if sweep is None:
        raise ValueError("these rows are no sweep's: there is no grid to shape them to")
    return x.reshape(*sweep["shape"], *x.shape[1:])


def listed(value: Any) -> Any:
    """Arrays inside mappings as lists, for JSON."""
    if isinstance(value, Mapping):
        return {name: listed(each) for name, each in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


class AbstractJob:
    """What the service said of a job last: the part that needs no request.

    Attributes:
        record: What the service said of it last.
    """

    record: Record

    @property
    def id(self) -> str:
        """The job's id."""
        return self.record["id"]

    @property
    def state(self) -> str:
        """``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""
        return self.record["state"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.state!r})"
