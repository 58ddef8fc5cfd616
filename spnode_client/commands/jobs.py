"""``jobs``: what is queued, runs, and has ended."""

from typing import Annotated, Any

import typer

from spnode_client.client import Job
from spnode_client.connection import connection
from spnode_client.terminal import Json, emit, follow, out, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Jobs: list, show, follow, cancel, retry.")
JobId = Annotated[str, typer.Argument(help="Id of the job, job_….")]


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs of this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first.

    Example: spnode jobs list --state running
    """
    query = {k: v for k, v in {"state": state, "kind": kind}.items() if v is not None}
    found = connection.client().jobs.list(limit, **query)
    emit([job.record for job in found], as_json, lambda: _table(found))


@app.command()
def show(job_id: JobId, as_json: Json = False) -> None:
    """Show all of a job.

    Example: spnode jobs show job_01kc…
    """
    del as_json  # the record is JSON in both cases
    print_json(connection.client().jobs.get(job_id))


@app.command("follow")
def follow_job(job_id: JobId, as_json: Json = False) -> None:
    """Watch a job until it ends.

    Example: spnode jobs follow job_01kc…
    """
    made = follow(connection.client().jobs.get(job_id), quiet=as_json)
    emit(made, as_json, lambda: out.print(str(getattr(made, "id", made))))


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


def _say(job: Job, as_json: bool) -> None:
    emit(job, as_json, lambda: out.print(f"{job.id} {job.state}"))


def _table(found: list[Job]) -> None:
    columns = ("id", "kind", "state", "progress", "created", "model")
    print_table(columns, [_row(job.record) for job in found])


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    progress = record.get("progress") or {}
    done, total = progress.get("iteration"), progress.get("iterations")
    return (
        record["id"],
        record["kind"],
        record["state"],
        f"{done}/{total}" if total else progress.get("stage", ""),
        record.get("created_at", ""),
        (record.get("request") or {}).get("model", ""),
    )
