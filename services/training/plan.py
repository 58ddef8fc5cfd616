"""What the row of a training job keeps: the request, and the version it goes on from.

An alias may move while a job waits, so the version that ``warm_start`` stands for is
fixed when the job is submitted.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from services.datasets import Datasets
from services.errors import Invalid, NotFound
from services.registry import Registry
from services.training.agreement import check_version_agrees, division_of
from services.training.request import (
    DatasetRequest,
    TrainingRequest,
    check_request,
    check_split,
    pointing_into_the_request,
    restored,
    stored,
)
from services.versions import VersionRecord
from spnode_core.spec import ArtifactSpec, check_warm_start

_FIELD = "/warm_start"


class Parent(BaseModel):
    """The version that a training goes on from, as it was at submission."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    digest: str
    """Its artifact."""


class PlannedTraining(TrainingRequest):
    """A training job as its row keeps it: checked, its parent fixed."""

    parent: Parent


def plan(
    request: TrainingRequest | DatasetRequest, datasets: Datasets, registry: Registry
) -> dict[str, Any]:
    """Check a request as a whole; return what its job's row keeps.

    Args:
        request: What was asked.
        datasets: Where its dataset is looked up.
        registry: Where the model's name and the version of ``warm_start`` are looked
            up.

    Raises:
        Conflict: The model's name is another project's.
        Invalid: What cannot be used, where, and what belongs there.
    """
    dataset = check_request(request, datasets)
    kept = stored(request)
    if isinstance(request, DatasetRequest):
        return kept
    registry.check_free(request.model)
    if request.warm_start is None:
        return kept
    assert dataset is not None
    version = _version(request.warm_start, registry)
    check_version_agrees(version, dataset, _FIELD)
    _check_fields(request, version)
    parent = Parent(model=version.model, version=version.number, digest=version.digest)
    split, division = request.split, division_of(version, dataset)
    if division is not None and "split" not in request.model_fields_set:
        # What the version learned from is held out from nobody who goes on from it.
        split = division[0].model_copy(update={"seed": division[1]})
        kept["split"] = split.model_dump(mode="json")
    check_split(split, dataset)
    return {**kept, "parent": parent.model_dump(mode="json")}


def planned(row: dict[str, Any]) -> TrainingRequest | DatasetRequest:
    """Return the request that a job's row keeps, with its parent where it has one."""
    return PlannedTraining.model_validate(row) if "parent" in row else restored(row)


def _version(reference: str, registry: Registry) -> VersionRecord:
    try:
        return registry.resolve(reference, field=_FIELD)
    except NotFound as error:
        raise Invalid(
            _FIELD,
            found=f"{reference!r}, but {error.message}",
            expected="name, name@alias or name/number of a version; GET /v1/models "
            "lists the names",
            code="version_not_found",
        ) from error


def _check_fields(request: TrainingRequest, version: VersionRecord) -> None:
    spec = ArtifactSpec.model_validate(
        {"surrogate": version.spec, "signature": version.signature}
    )
    members = spec.signature.members
    if members > 1:
        raise Invalid(
            _FIELD,
            found=f"{request.warm_start!r}, an ensemble of {members} members",
            expected="a version of one member",
        )
    with pointing_into_the_request():
        check_warm_start(
            spec.surrogate,
            request.surrogate,
            request.training,
            request.preset,
            certified=request.certified,
        )
