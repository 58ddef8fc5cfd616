"""A sweep in its worker: what it needs of its candidates, and how it ends.

It holds no worker while they train. Who ends the last of them sends it; before that no
worker can claim it.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.claims import Claim
from services.errors import NotFound, ServiceError, Unavailable, as_dict
from services.job_files import CANDIDATES
from services.lifecycle import TERMINAL
from services.sweeps.candidates import Outcome
from worker.chunks import fetch_artifact
from worker.context import Context
from worker.publishing import publish_version

log = logging.getLogger("spnode.worker")


def send_ready(context: Context) -> None:
    """Send the sweeps whose candidates have all ended."""
    for queue, id in context.unsent.take_ready():
        log.info("job %s: its candidates have ended", id)
        if not context.queue.send_job(queue, id):
            return


def candidate_ended(context: Context, sweep: str) -> None:
    """Tell a sweep how far it is, and send it where this candidate was the last.

    What fails here is made good by the housekeeping.
    """
    try:
        context.candidates.note(sweep)
        send_ready(context)
    except ServiceError as error:
        log.warning("job %s: %s", sweep, error)


def fetch_candidates(
    context: Context, claim: Claim, folder: Path, check: Callable[[], None]
) -> None:
    """Bring what became of the candidates, and their artifacts, into the folder.

    A version that was deleted meanwhile is one that did not succeed.

    Raises:
        Damaged: One of them is damaged.
        Unavailable: Some go on: they were queued again just when this was claimed.
    """
    found = []
    outcomes = context.candidates.outcomes(claim.job)
    if going := [each.job for each in outcomes if each.state not in TERMINAL]:
        raise Unavailable(f"{len(going)} candidates go on, {going[0]} first")
    for each in outcomes:
        check()
        found.append(_fetched(context, each, folder).record())
    (folder / CANDIDATES).write_text(json.dumps(found))


def publish_ranking(
    context: Context, claim: Claim, folder: Path, outcome: dict[str, Any]
) -> None:
    """Give the best version its aliases and end the sweep with the ranking.

    An ensemble, where one was made, is published first and gets them instead; it holds
    all that its members were, whether their versions are still there or not.

    Raises:
        LeaseLost: The job is another's; nothing was moved.
        MustEnd: The caller cancelled first, or time was up; nothing was moved.
        NotFound: The best version, without an ensemble, was deleted meanwhile.
    """
    result = {name: value for name, value in outcome.items() if name != "made"}
    best, job = outcome["best"], claim.job
    message = f"version {best} of {outcome['model']} is best"

    def end(connection: sa.Connection, number: int, digest: str) -> None:
        ensemble = {**outcome["ensemble"], "version": number, "digest": digest}
        reason = f"ensemble of sweep {job.id}"
        aliases = context.candidates.promote(connection, job, number, reason)
        joined = f"{message}; version {number} joins {len(ensemble['members'])}"
        ended = {**result, "ensemble": ensemble, "aliases": aliases}
        context.leases.succeed(connection, claim, ended, joined)

    if outcome.get("made") is not None:
        made = outcome["made"]
        publish_version(context, claim, folder, made, end, is_candidate=True)
        return
    with context.database.transaction() as connection:
        context.leases.guard(connection, claim)
        reason = f"best of sweep {job.id}"
        aliases = context.candidates.promote(connection, job, best, reason)
        ended = {**result, "aliases": aliases}
        context.leases.succeed(connection, claim, ended, message)


def _fetched(context: Context, outcome: Outcome, folder: Path) -> Outcome:
    if outcome.digest is None:
        return outcome
    try:
        fetch_artifact(context, outcome.digest, folder)
    except NotFound as error:
        return replace(outcome, version=None, digest=None, error=as_dict(error))
    return outcome
