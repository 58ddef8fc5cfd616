"""The work of a job, done in a process of its own: train, or make a dataset.

Everything goes through a folder: ``dataset.npz`` and ``checkpoint`` in, ``artifact`` or
``dataset.npz`` out. What happens is told through ``report``; the caller publishes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.job_files import ANY_SIZE, ARTIFACT, CHECKPOINT, DATASET, STORE
from services.training.plan import PlannedTraining
from services.training.request import DatasetRequest, TrainingRequest
from services.versions import ARTIFACTS
from spnode_core.artifact import load, read_card, save
from spnode_core.data_report import summarise
from spnode_core.dataset import Dataset, load_dataset, save_dataset
from spnode_core.errors import InvalidInput, counted
from spnode_core.plots import draw_training
from spnode_core.surrogate import Surrogate
from spnode_core.systems import generate
from spnode_core.training.fit import Progress, Run, fit
from spnode_core.training.presets import Choices

Report = Callable[[dict[str, Any]], None]
"""Takes ``{"type": "progress" | "metrics" | "log", …}``."""


def run_training(
    request: TrainingRequest,
    folder: Path,
    *,
    job_id: str,
    report: Report,
    should_stop: Callable[[], str | None],
    checkpoint_seconds: float = 10.0,
) -> dict[str, Any]:
    """Train as a request says, on a folder's dataset; write the artifact there.

    Args:
        request: What to train.
        folder: Holds ``dataset.npz``, the artifact of the parent where there is one
            and, of an earlier attempt, ``checkpoint``.
        job_id: Named in the card.
        report: Told the choices of the preset, then the progress.
        should_stop: Asked about once a second; a reason ends the run.
        checkpoint_seconds: Time between two checkpoints, at least.

    Returns:
        What the registry keeps beside the artifact: digest, signature, spec, card,
        evaluation, certificate; JSON.

    Raises:
        Stopped: ``should_stop`` gave a reason; the checkpoint is written.
        InvalidInput: The request does not fit the data.
        TrainingError: No usable surrogate came out.
    """
    dataset = load_dataset(folder / DATASET, limit_bytes=ANY_SIZE)
    training = functools.partial(
        fit,
        dataset,
        request.surrogate,
        request.training,
        preset=request.preset,
        split=request.split,
        seed=request.seed,
        certified=request.certified,
        members=request.members,
        warm_start=_parent(request, folder),
        on_progress=lambda progress: report(_as_message(progress)),
        on_choices=lambda choices: _report_choices(choices, request.preset, report),
        should_stop=should_stop,
        checkpoint=folder / CHECKPOINT,
        checkpoint_seconds=checkpoint_seconds,
    )
    run = _fit(training, folder / CHECKPOINT, report)
    for point in run.history[-1:]:
        # Progress is passed on now and then; the last losses must not be missing.
        report({"type": "metrics", "point": finite(point)})
    return keep(run, _card(request, job_id, dataset, run), folder, report=report)


def keep(
    run: Run, card: dict[str, Any], folder: Path, *, report: Report
) -> dict[str, Any]:
    """Write the artifact of a run, with its card and pictures, into a folder.

    Returns:
        What the registry keeps beside it: digest, signature, spec, card, evaluation,
        certificate; JSON.
    """
    plots = _draw(run, report)
    digest = save(run.surrogate, folder / ARTIFACT, card=card, plots=plots)
    card = read_card(folder / ARTIFACT)
    return {
        "digest": digest,
        "signature": run.surrogate.signature.model_dump(mode="json"),
        "spec": run.surrogate.spec.model_dump(mode="json"),
        "card": card,
        "evaluation": card["metrics"],
        "certificate": card["certificate"],
    }


def run_dataset(
    request: DatasetRequest, folder: Path, *, report: Report
) -> dict[str, Any]:
    """Make the dataset that a request describes, as ``dataset.npz`` in a folder.

    Returns:
        Its summary; JSON.

    Raises:
        InvalidInput: The system has no such dataset.
    """
    count = counted(request.trajectories, "trajectory", "trajectories")
    message = f"solving {count} of {request.system}"
    report({"type": "progress", "stage": "data", "message": message})
    dataset = generate(request.system, request.trajectories, request.seed)
    save_dataset(dataset, folder / DATASET)
    return {"summary": finite(summarise(dataset)), "name": request.name}


def finite(value: Any) -> Any:
    """Return a value for JSON: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _parent(request: TrainingRequest, folder: Path) -> Surrogate | None:
    if not isinstance(request, PlannedTraining):
        return None
    digest = request.parent.digest
    return load(folder / STORE / ARTIFACTS / digest, digest=digest)


def _card(
    request: TrainingRequest, job_id: str, dataset: Dataset, run: Run
) -> dict[str, Any]:
    """What people want to know of a version: where it comes from, how good it is."""
    parent = {}
    if isinstance(request, PlannedTraining):
        parent = {"parent": request.parent.model_dump(mode="json")}
    return {
        **finite(run.report),
        "model": request.model,
        "job": job_id,
        "dataset": {"id": request.dataset, "digest": dataset.digest},
        "tags": request.tags,
        "preset": request.preset,
        "history": finite(run.history),
        **parent,
    }


def _draw(run: Run, report: Report) -> dict[str, bytes]:
    """Pictures for the card; a training is not lost for want of them."""
    try:
        return draw_training(run)
    except Exception as error:
        message = f"no pictures: {type(error).__name__}: {error}"
        report({"type": "log", "level": "warning", "message": message, "data": None})
        return {}


def _report_choices(choices: Choices, preset: str, report: Report) -> None:
    message = f"preset {preset} chose {len(choices)} settings from the data"
    data = {"choices": finite(choices)}
    report({"type": "log", "level": "info", "message": message, "data": data})


def _as_message(progress: Progress) -> dict[str, Any]:
    return {"type": "progress", **finite(dataclasses.asdict(progress))}


def _fit(run: Callable[[], Run], checkpoint: Path, report: Report) -> Run:
    """Run, and once more from the start where the checkpoint does not fit."""
    try:
        return run()
    except InvalidInput as error:
        if error.field != "checkpoint":
            raise
        # Of an older version, or damaged: the attempt starts anew rather than fail.
        checkpoint.unlink(missing_ok=True)
        message = f"starting anew: {error}"
        report({"type": "log", "level": "warning", "message": message, "data": None})
        return run()
