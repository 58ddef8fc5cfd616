"""``fit``: from a dataset to a trained surrogate and a report on it.

::

    split -> resolve -> infer operators -> pretrain -> optimise -> polish -> evaluate
                        (least squares)   (samples)  (rollouts) (L-BFGS)
                                             |____ checkpoints ____|
"""

import dataclasses
import math
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from spnode_core.certificates import contracts
from spnode_core.dataset import Dataset
from spnode_core.ensemble import members_of
from spnode_core.equations import equations_of
from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.metrics import evaluate, with_intervals
from spnode_core.spec import (
    Preset,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
    certified_surrogate,
)
from spnode_core.surrogate import Surrogate, require_x64
from spnode_core.training.candidates import (
    Candidate,
    candidates,
    fallback,
    is_open,
)
from spnode_core.training.certified import check_settling
from spnode_core.training.contest import Contest
from spnode_core.training.data_certificates import data_certificates
from spnode_core.training.execution import Execution, Parts
from spnode_core.training.members import (
    check_members,
    member_seeds,
    members_report,
)
from spnode_core.training.neighbours import with_neighbours
from spnode_core.training.presets import Choices, resolve
from spnode_core.training.progress import (
    Progress,
    Reporter,
    Stopped,
    progress_line,
)
from spnode_core.training.stage_checks import check_stages
from spnode_core.training.stages import Record
from spnode_core.training.warm_start import (
    continued,
    outcome_of,
    surrogate_digest,
    warm_candidate,
)

__all__ = ["Progress", "Run", "Stopped", "fit"]


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of ``fit``.

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
    parts = Parts(*dataset.split(split, seed))
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
        check_stages(candidate.spec, candidate.training)
        if on_choices is not None:
            on_choices(candidate.choices)
        if number == 0:
            message = f"{parts.train.trajectories} trajectories"
            reporter.report(Progress("data", message=message))
        is_last = number + 1 == len(tried)
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
            # The others take a minute each, and are run anew.
            path=Path(checkpoint) if checkpoint is not None and is_last else None,
            checkpoint_s=checkpoint_seconds,
            share=1.0 if is_last else sum(each.share for each in tried[: number + 1]),
            start=start,
            # One member tells what others of its kind are worth.
            seeds=seeds if is_last else seeds[:1],
            may_divide=candidate.may_divide,
        )
        if contest.enter(candidate, execution, is_last=is_last):
            break
    winner = contest.winner.completed(seeds)
    trained = with_neighbours(winner.surrogate, parts.train, seed)
    trained = with_intervals(trained, parts.validation)
    report = _report(winner.execution, trained, winner.record, winner.choices)
    held_out = next(
        (part for part in (parts.test, parts.validation) if part.trajectories), None
    )
    return Run(trained, winner.record.history, report, held_out)


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
    check_settling(dataset, spec.conserved)
    why = "certified: all rollouts come together, whatever the weights are"
    value = spec.nonlinear.model_dump(mode="json")
    chosen = {"what": "surrogate.nonlinear", "value": value, "why": why}
    return spec, train, [chosen, *choices]


def _report(
    execution: Execution, surrogate: Surrogate, record: Record, choices: Choices
) -> dict[str, Any]:
    parts, reporter = execution.parts, execution.reporter
    reporter.report(Progress("evaluate", message="evaluating"))
    # Rollouts from later samples are compiled anew: on one part they are enough.
    seeds = {"test" if parts.test.trajectories else "validation": execution.seed}
    metrics = {"train": _metrics(surrogate, execution.some(parts.train))} | {
        name: _metrics(surrogate, part, parts.train, seeds.get(name))
        for name, part in (("validation", parts.validation), ("test", parts.test))
    }
    held_out = metrics["test"] or metrics["validation"] or {}
    judges = {"test": parts.test, "validation": parts.validation}
    ensemble = members_report(surrogate, execution.seeds, judges)
    warm = _warm_start(execution, surrogate, held_out)
    return {
        "outcome": record.outcome,
        "choices": choices,
        **execution.identity,
        **warm,
        **({"ensemble": ensemble} if ensemble else {}),
        "split_sizes": {
            "train": parts.train.trajectories,
            "validation": parts.validation.trajectories,
            "test": parts.test.trajectories,
        },
        "inference": execution.inference,
        # Of an ensemble those of the member that learned from all training data.
        "equations": equations_of(members_of(surrogate)[0]),
        "metrics": metrics,
        "warnings": held_out.get("warnings", []),
        "certificate": _certificate(surrogate, parts, metrics, execution.identity),
        "seconds": reporter.seconds,
        "versions": _versions(),
        "platform": _platform(),
    }


def _warm_start(
    execution: Execution, surrogate: Surrogate, held_out: dict[str, Any]
) -> dict[str, Any]:
    """What came of a warm start; its warnings join those of the held-out part."""
    start, parts = execution.start, execution.parts
    if start is None:
        return {}
    judges = {"test": parts.test, "validation": parts.validation}
    found, warnings = outcome_of(start, surrogate, judges, parts.train, execution.seed)
    held_out["warnings"] = [*held_out.get("warnings", []), *warnings]
    digest = execution.identity["warm_start"]
    return {"warm_start": {"surrogate": digest, **found, "warnings": warnings}}


def _certificate(
    surrogate: Surrogate,
    parts: Parts,
    metrics: dict[str, dict[str, Any] | None],
    identity: dict[str, Any],
) -> dict[str, Any]:
    """What is proved of the surrogate, and of its error on held-out trajectories."""
    held_out = {"validation": parts.validation, "test": parts.test}
    certificate = {
        **surrogate.certificate(),
        **data_certificates(surrogate, held_out, metrics),
    }
    if identity.get("certified") and not contracts(certificate):
        raise TrainingError(
            "the trained surrogate does not contract provably: its decay is too slow "
            "for float64; raise surrogate.linear.rates.minimum"
        )
    return certificate


def _metrics(
    surrogate: Surrogate,
    part: Dataset,
    training: Dataset | None = None,
    seed: int | None = None,
) -> dict[str, Any] | None:
    if not part.trajectories:
        return None
    found = evaluate(surrogate, part, training, seed=seed)
    if not math.isfinite(found["scaled_mse"] + found["refined_scaled_mse"]):
        raise TrainingError(
            "rollouts over whole trajectories leave the finite range, though they fit "
            "over the horizon trained on: train on longer horizons, with more latent "
            "variables, or with smaller steps"
        )
    return found


def _versions() -> dict[str, str]:
    packages = ("equinox", "jax", "numpy", "optax")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def _platform() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
    }
