"""The work of a sweep when its candidates have ended: rank them on the same data."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.errors import Conflict
from services.job_files import CANDIDATES, DATASET, STORE
from services.sweeps.candidates import Outcome
from services.sweeps.request import PlannedSweep, in_words
from services.versions import ARTIFACTS
from spnode_core.artifact import load
from spnode_core.comparison import judge
from spnode_core.dataset import load_dataset

Report = Callable[[dict[str, Any]], None]


def run_sweep(job: PlannedSweep, folder: Path, *, report: Report) -> dict[str, Any]:
    """Rank the candidates of a sweep by their error on the validation part.

    Args:
        job: The sweep.
        folder: Holds the dataset, what became of the candidates, and the artifacts of
            those that succeeded.
        report: Told what is being done.

    Returns:
        The result as the job's row keeps it; JSON. ``ranking`` has the best first and
        those without a version last.

    Raises:
        Conflict: No candidate succeeded, or none stays finite: why, one by one.
    """
    told = json.loads((folder / CANDIDATES).read_text())
    outcomes = [Outcome(**each) for each in told]
    trained = {each.job: each for each in outcomes if each.digest is not None}
    if not trained:
        raise Conflict(_none(outcomes), code="no_candidate_succeeded")
    message = f"ranking {len(trained)} of {len(outcomes)} candidates"
    report({"type": "progress", "stage": "rank", "message": message})
    artifacts = folder / STORE / ARTIFACTS
    surrogates = {
        id: load(artifacts / each.digest, digest=each.digest)
        for id, each in trained.items()
        if each.digest is not None
    }
    _, *held_out = load_dataset(folder / DATASET).split(job.split, job.split_seed)
    found = {
        part: judge(surrogates, dataset, seed=job.split_seed)
        for part, dataset in zip(("validation", "test"), held_out, strict=True)
        if dataset.trajectories
    }
    ranking = _ranking(outcomes, found)
    best = ranking[0]
    if best["validation"] is None:
        detail = "no candidate stays finite on the validation part"
        raise Conflict(detail, code="no_candidate_is_finite")
    return {
        "model": job.model,
        "best": best["version"],
        "digest": best["digest"],
        "dataset": job.dataset,
        "split": job.split.model_dump(mode="json"),
        "trajectories": {part: each["trajectories"] for part, each in found.items()},
        "scalings": found["validation"]["scalings"],
        "ranking": ranking,
    }


def _ranking(
    outcomes: list[Outcome], found: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row for each candidate; those of equal errors in the order of the request."""
    rows = []
    for each in outcomes:
        errors = {
            part: found[part]["surrogates"].get(each.job, {}).get("error")
            if part in found
            else None
            for part in ("validation", "test")
        }
        rows.append({**each.record(), **errors})

    def place(row: dict[str, Any]) -> tuple[bool, float]:
        error = row["validation"]
        return row["digest"] is None, math.inf if error is None else error

    return sorted(rows, key=place)


def _none(outcomes: list[Outcome]) -> str:
    """Why there is nothing to rank, one candidate after the other."""
    said = [
        f"{each.job} ({in_words(each.settings)}): "
        f"{each.error['detail'] if each.error else each.state}"
        for each in outcomes
    ]
    return f"none of {len(said)} candidates succeeded; {'; '.join(said)}"
