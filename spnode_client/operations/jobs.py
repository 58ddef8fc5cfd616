"""Operations on jobs: ``/v1/jobs``."""

import time
from collections.abc import Callable
from typing import Any

from spnode_client.calibrations import Calibration
from spnode_client.calls import (
    Call,
    Operation,
    Pause,
    is_passing,
    json_call,
    once,
    perform,
)
from spnode_client.comparisons import Comparison
from spnode_client.errors import JobFailed, Overloaded, ServiceFault, Unreachable
from spnode_client.operations import datasets, models, results
from spnode_client.records import ENDED, Record
from spnode_client.sweeps import Ranking

LONG_POLL_S = 20
WATCHED_POLL_S = 1
"""Where somebody looks at the progress."""
# What a slow answer may take beyond the time that a caller waits for a job.
_PATIENCE_S = 2.0
_AGAIN_S = 1.0


def submit(request: Record, retries: int) -> Operation[Record]:
    """Queue a job; a retry of this call never queues a second one."""
    reply = yield from perform(once(json_call("POST", "/v1/jobs", request)), retries)
    return reply.json()


def validate(request: Record, retries: int) -> Operation[Record]:
    """Check a request and queue nothing."""
    call = json_call("POST", "/v1/jobs", request, query={"validate_only": "true"})
    reply = yield from perform(call, retries)
    return reply.json()


def get(
    job_id: str, wait_s: float | None, retries: int, *, until: float | None = None
) -> Operation[Record]:
    """A job's record, at once or when it changes within ``wait_s`` seconds.

    Args:
        job_id: The job.
        wait_s: How long the service may wait for a change.
        retries: How often more it may be asked.
        until: ``time.monotonic()`` after which nobody waits for the answer, a few
            seconds for a slow one beside.
    """
    query = {} if wait_s is None else {"wait": f"{wait_s:g}"}
    most_s = None
    if until is not None:
        most_s = max(until - time.monotonic(), 0.0) + _PATIENCE_S
    call = Call("GET", f"/v1/jobs/{job_id}", query, timeout_s=wait_s, most_s=most_s)
    reply = yield from perform(call, retries, until=until)
    return reply.json()


def workers(retries: int) -> Operation[dict[str, int]]:
    """How many workers live for each queue."""
    reply = yield from perform(Call("GET", "/health/ready"), retries)
    return reply.json()["workers"]


def page(query: Record, retries: int) -> Operation[Record]:
    """One page of jobs, newest first, as the service gives it."""
    reply = yield from perform(Call("GET", "/v1/jobs", query), retries)
    return reply.json()


def act(job_id: str, action: str, retries: int) -> Operation[Record]:
    """Cancel or retry a job."""
    call = once(Call("POST", f"/v1/jobs/{job_id}/{action}"))
    reply = yield from perform(call, retries)
    return reply.json()


def wait(
    job_id: str,
    timeout_s: float | None,
    on_record: Callable[[Record], None] | None,
    retries: int,
    patience_s: float,
) -> Operation[Record]:
    """Wait until the job ended; give its record.

    Args:
        job_id: The job.
        timeout_s: How long to wait, or None for as long as it takes.
        on_record: Told each record.
        retries: How often more each request may be asked.
        patience_s: Without ``timeout_s``, how long nothing may be heard.

    Raises:
        JobFailed: It ended as failed or cancelled.
        TimeoutError: It had not ended after ``timeout_s`` seconds; it goes on.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    poll = LONG_POLL_S if on_record is None else WATCHED_POLL_S
    lost_at: float | None = None
    while True:
        left = poll if end is None else end - time.monotonic()
        wait_s = max(0.0, min(poll, left))
        try:
            record = yield from get(job_id, wait_s, retries, until=end)
        except (Unreachable, Overloaded, ServiceFault) as error:
            if end is None and not is_passing(error):
                raise
            now = time.monotonic()
            lost_at = now if lost_at is None else lost_at
            pause = max(_AGAIN_S, getattr(error, "retry_after", None) or 0.0)
            if now + pause < (lost_at + patience_s if end is None else end):
                # A gateway that starts anew is away for longer than retries last.
                yield Pause(pause)
                continue
            if end is None:
                raise
            text = f"nothing was heard of job {job_id} in {timeout_s:g} s: {error}"
            raise TimeoutError(text) from error
        lost_at = None
        if on_record is not None:
            on_record(record)
        if record["state"] in ENDED:
            break
        if end is not None and time.monotonic() >= end:
            raise TimeoutError(f"job {job_id} is still {record['state']}")
        yield Pause(0.05)
    if record["state"] != "succeeded":
        raise JobFailed(record)
    return record


def training_request(dataset: Any, model: str, options: Record) -> Record:
    """The body of a training job; options left at None are the service's choice."""
    dataset_id = dataset if isinstance(dataset, str) else dataset.id
    chosen = {name: value for name, value in options.items() if value is not None}
    if "warm_start" in chosen:
        # A version is written like its reference.
        chosen["warm_start"] = str(chosen["warm_start"])
    return {"kind": "training", "dataset": dataset_id, "model": model, **chosen}


def events_call(job_id: str, last_id: str | None) -> Call:
    """The event stream of a job, from after ``last_id``."""
    headers = {"accept": "text/event-stream"}
    if last_id:
        headers["last-event-id"] = last_id
    return Call("GET", f"/v1/jobs/{job_id}/events", headers=headers)


def result(record: Record, retries: int) -> Operation[Any]:
    """What a job made: a version, a dataset, an index of rows, estimates, errors."""
    made = record.get("result") or {}
    if record.get("kind") == "training":
        reference = f"{made['model']}/{made['version']}"
        return (yield from models.version(reference, retries))
    if record.get("kind") == "dataset":
        return (yield from datasets.get(made["dataset"], retries))
    if record.get("kind") == "rollout":
        return (yield from results.index(record["id"], retries))
    if record.get("kind") == "calibration":
        return Calibration.of(made)
    if record.get("kind") == "evaluation" and made:
        return Comparison.of(made)
    if record.get("kind") == "sweep" and made:
        return Ranking.of(made)
    return made
