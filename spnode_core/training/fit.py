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

from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.metrics import evaluate
from spnode_core.spec import Preset, SplitSpec, SurrogateSpec, TrainingSpec
from spnode_core.surrogate import Surrogate, require_x64
from spnode_core.training.execution import Execution, Parts
from spnode_core.training.presets import Choices, resolve
from spnode_core.training.progress import (
    Progress,
    Reporter,
    Stopped,
    progress_line,
)
from spnode_core.training.stage_checks import check_stages
from spnode_core.training.stages import Record

__all__ = ["Progress", "Run", "Stopped", "fit"]


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of ``fit``.

    Args:
        surrogate: The trained surrogate.
        history: Losses by stage and iteration.
        report: What was chosen, done and measured; JSON.
    """

    surrogate: Surrogate
    history: list[dict[str, Any]]
    report: dict[str, Any]


def fit(
    dataset: Dataset,
    surrogate: SurrogateSpec | None = None,
    training: TrainingSpec | None = None,
    *,
    preset: Preset = "auto",
    split: SplitSpec | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
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
        on_progress: Called a few times a second at most; on a terminal a line of
            progress is shown by default.
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
    split = split or SplitSpec()
    parts = Parts(*dataset.split(split, seed))
    spec, train, choices = resolve(parts.train, surrogate, training, preset)
    check_stages(spec, train)
    reporter = Reporter(on_progress or progress_line(), should_stop, train.max_seconds)
    message = f"{parts.train.trajectories} trajectories"
    reporter.report(Progress("data", message=message))
    execution = Execution(
        parts,
        spec,
        train,
        seed,
        reporter,
        identity={
            "dataset": dataset.digest,
            "surrogate": spec.model_dump(mode="json"),
            "training": train.model_dump(mode="json"),
            "split": split.model_dump(mode="json"),
            "seed": seed,
        },
        path=Path(checkpoint) if checkpoint is not None else None,
        checkpoint_s=checkpoint_seconds,
    )
    trained, record = execution.run()
    report = _report(execution, trained, record, choices)
    return Run(trained, record.history, report)


def _report(
    execution: Execution, surrogate: Surrogate, record: Record, choices: Choices
) -> dict[str, Any]:
    parts, reporter = execution.parts, execution.reporter
    reporter.report(Progress("evaluate", message="evaluating"))
    metrics = {
        "train": _metrics(surrogate, execution.some(parts.train)),
        "validation": _metrics(surrogate, parts.validation),
        "test": _metrics(surrogate, parts.test),
    }
    return {
        "outcome": record.outcome,
        "choices": choices,
        **execution.identity,
        "split_sizes": {
            "train": parts.train.trajectories,
            "validation": parts.validation.trajectories,
            "test": parts.test.trajectories,
        },
        "inference": execution.inference,
        "metrics": metrics,
        "certificate": surrogate.certificate(),
        "seconds": reporter.seconds,
        "versions": _versions(),
        "platform": _platform(),
    }


def _metrics(surrogate: Surrogate, part: Dataset) -> dict[str, Any] | None:
    if not part.trajectories:
        return None
    found = evaluate(surrogate, part)
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
