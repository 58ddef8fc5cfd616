"""``jobs``: what is queued, runs, and has ended."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from spnode_client.client import Client
from spnode_client.commands.job_report import print_job, state_of
from spnode_client.commands.paging import (
    After,
    Everything,
    Limit,
    Watched,
    check_watched_alone,
    listed,
)
from spnode_client.commands.rollout_file import check_file
from spnode_client.connection import connection
from spnode_client.jobs import Job
from spnode_client.moments import moment
from spnode_client.operations import jobs
from spnode_client.progress_line import done_of
from spnode_client.records import ENDED, Record
from spnode_client.results import RolloutResult
from spnode_client.terminal import (
    Json,
    UsageError,
    as_printed,
    emit,
    err,
    follow,
    out,
    print_table,
    table_of,
    watch,
)
from spnode_client.transfer import downloading

app = typer.Typer(no_args_is_help=True, help="Jobs: list, show, follow, cancel, retry.")
_COLUMNS = ("id", "kind", "state", "progress", "created", "model")
JobId = Annotated[str, typer.Argument(help="Id of the job, job_….")]


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs of this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    parent: Annotated[
        str | None, typer.Option(help="Only the candidates of this sweep.")
    ] = None,
    limit: Limit = 20,
    after: After = None,
    everything: Everything = False,
    is_watched: Watched = False,
    as_json: Json = False,
) -> None:
    """List jobs, newest first.

    Example: spnode jobs list --state running --watch
    """
    given = {"state": state, "kind": kind, "parent": parent}
    query = {name: value for name, value in given.items() if value is not None}
    if is_watched:
        check_watched_alone({"json": as_json, "after": after, "all": everything})
        _watch(limit, query)
        return
    found = listed(jobs.page, query, limit=limit, after=after, everything=everything)
    emit(found, as_json, lambda: print_table(_COLUMNS, list(map(_row, found))))


@app.command()
def show(
    job_id: JobId,
    is_watched: Annotated[
        bool, typer.Option("--watch", "-w", help="Show how it goes on, until it ends.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a job: how far it is, each attempt with its worker, and what came of it.

    With --watch, exit code 1: it ended as failed or cancelled.

    Example: spnode jobs show job_01kc… --watch
    """
    if is_watched:
        check_watched_alone({"json": as_json})
        _watch_one(job_id)
        return
    job = connection.client().jobs.get(job_id)
    events = [] if as_json else job.past_events()
    emit(job, as_json, lambda: print_job(job.record, events))


@app.command("follow")
def follow_job(job_id: JobId, as_json: Json = False) -> None:
    """Watch a job until it ends.

    Example: spnode jobs follow job_01kc…
    """
    made = follow(connection.client().jobs.get(job_id), quiet=as_json)
    said = str(getattr(made, "id", made))
    emit(made, as_json, lambda: out.print(said, markup=False))


@app.command("result")
def fetch_result(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", help="An .npz file for all rows."),
    ] = None,
    delete: Annotated[
        bool, typer.Option(help="Delete it from the service afterwards.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a rollout job made, or write it to a file, a chunk at a time.

    Example: spnode jobs result job_01kc… --output rows.npz
    """
    client = connection.client()
    made = client.jobs.get(job_id).result()
    if not isinstance(made, RolloutResult):
        raise UsageError(f"job {job_id} is no rollout job; `jobs show` has its result")
    if output is not None:
        write_result(client, made, output, quiet=as_json)
    if delete:
        made.delete()
    emit(made, as_json, lambda: _describe(made))


@app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Ask a job to end; a training's checkpoint is kept for a retry.

    Example: spnode jobs cancel job_01kc…
    """
    _say(connection.client().jobs.cancel(job_id), as_json)


@app.command()
def retry(job_id: JobId, as_json: Json = False) -> None:
    """Queue a failed or cancelled job again.

    Example: spnode jobs retry job_01kc…
    """
    _say(connection.client().jobs.retry(job_id), as_json)


def write_result(
    client: Client, made: RolloutResult, path: Path, *, quiet: bool
) -> None:
    """Write a result to an npz file, a chunk at a time."""
    check_file(path, "--output", (".npz",))
    with downloading(client, path.name, quiet):
        made.save(path)
    err.print(f"wrote {path}", markup=False)


def _describe(made: RolloutResult) -> None:
    record = made.record
    out.print(
        f"{record['model']}/{record['version']}  {' x '.join(map(str, made.shape))} "
        f"(rows, times, states)  {record['size_bytes'] / 2**20:.1f} MiB in "
        f"{len(record['chunks'])} chunks, kept until {moment(record['expires_at'])}",
        markup=False,
    )
    if made.failed or record["outside"]:
        out.print(
            f"{made.failed} rows left the finite range, {record['outside']} lie "
            "outside the training domain"
        )


def _say(job: Job, as_json: bool) -> None:
    said = f"{job.id} {state_of(job.record)}"
    emit(job, as_json, lambda: out.print(said, markup=False))


def _watch(limit: int, query: Record) -> None:
    newest = connection.client().jobs

    def draw() -> Table:
        found = newest.list(limit, **query)
        return table_of(_COLUMNS, [_row(job.record) for job in found])

    watch(draw)


def _watch_one(job_id: str) -> None:
    job = connection.client().jobs.get(job_id)

    def draw() -> RenderableType:
        job.refresh()
        events = job.past_events()
        return as_printed(lambda: print_job(job.record, events))

    watch(draw, is_over=lambda: job.state in ENDED)
    if job.state != "succeeded" and job.state in ENDED:
        raise typer.Exit(1)


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    progress = record.get("progress") or {}
    done, total = done_of(progress)
    return (
        record["id"],
        record["kind"],
        record["state"],
        f"{done}/{total}" if total else progress.get("stage", ""),
        moment(record.get("created_at")),
        (record.get("request") or {}).get("model", ""),
    )
