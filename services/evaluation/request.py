"""Evaluation jobs: versions on the same trajectories, and what their row keeps.

The versions are fixed when a job is submitted, and with them the trajectories: where
one of them was trained on the dataset, those that it held out for its test.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.datasets import DATASET_PATTERN, DatasetRecord
from services.errors import Invalid
from services.schedule import Scheduled
from services.training.agreement import check_version_agrees, division_of
from services.training.request import Seed
from services.versions import VersionRecord
from spnode_core.spec import SplitSpec

KIND = "evaluation"
MOST_VERSIONS = 8


class EvaluationJob(Scheduled):
    """Compare versions on the same held-out trajectories."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "kind": "evaluation",
                    "models": ["robertson@champion", "robertson/3"],
                    "dataset": "ds_01k9x3w5c7b2m4n6p8q0r2s4t6",
                }
            ]
        },
    )

    kind: Literal["evaluation"] = KIND
    models: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]],
        Field(min_length=2, max_length=MOST_VERSIONS),
    ]
    """Versions, each ``name``, ``name@alias`` or ``name/3``; the first is the reference
    that the others are held against."""
    dataset: Annotated[str, Field(pattern=DATASET_PATTERN)]
    """Id of the dataset to compare them on."""
    part: Literal["all", "test"] | None = None
    """``all`` trajectories, or those that the last of the versions trained on this
    dataset held out as its ``test`` part. By default the latter where there is such a
    version, else all."""
    seed: Seed = 0
    """Source of the later samples that rollouts start from as well."""


class Compared(BaseModel):
    """A version that is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    digest: str
    """Its artifact."""

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


class PlannedEvaluation(EvaluationJob):
    """An evaluation job as its row keeps it: checked, versions and part fixed."""

    part: Literal["all", "test"] = "all"
    versions: list[Compared]
    split: SplitSpec | None = None
    """How the dataset is divided, for its test part."""
    split_seed: int | None = None
    warnings: Annotated[list[str], Field(default_factory=list)]
    """Which of the versions learned from the trajectories."""


def plan(
    job: EvaluationJob, versions: list[VersionRecord], dataset: DatasetRecord
) -> dict[str, Any]:
    """Check a job as a whole; return what its row keeps.

    Args:
        job: What was asked.
        versions: Those that ``models`` stand for.
        dataset: The dataset that it names.

    Raises:
        Invalid: What cannot be used, where, and what belongs there.
    """
    names = [f"{each.model}/{each.number}" for each in versions]
    for index, (name, version) in enumerate(zip(names, versions, strict=True)):
        place = f"/models/{index}"
        if name in names[:index]:
            expected = "each version once"
            raise Invalid(place, found=f"{name} once more", expected=expected)
        check_version_agrees(version, dataset, place)
    part, division = _part(job, versions, dataset)
    compared = [
        Compared(model=each.model, version=each.number, digest=each.digest)
        for each in versions
    ]
    kept = PlannedEvaluation(
        models=job.models,
        dataset=job.dataset,
        seed=job.seed,
        schedule=job.schedule,
        part=part,
        versions=compared,
        split=division and division[0],
        split_seed=division and division[1],
        warnings=_overlaps(versions, dataset, part, division),
    )
    return kept.model_dump(mode="json")


def _part(
    job: EvaluationJob, versions: list[VersionRecord], dataset: DatasetRecord
) -> tuple[Literal["all", "test"], tuple[SplitSpec, int] | None]:
    """Which trajectories, and how the dataset is divided where it is the test part."""
    known = [found for each in versions if (found := division_of(each, dataset))]
    held = [each for each in known if each[0].sizes(dataset.trajectories)[2]]
    if job.part == "all" or (job.part is None and not held):
        return "all", None
    if not held:
        raise Invalid(
            "/part",
            found=f"'test', though none of the versions held out a test part of "
            f"{dataset.id}",
            expected="'all', or a version that was trained on this dataset",
        )
    return "test", held[-1]


def _overlaps(
    versions: list[VersionRecord],
    dataset: DatasetRecord,
    part: str,
    division: tuple[SplitSpec, int] | None,
) -> list[str]:
    said = []
    for version in versions:
        own = division_of(version, dataset)
        if own is None or (part == "test" and own == division):
            continue
        name = f"{version.model}/{version.number}"
        if part == "test":
            how = f"learned from some of these trajectories of {dataset.id}, which it "
            said.append(f"{name} {how}divided otherwise: its errors are too good")
        else:
            how = f"was trained on {dataset.id}, all of which is compared here"
            said.append(f"{name} {how}: its errors are too good; part 'test' is fair")
    return said
