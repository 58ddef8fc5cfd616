"""The work of a sweep when its candidates have ended: rank them on the same data.

Where it is asked for, the best of them are joined into one ensemble, as ``artifact``.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.errors import Conflict
from services.job_files import ANY_SIZE, CANDIDATES, DATASET, STORE
from services.sweeps.candidates import Outcome
from services.sweeps.request import PlannedSweep, in_words
from services.training.run import finite, keep
from services.versions import ARTIFACTS
from spnode_core.artifact import load, read_card
from spnode_core.comparison import judge
from spnode_core.dataset import Dataset, load_dataset
from spnode_core.errors import TrainingError
from spnode_core.surrogate import Surrogate
from spnode_core.training.fit import Run
from spnode_core.training.joining import join, joinable

Report = Callable[[dict[str, Any]], None]
_ENSEMBLE = "ensemble"
_SHARED = ("preset", "surrogate", "training", "certified")


def run_sweep(
    job: PlannedSweep, folder: Path, *, job_id: str, report: Report
) -> dict[str, Any]:
    """Rank the candidates of a sweep by their error on the validation part.

    Args:
        job: The sweep.
        folder: Holds the dataset, what became of the candidates, and the artifacts of
            those that succeeded.
        job_id: Named in the card of an ensemble.
        report: Told what is being done.

    Returns:
        The result as the job's row keeps it; JSON. ``ranking`` has the best first and
        those without a version last. ``ensemble`` is None where fewer than two can be
        joined, for which ``warnings`` has the reason; with one there is ``made`` too,
        which is not kept in the row: what the registry keeps beside the artifact.

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
    dataset = load_dataset(folder / DATASET, limit_bytes=ANY_SIZE)
    found = _judged(job, surrogates, dataset)
    ranking = _ranking(outcomes, found)
    best = ranking[0]
    if best["validation"] is None:
        detail = "no candidate stays finite on the validation part"
        raise Conflict(detail, code="no_candidate_is_finite")
    result = {
        "model": job.model,
        "best": best["version"],
        "digest": best["digest"],
        "dataset": job.dataset,
        "split": job.split.model_dump(mode="json"),
        "trajectories": {part: each["trajectories"] for part, each in found.items()},
        "scalings": found["validation"]["scalings"],
        "ranking": ranking,
        "ensemble": None,
        "warnings": [],
    }
    if job.ensemble is None:
        return result
    rows = [row for row in ranking if row["validation"] is not None]
    places = joinable([surrogates[row["job"]] for row in rows], job.ensemble)
    members = [rows[place] for place in places]
    if len(members) < job.ensemble:
        result["warnings"] = [_fewer(job.ensemble, members, rows, ranking)]
        said = {"type": "log", "level": "warning", "message": result["warnings"][0]}
        report({**said, "data": None})
    if len(members) < 2:
        return result
    message = f"joining {len(members)} candidates of one description"
    report({"type": "progress", "stage": "join", "message": message})
    cards = [read_card(artifacts / row["digest"]) for row in members]
    is_certified = all(card.get("certified") for card in cards)
    try:
        run = join(
            [surrogates[row["job"]] for row in members],
            dataset,
            split=job.split,
            seed=job.split_seed,
            seeds=[card["seed"] for card in cards],
            certified=is_certified,
        )
    except TrainingError as error:
        result["warnings"].append(f"no ensemble of {len(members)}: {error}")
        return result
    again = _judged(job, {_ENSEMBLE: run.surrogate}, dataset, found)
    card = _card(job, job_id, members, run, cards)
    made = keep(run, card, folder, report=report)
    joined = {
        "digest": made["digest"],
        "members": [row["version"] for row in members],
        **_errors(again, _ENSEMBLE),
    }
    return {**result, "ensemble": joined, "made": made}


def _judged(
    job: PlannedSweep,
    surrogates: dict[str, Surrogate],
    dataset: Dataset,
    before: dict[str, dict[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """What is measured on each part that is not empty, in the scalings of before."""
    _, *held_out = dataset.split(job.split, job.split_seed)
    return {
        part: judge(
            surrogates,
            each,
            seed=job.split_seed,
            scalings=before[part]["scalings"] if before else None,
        )
        for part, each in zip(("validation", "test"), held_out, strict=True)
        if each.trajectories
    }


def _errors(found: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Errors of a surrogate by part; None where it has none."""
    return {
        part: found[part]["surrogates"].get(name, {}).get("error")
        if part in found
        else None
        for part in ("validation", "test")
    }


def _card(
    job: PlannedSweep,
    job_id: str,
    members: list[dict[str, Any]],
    run: Run,
    cards: list[dict[str, Any]],
) -> dict[str, Any]:
    """What was measured of all members, and what each of them is.

    Of the members' own settings those stand there that all of them have.
    """
    named = ("version", "job", "digest", "settings", "validation", "test")
    shared = {
        name: cards[0][name]
        for name in _SHARED
        if all(card.get(name) == cards[0].get(name) for card in cards)
        and name in cards[0]
    }
    return {
        **shared,
        **finite(run.report),
        "model": job.model,
        "job": job_id,
        "dataset": cards[0]["dataset"],
        # What divided the data: of an evaluation on its test part.
        "split": job.split.model_dump(mode="json"),
        "seed": job.split_seed,
        "tags": job.tags,
        "history": [],
        "seconds": sum(row["seconds"] or 0.0 for row in members),
        "joined": [{name: row[name] for name in named} for row in members],
    }


def _ranking(
    outcomes: list[Outcome], found: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row for each candidate; those of equal errors in the order of the request."""
    rows = [{**each.record(), **_errors(found, each.job)} for each in outcomes]

    def place(row: dict[str, Any]) -> tuple[bool, float]:
        error = row["validation"]
        return row["digest"] is None, math.inf if error is None else error

    return sorted(rows, key=place)


def _fewer(
    asked: int,
    members: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    ranking: list[dict[str, Any]],
) -> str:
    """Why not as many were joined as were asked for, and what helps."""
    left = len(rows) - len(members)
    why = []
    if left:
        why.append(
            f"{'1 other is' if left == 1 else f'{left} others are'} of another "
            "description or of other steps than version "
            f"{members[0]['version']}, which is best, or the same surrogate once more, "
            "as least squares make of any seed"
        )
    if unfit := len(ranking) - len(rows):
        why.append(
            f"{unfit} did not succeed or do not stay finite; a retry of those that "
            "failed, then of the sweep, may help"
        )
    many = f"{len(members)} joined" if len(members) > 1 else "no ensemble was made"
    return f"{many}, where {asked} were asked for: {'; '.join(why)}"


def _none(outcomes: list[Outcome]) -> str:
    """Why there is nothing to rank, one candidate after the other."""
    said = [
        f"{each.job} ({in_words(each.settings)}): "
        f"{each.error['detail'] if each.error else each.state}"
        for each in outcomes
    ]
    return f"none of {len(said)} candidates succeeded; {'; '.join(said)}"
