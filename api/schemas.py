"""What the routes return and, beside the services' own request models, accept."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.audit import Act
from services.keys import LONGEST_S, Key
from services.lifecycle import Job
from services.projects import DEFAULT
from services.versions import (
    AliasMove,
    AliasRecord,
    ModelRecord,
    Tags,
    VersionRecord,
)

T = TypeVar("T")


class Out(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class In(BaseModel):
    """A part of a request: unknown fields are errors."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Page(Out, Generic[T]):
    """Some items, newest first."""

    data: list[T]
    next: str | None = None
    """Cursor of the following page (``?after=``); null on the last one."""


class ProblemOut(Out):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    """Stable and narrower than the status."""
    errors: list[dict[str, str]] = []
    """Places in the request: a JSON pointer and what was found and expected there."""
    request_id: str


class JobOut(Out):
    """A job: what was asked, how far it is, what came of it."""

    id: str
    kind: str
    project: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    queue: str
    """Workers of which queue take it."""
    priority: int
    progress: dict[str, Any] | None
    request: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    attempt: int
    max_attempts: int
    cancel_requested: bool
    created_at: datetime
    deadline: datetime | None
    """When it fails unless it has ended."""
    started_at: datetime | None
    finished_at: datetime | None
    parent: str | None
    """The sweep that it is a candidate of."""

    @classmethod
    def of(cls, job: Job) -> Self:
        """The record as it is shown."""
        return cls.model_validate(job, from_attributes=True)


class ModelOut(Out):
    """A name in the registry."""

    name: str
    project: str
    description: str
    tags: dict[str, str]
    latest: int | None
    """Number of the newest version."""
    aliases: dict[str, int]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: ModelRecord) -> Self:
        """The record as it is shown."""
        return cls.model_validate(record, from_attributes=True)


class VersionSummary(Out):
    """A version, without its long parts."""

    model: str
    number: int
    digest: str
    size_bytes: int
    job_id: str | None
    created_at: datetime
    normalised_rmse: float | None
    """Error on held-out trajectories in parts of the data's spread."""

    @classmethod
    def of(cls, record: VersionRecord) -> Self:
        """The record as it is shown."""
        return cls.model_validate(record, from_attributes=True)


class VersionOut(VersionSummary):
    """A version: what it accepts, how it was built, how good it is."""

    signature: dict[str, Any]
    spec: dict[str, Any]
    evaluation: dict[str, Any]
    certificate: dict[str, Any]


class ModelDetail(ModelOut):
    """A model with its versions, newest first."""

    versions: list[VersionSummary] = []


class ModelPatch(In):
    """What to change; a field that is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"description": "Robertson, 1e-5 to 1e5 s", "tags": {"a": "b"}}
            ]
        }
    )

    description: Annotated[str, Field(max_length=10_000)] | None = None
    tags: Tags | None = None


class AliasMoveIn(In):
    """Where an alias is to point."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2}]})

    version: Annotated[int, Field(ge=1, lt=2**31, strict=True)]
    override: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A reason to make a version champion that fails its gates."""


class AliasOut(Out):
    """Where an alias points."""

    model: str
    alias: str
    number: int
    updated_at: datetime
    warnings: list[str] = []

    @classmethod
    def of(cls, record: AliasRecord) -> Self:
        """The record as it is shown."""
        return cls.model_validate(record, from_attributes=True)


class AliasMoveOut(Out):
    """One move of an alias."""

    alias: str
    number: int | None
    previous: int | None
    moved_by: str
    reason: str
    moved_at: datetime

    @classmethod
    def of(cls, record: AliasMove) -> Self:
        """The record as it is shown."""
        return cls.model_validate(record, from_attributes=True)


class KeyIn(In):
    """A key to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "sampler", "scopes": ["read", "rollout"], "project": "plasma"}
            ]
        }
    )

    name: Annotated[str, Field(min_length=1, max_length=200)]
    scopes: Annotated[list[str], Field(min_length=1, max_length=64)]
    project: Annotated[str, Field(max_length=64)] = DEFAULT
    """Whose datasets, jobs and models it sees; with ``admin`` it sees all."""
    expires_in_seconds: (
        Annotated[float, Field(strict=True, ge=1, le=LONGEST_S)] | None
    ) = None
    """How long it is valid; for good by default."""


class RotationIn(In):
    """A key that is to take the place of another."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keep_seconds": 43200}]})

    keep_seconds: Annotated[float, Field(strict=True, ge=0, le=LONGEST_S)] = 3600.0
    """How long the old one stays valid, so that its users can change over."""


class KeyOut(Out):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    project: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str | None
    """The key that took its place, where it was rotated."""

    @classmethod
    def of(cls, key: Key) -> Self:
        """The record as it is shown."""
        return cls.model_validate(key, from_attributes=True)


class NewKeyOut(KeyOut):
    """A key that was just made: the only time that its secret is shown."""

    secret: str


class ActOut(Out):
    """A request that may have changed something, and what came of it."""

    caller: str
    """``key:<id>``, or ``loopback``."""
    method: str
    path: str
    status: int
    request_id: str
    created_at: datetime
    made: str | None
    """Path of what it made, where it made something."""

    @classmethod
    def of(cls, act: Act) -> Self:
        """The record as it is shown."""
        return cls.model_validate(act, from_attributes=True)


class Validated(Out):
    """A request that would be accepted."""

    valid: Literal[True] = True
    request: dict[str, Any]
    """The request as the job would keep it: what you set, checked."""


class DomainOut(Out):
    """Which rows lie inside the training domain."""

    inside: list[bool]
    outside: list[dict[str, Any]] | None = None
    """What lies outside, where ``outputs.domain`` asked for it."""
    distance: list[float] | None = None
    """Of each row from the training samples in latent space, over the most that is
    usual: above 1 a row is outside. Where it was asked for, and the version knows."""


Nested = list[float] | list[list[float] | None] | list[list[list[float]] | None] | None
Many = Nested | list[Nested]


class AxisOut(Out):
    """One quantity that was swept."""

    field: str
    """``parameters`` or ``x0``."""
    name: str
    values: list[float]


class SweepOut(Out):
    """The grid that the rows of an answer stand for, the last axis fastest."""

    shape: list[int]
    """Length of each axis: one for all axes that go side by side."""
    axes: list[AxisOut]


class ComputedOut(Out):
    """What every answer of a rollout or derivative says; arrays are nested lists."""

    model: str
    version: int
    digest: str
    times: list[float]
    warnings: list[str]
    domain: DomainOut
    rows: list[dict[str, Any]] | None = None
    """Rows that left the finite range, where ``on_error`` is ``mask``."""
    sweep: SweepOut | None = None
    """What the rows stand for, where they are those of a sweep."""


class RolloutOut(ComputedOut):
    """The answer to a rollout."""

    x: Nested
    """``(row, time, state)``: no axis of rows where one state was sent, none of time
    where only the final one was asked for."""
    z: Nested = None
    """The latent trajectory, where ``outputs.latent`` asked for it."""
    lower: Nested = None
    """Lower ends of prediction intervals of the shape of ``x``, where ``intervals``
    asked for them."""
    upper: Nested = None
    """Their upper ends."""
    coverage: float | None = None
    """Part of the truth that they hold, for rows drawn as the training data were."""
    spread: Nested = None
    """Standard deviation over an ensemble's members, of the shape of ``x``, where
    ``spread`` asked for it; no calibrated interval."""


class JvpOut(RolloutOut):
    """A rollout and its directional derivative."""

    jvp: Many
    """Of the shape of ``x``, behind the leading axis of many tangents."""


class VjpOut(RolloutOut):
    """A rollout and the gradients of ``sum(cotangents * x)``."""

    vjp: dict[str, Many]
    """By input, each of the input's shape, behind the axis of many cotangents."""


class HvpOut(ComputedOut):
    """The gradient of ``sum(cotangents * x)`` and products of its Hessian."""

    vjp: dict[str, Nested]
    """The gradient, by input."""
    hvp: dict[str, Many]
    """The products by input, behind the leading axis of many tangents."""


class JacobianOut(RolloutOut):
    """A rollout and its derivative by each number of its inputs."""

    jacobian: dict[str, list[Any] | None]
    """By input, ``(row, time, state, *input)``: the axes of ``x``, then those that the
    input of one row has."""


class ObjectiveOut(ComputedOut):
    """The value of an objective and its gradient."""

    value: float
    """The sum over rows."""
    values: float | list[float | None]
    """The value of each row."""
    gradient: dict[str, Nested]
    """Of ``value``, by input, each of the input's shape."""
