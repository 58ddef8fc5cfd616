"""The work of an evaluation job, in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.evaluation.request import PlannedEvaluation
from services.job_files import ANY_SIZE, DATASET, STORE
from services.versions import ARTIFACTS
from spnode_core.artifact import load
from spnode_core.comparison import compare
from spnode_core.dataset import Dataset, load_dataset

Report = Callable[[dict[str, Any]], None]


def run_evaluation(
    job: PlannedEvaluation, folder: Path, *, report: Report
) -> dict[str, Any]:
    """Roll the versions of a job out on the same trajectories.

    Args:
        job: What to compare, and on which part of its dataset.
        folder: Holds the dataset and the artifacts.
        report: Told what is being done.

    Returns:
        The result as the job's row keeps it; JSON.

    Raises:
        InvalidInput: A version does not take what the dataset has.
    """
    report({"type": "progress", "stage": "load", "message": "loading the versions"})
    artifacts = folder / STORE / ARTIFACTS
    surrogates = {
        str(each): load(artifacts / each.digest, digest=each.digest)
        for each in job.versions
    }
    held_out, training = _parts(
        job, load_dataset(folder / DATASET, limit_bytes=ANY_SIZE)
    )
    message = f"rolling out {len(surrogates)} versions"
    report({"type": "progress", "stage": "evaluate", "message": message})
    found = compare(surrogates, held_out, training, seed=job.seed)
    split = job.split and job.split.model_dump(mode="json")
    return {
        "dataset": job.dataset,
        "part": job.part,
        "split": split,
        "split_seed": job.split_seed,
        "warnings": job.warnings,
        "versions": [each.model_dump(mode="json") for each in job.versions],
        **found,
    }


def _parts(job: PlannedEvaluation, dataset: Dataset) -> tuple[Dataset, Dataset | None]:
    """The trajectories to compare on, and those that trivial models know."""
    if job.split is None or job.split_seed is None:
        return dataset, None
    training, _, test = dataset.split(job.split, job.split_seed)
    return test, training
