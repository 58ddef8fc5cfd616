"""Sweeps on their way to the queue: candidates written out, checked and queued."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from services.database.candidate_rows import SWEEP
from services.database.idempotency import request_digest
from services.datasets import Datasets
from services.errors import Invalid
from services.identity import new_id
from services.jobs import Jobs
from services.lifecycle import Job
from services.registry import Registry
from services.sweeps.request import (
    MOST_CANDIDATES,
    Candidate,
    CandidateSettings,
    PlannedSweep,
    SweepJob,
    count_of,
    escaped,
    flattened,
    given,
    in_words,
    merged,
    settings_of,
)
from services.training.plan import plan
from services.training.request import TrainingRequest
from services.versions import check_alias
from spnode_core.spec import SplitSpec


class Sweeps:
    """What gives a sweep and its candidates to the queue.

    Args:
        registry: Where the versions of ``warm_start`` are looked up.
        datasets: Where the dataset is looked up.
        jobs: The queue.
    """

    def __init__(self, registry: Registry, datasets: Datasets, jobs: Jobs) -> None:
        self.registry = registry
        self.datasets = datasets
        self.jobs = jobs

    def submit(
        self,
        job: SweepJob,
        *,
        owner: str,
        idempotency_key: str | None = None,
        validate_only: bool = False,
    ) -> tuple[Job | dict[str, Any], bool]:
        """Check a sweep with all its candidates and queue them, all or none.

        Args:
            job: What was asked.
            owner: Whose jobs they are.
            idempotency_key: The caller's name for this submission.
            validate_only: Check, and queue nothing.

        Returns:
            The sweep's job (what its row would keep, with ``validate_only``), and
            whether it was there already under that key.

        Raises:
            Invalid: What cannot be used, where, and what belongs there; or the key was
                used before for another request.
        """
        # An alias may have moved between two tries of one submission.
        digest = request_digest(job.model_dump(mode="json", exclude_unset=True))
        if not validate_only:
            earlier = self.jobs.submitted(owner, idempotency_key, lambda: digest)
            if earlier is not None:
                return earlier, True
        planned, trainings = self._plan(job)
        if validate_only:
            return planned.model_dump(mode="json"), False
        # In the order of the request, which their ids alone would not keep.
        ids = sorted(new_id("job") for _ in trainings)
        candidates = dict(zip(ids, trainings, strict=True))
        known = [
            each.model_copy(update={"job": id})
            for id, each in zip(candidates, planned.candidates, strict=True)
        ]
        kept = planned.model_copy(update={"candidates": known})
        return self.jobs.submit(
            SWEEP,
            kept.model_dump(mode="json"),
            owner=owner,
            idempotency_key=idempotency_key,
            request_hash=digest,
            candidates=candidates,
        )

    def _plan(self, job: SweepJob) -> tuple[PlannedSweep, list[dict[str, Any]]]:
        """What the rows of the sweep and of its candidates keep."""
        if job.alias is not None:
            check_alias(job.alias)
        dataset = self.datasets.asked(job.dataset)
        _check_grid(job)
        split = _fixed(job)
        if split.validation == 0:
            raise Invalid(
                "/split/validation",
                found="0",
                expected="a part above 0: candidates are ranked on it",
            )
        base = given(job.base)
        fixed = {
            "kind": "training",
            "dataset": dataset.id,
            "model": job.model,
            "split": split.model_dump(mode="json"),
            "tags": job.tags,
            "schedule": job.schedule.model_dump(mode="json"),
        }
        candidates: list[Candidate] = []
        trainings: list[dict[str, Any]] = []
        asked: list[dict[str, Any]] = []
        try:
            written_out = list(settings_of(job))
        except ValueError as error:
            expected = "fields that do not hold one another"
            raise Invalid("/grid", found=str(error), expected=expected) from error
        if job.ensemble is not None:
            asked_of_each = [merged(base, settings) for settings, _ in written_out]
            _check_members(job.ensemble, asked_of_each)
        for settings, where in written_out:
            each = {**merged(base, settings), **fixed}
            named = flattened(settings)
            if each in asked:
                raise Invalid(
                    _place("", base, where),
                    found=f"a candidate once more: {in_words(named)}",
                    expected="candidates that differ",
                )
            asked.append(each)
            trainings.append(self._training(each, base, where))
            candidates.append(Candidate(settings=named))
        planned = PlannedSweep(
            dataset=dataset.id,
            model=job.model,
            candidates=candidates,
            base=base,
            split=split,
            ensemble=job.ensemble,
            alias=job.alias,
            tags=job.tags,
            schedule=job.schedule,
        )
        return planned, trainings

    def _training(
        self, asked: dict[str, Any], base: dict[str, Any], where: Mapping[str, str]
    ) -> dict[str, Any]:
        """Check one candidate as the training that it is."""
        try:
            request = TrainingRequest.model_validate(asked)
            return plan(request, self.datasets, self.registry)
        except ValidationError as error:
            first = error.errors()[0]
            field = _without_tags(first["loc"], asked)
            raise Invalid(
                _place(field, base, where),
                found=repr(first["input"])[:120],
                expected=first["msg"],
            ) from error
        except Invalid as error:
            raise Invalid(
                _place(error.field, base, where),
                found=error.found,
                expected=error.expected,
                code=error.code,
            ) from error


def _check_grid(job: SweepJob) -> None:
    for name in job.grid:
        if name.split(".")[0] not in CandidateSettings.model_fields:
            raise Invalid(
                f"/grid/{escaped(name)}",
                found="a field that candidates do not have of their own",
                expected=f"one of {', '.join(CandidateSettings.model_fields)}, or a "
                "field within, such as surrogate.latent",
            )
    count = count_of(job)
    if not 2 <= count <= MOST_CANDIDATES:
        raise Invalid(
            "/grid",
            found=f"{' x '.join(str(len(each)) for each in job.grid.values())} = "
            f"{count} candidates",
            expected=f"2 to {MOST_CANDIDATES}",
        )


def _check_members(ensemble: int, candidates: list[dict[str, Any]]) -> None:
    """Refuse an ensemble that the candidates cannot make, however well they train.

    Which of them are of one description is known when they have been trained.
    """
    if ensemble > len(candidates):
        raise Invalid(
            "/ensemble",
            found=f"{ensemble} members",
            expected=f"2 to {len(candidates)}: there are no more candidates",
        )
    for field, none in (("members", (None, 1)), ("warm_start", (None,))):
        for each in candidates:
            if each.get(field) not in none:
                raise Invalid(
                    "/ensemble",
                    found=f"a candidate with {field} = {each[field]!r}",
                    expected="candidates that are one surrogate each, trained from "
                    "weights of its own",
                )


def _fixed(job: SweepJob) -> SplitSpec:
    """How all candidates divide the data, whatever their own seeds are."""
    seed = job.split.seed if job.split.seed is not None else job.base.seed or 0
    return job.split.model_copy(update={"seed": seed})


def _place(field: str, base: Mapping[str, Any], where: Mapping[str, str]) -> str:
    """Where a field of a candidate stood in the request for the sweep."""
    if field.split("/")[1:2] == ["split"]:
        return field  # of the sweep itself
    dotted = field.strip("/").replace("/", ".")
    for name, place in where.items():
        if name and (dotted == name or dotted.startswith(f"{name}.")):
            return place + field[len(name) + 1 :]
        if name and name.startswith(f"{dotted}."):
            return place
    if dotted and _has(base, dotted.split(".")):
        return f"/base{field}"
    return f"{where['']}{field}" if "" in where else "/grid"


def _without_tags(parts: Sequence[Any], asked: Any) -> str:
    """A place in a request as pydantic says it, without the kinds of its unions."""
    kept = ""
    for index, part in enumerate(parts):
        is_there = isinstance(asked, Mapping) and part in asked
        if is_there or index == len(parts) - 1:
            kept += f"/{part}"
        asked = asked[part] if is_there else asked
    return kept


def _has(settings: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(settings, Mapping) or part not in settings:
            return False
        settings = settings[part]
    return True
