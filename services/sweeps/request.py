"""Sweeps: trainings that differ in some settings, and which of them is best.

What is asked for is written out as one whole training request for each candidate,
checked like any other. All hold the same trajectories out, whatever their seeds.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from services.datasets import DATASET_PATTERN
from services.schedule import Scheduled
from services.training.request import ModelName, Seed
from services.versions import Tags
from spnode_core.spec import (
    MOST_MEMBERS,
    Preset,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
)

MOST_CANDIDATES = 32
_DATASET = "ds_01k9x3w5c7b2m4n6p8q0r2s4t6"


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class CandidateSettings(_Model):
    """CandidateSettings of a training; the base or the preset has what is left out."""

    preset: Preset | None = None
    seed: Seed | None = None
    """Source of the initial weights and the batches; ``split.seed`` divides the
    data."""
    surrogate: SurrogateSpec | None = None
    training: TrainingSpec | None = None
    certified: bool | None = None
    members: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMBERS)] | None = None
    warm_start: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class SweepJob(_Model, Scheduled):
    """Train versions that differ in some settings, and find the best of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "sweep",
                    "dataset": _DATASET,
                    "model": "robertson",
                    "grid": {"seed": [0, 1, 2], "surrogate.latent": [4, 8]},
                    "base": {"training": {"max_seconds": 600}},
                    "alias": "challenger",
                },
                {
                    "kind": "sweep",
                    "dataset": _DATASET,
                    "model": "robertson",
                    "candidates": [
                        {"preset": "auto"},
                        {"surrogate": {"linear": {"kind": "hurwitz"}}},
                    ],
                },
            ]
        }
    )

    kind: Literal["sweep"] = "sweep"
    dataset: Annotated[str, Field(pattern=DATASET_PATTERN)]
    """Id of the dataset that all candidates learn from."""
    model: ModelName
    """Name under which each candidate is registered as a version."""
    candidates: Annotated[
        list[CandidateSettings], Field(min_length=2, max_length=MOST_CANDIDATES)
    ] = []
    """The candidates one by one, by what they have beside ``base``."""
    grid: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=200)],
            Annotated[list[JsonValue], Field(min_length=1, max_length=32)],
        ],
        Field(max_length=8),
    ] = {}
    """Instead of ``candidates``: values by field (``surrogate.latent``), one candidate
    for each combination, the last field fastest."""
    base: CandidateSettings = CandidateSettings()
    """What all candidates have in common."""
    split: SplitSpec = SplitSpec()
    """Which fractions of the trajectories all candidates hold out. They are ranked on
    the validation part; ``seed`` is by default the base's."""
    ensemble: Annotated[int, Field(strict=True, ge=2, le=MOST_MEMBERS)] | None = None
    """How many of the best candidates are joined into one ensemble: a further version,
    which gets the aliases in place of the best one. Those are joined that are of the
    best one's description; where too few are, ``warnings`` of the result say so. No
    candidate may have ``members`` or a ``warm_start`` then."""
    alias: ModelName | None = None
    """Alias to point at the best version, or at the ensemble; no other gets one."""
    tags: Tags = {}
    """Your own words, kept with each job and in each version's card."""

    @model_validator(mode="after")
    def _is_of_one_form(self) -> Self:
        if bool(self.candidates) == bool(self.grid):
            raise ValueError(
                "found both candidates and grid, or neither; expected one of them"
            )
        return self


class Candidate(_Model):
    """A candidate as the row of its sweep keeps it."""

    job: str | None = None
    """Its training; there is none yet where a request is only checked."""
    settings: dict[str, Any]
    """What it has beside the base, by field."""


class PlannedSweep(_Model, Scheduled):
    """A sweep as its row keeps it: checked, its candidates written out."""

    kind: Literal["sweep"] = "sweep"
    dataset: str
    model: str
    candidates: list[Candidate]
    base: dict[str, Any]
    split: SplitSpec
    ensemble: Annotated[
        int | None,
        # A worker of before there were any refuses what it does not know.
        Field(exclude_if=lambda count: count is None),
    ] = None
    alias: str | None = None
    tags: dict[str, str] = {}

    @property
    def split_seed(self) -> int:
        """What divides the data."""
        assert self.split.seed is not None, "it is fixed when the sweep is planned"
        return self.split.seed


def settings_of(job: SweepJob) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield what each candidate has beside the base, and where that was asked for.

    Returns:
        Nested settings, and by each of their fields the pointer into the request.

    Raises:
        ValueError: Two fields of the grid exclude each other.
    """
    for index, candidate in enumerate(job.candidates):
        yield given(candidate), {"": f"/candidates/{index}"}
    if not job.grid:
        return
    places = [[(name, i) for i in range(len(job.grid[name]))] for name in job.grid]
    for chosen in itertools.product(*places):
        nested: dict[str, Any] = {}
        where = {}
        for name, i in chosen:
            _assign(nested, name, job.grid[name][i])
            where[name] = f"/grid/{escaped(name)}/{i}"
        yield nested, where


def count_of(job: SweepJob) -> int:
    """How many candidates a sweep has."""
    return len(job.candidates) or math.prod(map(len, job.grid.values()))


def given(settings: CandidateSettings) -> dict[str, Any]:
    """Return what was set, null being as good as nothing at all."""
    dumped = settings.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in dumped.items() if value is not None}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings laid over others; another ``kind`` replaces a part as a whole."""
    found = dict(base)
    for name, value in over.items():
        below = found.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            is_other = value.get("kind", below.get("kind")) != below.get("kind")
            found[name] = dict(value) if is_other else merged(below, value)
        else:
            found[name] = value
    return found


def flattened(settings: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested settings by dotted field."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = value
    return found


def in_words(settings: Mapping[str, Any]) -> str:
    """Return settings by field as a person reads them."""
    named = (f"{name}={json.dumps(value)}" for name, value in settings.items())
    return ", ".join(named) or "the base as it is"


def _assign(nested: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        nested = nested.setdefault(parent, {})
        if not isinstance(nested, dict):
            raise ValueError(f"{path!r} beside {parent!r} itself")
    if last in nested:
        raise ValueError(f"{path!r} beside one of its fields")
    nested[last] = value


def escaped(name: str) -> str:
    """Return a name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
