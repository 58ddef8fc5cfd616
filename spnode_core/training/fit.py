"""``fit``: from a dataset to a trained surrogate and a report on it.

::

    split -> resolve -> infer operators -> pretrain -> optimise -> polish -> evaluate
                        (least squares)   (samples)  (rollouts) (L-BFGS)
                                             |____ checkpoints ____|
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput
from spnode_core.metrics import with_intervals
from spnode_core.spec import (
    Preset,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
    certified_surrogate,
    check_certified_size,
)
from spnode_core.surrogate import Surrogate, require_x64
from spnode_core.training.assessment import assess
from spnode_core.training.candidates import (
    Candidate,
    candidates,
    fallback,
    is_open,
)
from spnode_core.training.certified import check_settling
from spnode_core.training.choices import Choices
from spnode_core.training.contest import Contest, Entry
from spnode_core.training.execution import Execution
from spnode_core.training.members import check_members, member_seeds
from spnode_core.training.neighbours import with_neighbours
from spnode_core.training.parts import Parts
from spnode_core.training.presets import resolve
from spnode_core.training.progress import (
    Progress,
    Reporter,
    Stopped,
    progress_line,
)
from spnode_core.training.stage_checks import check_stages
from spnode_core.training.warm_start import (
    continued,
    outcome_of,
    surrogate_digest,
    warm_candidate,
)

__all__ = ["Progress", "Run", "Stopped", "fit"]


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of ``fit``, or of ``join``.

    Args:
        surrogate: The trained surrogate.
        history: Losses by stage and iteration.
        report: What was chosen, done and measured; JSON.
        held_out: Trajectories that it was not trained on, those for the test before
            those for validation; None where all were.
    """

    surrogate: Surrogate
    history: list[dict[str, Any]]
    report: dict[str, Any]
    held_out: Dataset | None = None


def fit(
    dataset: Dataset,
    surrogate: SurrogateSpec | None = None,
    training: TrainingSpec | None = None,
    *,
    preset: Preset = "auto",
    split: SplitSpec | None = None,
    seed: int = 0,
    certified: bool = False,
    members: int = 1,
    warm_start: Surrogate | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_choices: Callable[[Choices], None] | None = None,
    should_stop: Callable[[], str | None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> Run:
    """Train a surrogate of the system behind a dataset.

    Args:
        dataset: Trajectories.
        surrogate: What is fixed of the surrogate; the preset decides the rest.
        training: What is fixed of the training; the preset decides the rest.
        preset: How open fields are decided: ``auto`` from the data, ``paper`` as in
            arXiv 2503.01775.
        split: Fractions held out for validation and test, a tenth each by default.
        seed: Source of split, initial weights and minibatches; equal seeds on equal
            machines give equal bits.
        certified: Make it true by construction that all rollouts come together, and
            refuse descriptions and data that exclude it.
        members: How many surrogates to train and to average, 1 to 16: the first by
            ``seed``, the others by seeds derived from it or, where least squares do
            it, on resamples of the training trajectories; see ``docs/ensembles.md``.
            The wall time is for all of them.
        warm_start: A trained surrogate to go on from, with its description, scalings
            and parameters; the domain becomes that of the data. The report compares
            both on the same held-out trajectories.
        on_progress: Called a few times a second at most; on a terminal a line of
            progress is shown by default.
        on_choices: Called with what was decided from the data, and why, before each
            way to fit it that is tried.
        should_stop: Asked about once a second; a reason ends the run.
        checkpoint: A file. The run writes it now and then and when it is stopped,
            and goes on from it, bit for bit, where it exists.
        checkpoint_seconds: Time between two checkpoints, at least.

    Returns:
        The surrogate with its history and report.

    Raises:
        InvalidInput: Data, descriptions or checkpoint do not fit together.
        Stopped: ``should_stop`` gave a reason.
        TrainingError: No usable surrogate came out, and what to change.
    """
    require_x64()
    if not isinstance(dataset, Dataset):
        raise InvalidInput(
            "dataset",
            found=type(dataset).__name__,
            expected="a Dataset, as load_dataset reads one from a file",
        )
    if warm_start is not None and not isinstance(warm_start, Surrogate):
        raise InvalidInput(
            "warm_start",
            found=type(warm_start).__name__,
            expected="a Surrogate, as load reads one from an artifact",
        )
    check_members(members, warm_start)
    seeds = member_seeds(seed, members)
    split = split or SplitSpec()
    parts = Parts.of(dataset, split, seed)
    tried = plan(
        parts.train,
        surrogate,
        training,
        preset,
        certified=certified,
        warm_start=warm_start,
    )
    start = None
    if warm_start is not None:
        start = continued(warm_start, parts.train, tried[0].spec)
    reporter = Reporter(
        on_progress or progress_line(),
        should_stop,
        training.max_seconds if training else None,
    )
    contest = Contest(parts, seed, reporter)
    for number, candidate in enumerate(tried):
        is_last = number + 1 == len(tried)
        # The others take a minute each, and are run anew where a run goes on.
        path = Path(checkpoint) if checkpoint is not None and is_last else None
        goes_on = path is not None and path.exists()
        if not goes_on and contest.leaves_out(candidate):
            continue
        check_stages(candidate.spec, candidate.training)
        if on_choices is not None:
            on_choices(candidate.choices)
        if number == 0:
            what = "trajectories" if parts.pieces == 1 else "pieces of trajectories"
            message = f"{parts.train.trajectories} {what}"
            reporter.report(Progress("data", message=message))
        execution = Execution(
            parts,
            candidate.spec,
            candidate.training,
            seed,
            reporter,
            identity={
                "dataset": dataset.digest,
                "surrogate": candidate.spec.model_dump(mode="json"),
                "training": candidate.training.model_dump(mode="json"),
                "split": split.model_dump(mode="json"),
                "seed": seed,
                **({"certified": True} if certified else {}),
                **({"members": members} if members > 1 else {}),
                **({"warm_start": surrogate_digest(start)} if start else {}),
            },
            path=path,
            checkpoint_s=checkpoint_seconds,
            share=1.0 if is_last else sum(each.share for each in tried[: number + 1]),
            start=start,
            # One member tells what others of its kind are worth.
            seeds=seeds if is_last else seeds[:1],
            may_divide=candidate.may_divide,
        )
        if contest.enter(candidate, execution, is_last=is_last):
            break
    winner = contest.winner().completed(seeds)
    trained = with_neighbours(winner.surrogate, parts.train, seed)
    trained = with_intervals(trained, parts.validation)
    report = _report(winner, trained, contest.cautions(winner))
    return Run(trained, winner.record.history, report, parts.held_out)


def plan(
    dataset: Dataset,
    surrogate: SurrogateSpec | None,
    training: TrainingSpec | None,
    preset: Preset,
    *,
    certified: bool,
    warm_start: Surrogate | None = None,
) -> list[Candidate]:
    """What is fitted to the data, one after another until one is good.

    Args:
        dataset: The data to learn from.
        surrogate: What the caller fixed of the surrogate.
        training: What the caller fixed of the training.
        preset: How the rest is decided; ``auto`` may try several ways.
        certified: Whether all rollouts must come together by construction.
        warm_start: A surrogate to go on from, which leaves nothing to try.

    Raises:
        InvalidInput: The caller's fields do not fit the data, or exclude what
            ``certified`` asks for, or the data does.
    """
    if warm_start is not None:
        known = warm_candidate(
            warm_start, dataset, surrogate, training, preset, certified=certified
        )
        return [known]
    resolved = resolve_request(
        dataset, surrogate, training, preset, certified=certified
    )
    if preset != "auto" or certified or not is_open(dataset, surrogate, training):
        return [Candidate(f"preset {preset}", *resolved)]
    tried = candidates(dataset, surrogate, training)
    return [*tried, fallback(dataset, surrogate, training)]


def resolve_request(
    dataset: Dataset,
    surrogate: SurrogateSpec | None,
    training: TrainingSpec | None,
    preset: Preset,
    *,
    certified: bool,
) -> tuple[SurrogateSpec, TrainingSpec, Choices]:
    """Complete both descriptions from the training data, certified where asked to.

    Args:
        dataset: The data to learn from.
        surrogate: What the caller fixed of the surrogate.
        training: What the caller fixed of the training.
        preset: How the rest is decided.
        certified: Whether all rollouts must come together by construction.

    Raises:
        InvalidInput: The caller's fields do not fit the data, or exclude what
            ``certified`` asks for, or the data does.
    """
    if not certified:
        return resolve(dataset, surrogate, training, preset)
    surrogate = certified_surrogate(surrogate, preset)
    spec, train, choices = resolve(dataset, surrogate, training, preset)
    assert spec.latent is not None
    check_certified_size(spec.latent)
    check_settling(dataset, spec.conserved)
    why = "certified: all rollouts come together, whatever the weights are"
    value = spec.nonlinear.model_dump(mode="json")
    chosen = {"what": "surrogate.nonlinear", "value": value, "why": why}
    return spec, train, [chosen, *choices]


def _report(winner: Entry, surrogate: Surrogate, cautions: list[str]) -> dict[str, Any]:
    execution = winner.execution
    parts, reporter = execution.parts, execution.reporter
    reporter.report(Progress("evaluate", message="evaluating"))
    found = assess(
        surrogate,
        parts,
        execution.seed,
        execution.seeds,
        certified=bool(execution.identity.get("certified")),
    )
    # In place, here and below: the metrics of a part have the same list.
    found["warnings"] += cautions
    return {
        "outcome": winner.record.outcome,
        "choices": winner.choices,
        **execution.identity,
        **_warm_start(execution, surrogate, found),
        "inference": execution.inference,
        **found,
        "seconds": reporter.seconds,
    }


def _warm_start(
    execution: Execution, surrogate: Surrogate, found: dict[str, Any]
) -> dict[str, Any]:
    """What came of a warm start; its warnings join those of the held-out part."""
    start, parts = execution.start, execution.parts
    if start is None:
        return {}
    judges = {"test": parts.test, "validation": parts.validation}
    made, warnings = outcome_of(start, surrogate, judges, parts.train, execution.seed)
    found["warnings"] += warnings
    digest = execution.identity["warm_start"]
    return {"warm_start": {"surrogate": digest, **made, "warnings": warnings}}
