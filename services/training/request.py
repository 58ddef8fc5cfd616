"""What callers may ask of the job queue, checked before anything is queued.

The shapes are pydantic models (they are the OpenAPI schema as well); ``check_request``
then compares a request with the dataset that it names. An error found here costs
nothing: no job was made.
"""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from services.datasets import DATASET_PATTERN, DatasetRecord, Datasets
from services.errors import Invalid
from services.schedule import Schedule, Scheduled
from services.versions import NAME_PATTERN, Tags, check_alias
from spnode_core.errors import InvalidInput, counted
from spnode_core.spec import (
    LEAST_AHEAD,
    MOST_MEMBERS,
    Preset,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
    certified_surrogate,
)
from spnode_core.training.stage_checks import check_stages

System = Literal["kuramoto_sivashinsky", "robertson", "transient_growth"]
ModelName = Annotated[str, Field(pattern=NAME_PATTERN)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
_LISTED = 20
"""Names that a refusal lists at most."""


class _Request(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class TrainingRequest(_Request, Scheduled):
    """Train a surrogate on a dataset and register it as a version of a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "training",
                    "dataset": "ds_01k9x3w5c7b2m4n6p8q0r2s4t6",
                    "model": "robertson",
                },
                {
                    "kind": "training",
                    "dataset": "ds_01k9x3w5c7b2m4n6p8q0r2s4t6",
                    "model": "robertson",
                    "preset": "auto",
                    "seed": 0,
                    "surrogate": {
                        "latent": 8,
                        "conserved": {"mass": {"y1": 1, "y2": 1, "y3": 1}},
                    },
                    "training": {"iterations": 5000, "batch": 100, "max_seconds": 600},
                    "split": {"validation": 0.1, "test": 0.1},
                    "alias": "challenger",
                    "tags": {"campaign": "autumn"},
                },
                {
                    "kind": "training",
                    "dataset": "ds_01k9x3w5c7b2m4n6p8q0r2s4t6",
                    "model": "robertson",
                    "warm_start": "robertson@champion",
                },
            ]
        }
    )

    kind: Literal["training"] = "training"
    dataset: Annotated[str, Field(pattern=DATASET_PATTERN)]
    """Id of the dataset to learn from."""
    model: ModelName
    """Name under which the version is registered."""
    preset: Preset = "auto"
    """How what is left open below is decided from the data."""
    seed: Seed = 0
    """Source of all randomness: the split, the initial weights, the batches."""
    surrogate: SurrogateSpec | None = None
    """What you fix of the surrogate."""
    training: TrainingSpec | None = None
    """What you fix of its training."""
    split: SplitSpec = SplitSpec()
    """Which fractions of the trajectories are held out."""
    certified: bool = False
    """Make it true by construction that all rollouts come together; descriptions and
    data that exclude it are refused with the reason."""
    members: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMBERS)] = 1
    """How many surrogates to train and to average: an ensemble, whose spread says where
    they disagree. ``training.max_seconds`` is for all of them."""
    warm_start: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A version to go on from, ``name``, ``name@alias`` or ``name/3``: its description,
    scalings and parameters are kept, and the card compares both on the same held-out
    trajectories. Which version it is, is fixed when the job is submitted."""
    alias: ModelName | None = None
    """Alias to point at the version when it is there."""
    tags: Tags = {}
    """Your own words, kept with the job and in the version's card."""


class DatasetRequest(_Request, Scheduled):
    """Make a dataset from a built-in system and its reference solver."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "dataset",
                    "system": "robertson",
                    "trajectories": 1000,
                    "seed": 0,
                }
            ]
        }
    )

    kind: Literal["dataset"] = "dataset"
    system: System
    """Name of the system."""
    trajectories: Annotated[int, Field(strict=True, ge=2, le=100_000)]
    """How many initial states to solve from."""
    seed: Seed = 0
    """Source of the initial states."""
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """What people call the dataset."""

    @field_validator("schedule")
    @classmethod
    def _needs_no_gpu(cls, schedule: Schedule) -> Schedule:
        if schedule.device != "any":
            raise ValueError("reference solvers run on CPUs: leave device out")
        return schedule


_REQUESTS: TypeAdapter[TrainingRequest | DatasetRequest] = TypeAdapter(
    Annotated[TrainingRequest | DatasetRequest, Field(discriminator="kind")]
)


def stored(request: TrainingRequest | DatasetRequest) -> dict[str, Any]:
    """Return a request as the job's row keeps it.

    Only what the caller set is kept, since a preset decides the rest.
    """
    return {"kind": request.kind, **request.model_dump(mode="json", exclude_unset=True)}


def restored(row: dict[str, Any]) -> TrainingRequest | DatasetRequest:
    """Return the request that a job's row keeps."""
    return _REQUESTS.validate_python(row)


def check_request(
    request: TrainingRequest | DatasetRequest, datasets: Datasets
) -> DatasetRecord | None:
    """Check what the shape of a request cannot say; return the dataset it names.

    Raises:
        Invalid: Its dataset does not exist, or does not fit the rest of it.
    """
    if isinstance(request, DatasetRequest):
        return None
    if request.alias is not None:
        check_alias(request.alias)
    dataset = datasets.asked(request.dataset)
    _check_pairs(request)
    if request.certified:
        _check_certified(request)
    if request.members > 1 and request.warm_start is not None:
        raise Invalid(
            "/members",
            found=f"{request.members} with warm_start",
            expected="1: members that begin with the same parameters would differ too "
            "little to say anything",
        )
    if request.warm_start is None:  # else its version may say how it is divided
        check_split(request.split, dataset)
    if request.surrogate is not None:
        _check_surrogate(request.surrogate, dataset)
    return dataset


def check_split(split: SplitSpec, dataset: DatasetRecord) -> None:
    """Check that a dataset can be divided so.

    Raises:
        Invalid: Too few trajectories, or too short ones.
    """
    trained, *held = split.sizes(dataset.trajectories)
    if trained < 1:
        count = trained + sum(held)
        raise Invalid(
            "/split",
            found=f"{counted(count, 'trajectory', 'trajectories')} in {dataset.id}, "
            f"with {sum(held)} held out",
            expected="at least one to train on; add trajectories, cut long ones by "
            "`pieces`, or hold out less",
        )
    shortest, needed = dataset.samples[0], LEAST_AHEAD * split.pieces + 1
    if split.pieces > 1 and shortest < needed:
        raise Invalid(
            "/split/pieces",
            found=f"{split.pieces} pieces of {shortest} samples, the shortest of "
            f"{dataset.id}",
            expected=f"at least {needed} samples in each trajectory, or fewer pieces",
        )


@contextlib.contextmanager
def pointing_into_the_request() -> Iterator[None]:
    """What the library refuses in here is refused by its place in the request.

    Raises:
        Invalid: Instead of ``InvalidInput``.
    """
    try:
        yield
    except InvalidInput as error:
        place = "/" + error.field.replace(".", "/")
        raise Invalid(place, found=error.found, expected=error.expected) from error


def _check_pairs(request: TrainingRequest) -> None:
    """What pairs of samples are no training of, where they are asked for."""
    training = request.training
    is_known = request.warm_start is None and request.preset != "smooth"
    if training is not None and training.pairs and is_known:
        with pointing_into_the_request():
            check_stages(request.surrogate or SurrogateSpec(), training)


def _check_certified(request: TrainingRequest) -> None:
    """The part that needs no data; what the data excludes fails the job."""
    with pointing_into_the_request():
        certified_surrogate(request.surrogate, request.preset)


def _check_surrogate(spec: SurrogateSpec, dataset: DatasetRecord) -> None:
    _check_names(spec, dataset)
    if spec.positive:
        _check_positive(dataset)
    if getattr(spec.linear, "depends_on_parameters", False) and not dataset.parameters:
        raise Invalid(
            "/surrogate/linear/depends_on_parameters",
            found=f"true, though {dataset.id} has no parameters",
            expected="false, or a dataset with parameters",
        )
    if spec.nonlinear.kind == "none" and dataset.controls:
        raise Invalid(
            "/surrogate/nonlinear/kind",
            found=f"'none', which the controls of {dataset.id} do not act on",
            expected="another kind, where the data have controls",
        )
    _check_latent(spec, dataset)


def _check_names(spec: SurrogateSpec, dataset: DatasetRecord) -> None:
    states = dataset.states
    for name, terms in spec.conserved.items():
        for state in terms:
            place = f"conserved/{_escape(name)}/{_escape(state)}"
            _check_name(state, states, place, f"no state of {dataset.id}")
    for number, state in enumerate(spec.logarithms):
        place = f"autoencoder/logarithms/{number}"
        _check_name(state, states, place, f"no state of {dataset.id}")
    scaled = (*states, *dataset.parameters, *dataset.controls)
    kinds = "no state, parameter or control of"
    for name in spec.normalisation:
        place = f"normalisation/{_escape(name)}"
        _check_name(name, scaled, place, f"{kinds} {dataset.id}")


def _check_name(name: str, known: tuple[str, ...], place: str, what: str) -> None:
    if name in known:
        return
    more = len(known) - _LISTED
    raise Invalid(
        f"/surrogate/{place}",
        found=f"{name!r}, which is {what}",
        expected=f"one of {', '.join(known[:_LISTED])}"
        + (f" and {more} more" if more > 0 else ""),
    )


def _check_positive(dataset: DatasetRecord) -> None:
    for state, facts in dataset.summary["states"].items():
        if facts["minimum"] < 0:
            raise Invalid(
                "/surrogate/positive",
                found=f"true, though {state} goes down to {facts['minimum']:.6g}",
                expected="false, or a dataset without negative states",
            )


def _check_latent(spec: SurrogateSpec, dataset: DatasetRecord) -> None:
    states, latent, place = len(dataset.states), spec.latent, "/surrogate/latent"
    if spec.autoencoder.kind == "none" and latent not in (None, states):
        expected = f"{states}, the number of states, since there is no autoencoder"
        raise Invalid(place, found=repr(latent), expected=expected)
    if spec.linear.kind == "fixed" and latent not in (None, len(spec.linear.matrix)):
        expected = f"{len(spec.linear.matrix)}, the rows of linear.matrix"
        raise Invalid(place, found=repr(latent), expected=expected)
    oscillating = getattr(spec.linear, "oscillating", 0)
    if latent is not None and 2 * oscillating > latent:
        raise Invalid(
            "/surrogate/linear/oscillating",
            found=f"{oscillating} pairs, which take {2 * oscillating} latent variables",
            expected=f"at most {latent // 2} with latent {latent}",
        )


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
