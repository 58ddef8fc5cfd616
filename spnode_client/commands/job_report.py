"""A job as a person reads it: how far it is, each attempt, what came of it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from spnode_client.moments import moment, span
from spnode_client.progress_line import (
    candidates_done,
    done_of,
    fraction_of,
    rows_done,
    time_left,
)
from spnode_client.records import ENDED, Event, Record
from spnode_client.terminal import out, print_facts, print_table, short

_ASKED = ("model", "models", "dataset", "system", "preset", "seed", "part")
"""What a request is known by; the rest is in ``--json``."""
_LONG = 60
"""More characters of a value are left out."""


@dataclass
class Attempt:
    """One time that a worker took a job."""

    number: int | None
    worker: str
    started_at: str
    ended_at: str = ""
    outcome: str = ""
    """The state that the job went to; empty while it runs."""
    reason: str = ""


def attempts_of(events: Iterable[Event]) -> list[Attempt]:
    """The attempts that a job's log tells of, oldest first."""
    found: list[Attempt] = []
    for event in events:
        data = event.data.get("data") or {}
        state, at = data.get("state"), str(event.data.get("created_at") or "")
        if event.kind != "status" or state is None:
            continue
        if state == "running":
            found.append(
                Attempt(data.get("attempt"), str(data.get("worker") or ""), at)
            )
        elif found and not found[-1].outcome:
            last = found[-1]
            last.ended_at, last.outcome = at, str(state)
            last.reason = _reason(event.data.get("message"), data)
    return found


def print_job(record: Record, events: Iterable[Event]) -> None:
    """State, times and progress, then attempts, result and error.

    Args:
        record: The job's.
        events: Its log.
    """
    events = list(events)
    # How long it waited is not known of one that was queued again.
    is_again = any("retried_after" in (each.data.get("data") or {}) for each in events)
    times = _times(record, is_again=is_again)
    facts = (*_identity(record), *times, ("progress", _progress(record)))
    print_facts((name, said) for name, said in facts if said)
    attempts = attempts_of(events)
    if attempts:
        out.print()
        _print_attempts(attempts)
    result = record.get("result")
    if isinstance(result, dict) and result:
        out.print()
        print_facts(_result(record, result))
    error = record.get("error")
    if isinstance(error, dict) and error:
        out.print()
        out.print(_error(error), markup=False)


def state_of(record: Record) -> str:
    """The state of a job, and whether cancelling it is under way."""
    state = str(record.get("state", ""))
    is_ending = record.get("cancel_requested") and state not in ENDED
    return f"{state}, cancelling was asked for" if is_ending else state


def _identity(record: Record) -> Iterator[tuple[str, str]]:
    yield "job", str(record.get("id", ""))
    yield "kind", str(record.get("kind", ""))
    yield "state", state_of(record)
    yield "candidate of", str(record.get("parent") or "")
    request = record.get("request") or {}
    for name in _ASKED:
        yield name, _told(request.get(name))
    yield "project", str(record.get("project") or "")
    queue, priority = record.get("queue"), record.get("priority")
    yield "queue", f"{queue}, priority {priority}" if queue else ""


def _times(record: Record, *, is_again: bool) -> Iterator[tuple[str, str]]:
    created, started = record.get("created_at"), record.get("started_at")
    finished = record.get("finished_at")
    waited = "" if is_again else span(created, started)
    took = span(started, finished)
    yield "created", moment(created)
    yield "started", moment(started) + (f", after {waited}" if waited else "")
    yield "finished", moment(finished) + (f", after {took}" if took else "")
    yield "deadline", moment(record.get("deadline"))
    # Not of how many: the limit rises with each attempt that others go on from.
    yield "attempt", _told(record.get("attempt"))


def _progress(record: Record) -> str:
    progress = record.get("progress") or {}
    done, total = done_of(progress)
    part = fraction_of(progress)
    parts = [
        str(progress.get("stage") or ""),
        "" if part is None else f"{100 * part:.0f} %",
        rows_done(progress)
        or candidates_done(progress)
        or (f"{done} of {total}" if total else str(progress.get("message") or "")),
    ]
    for name in ("loss", "validation_loss"):
        if isinstance(progress.get(name), int | float):
            parts.append(f"{name.replace('_', ' ')} {short(progress[name])}")
    if record.get("state") not in ENDED:
        parts.append(time_left(progress))
    return ", ".join(filter(None, parts))


def _print_attempts(attempts: list[Attempt]) -> None:
    rows = [
        (
            each.number,
            each.worker,
            moment(each.started_at),
            moment(each.ended_at),
            span(each.started_at, each.ended_at),
            each.outcome or "running",
        )
        for each in attempts
    ]
    columns = ("attempt", "worker", "started", "ended", "took", "then")
    print_table(columns, rows)
    for each in attempts:
        if each.reason:
            out.print(f"attempt {each.number}: {each.reason}", markup=False)


def _reason(message: Any, data: Record) -> str:
    """Why an attempt ended; nothing where it ended well."""
    if data.get("state") == "succeeded":
        return ""
    error = data.get("error")
    told = error if isinstance(error, dict) else {}
    return str(data.get("reason") or told.get("detail") or message or "")


def _result(record: Record, result: Record) -> Iterator[tuple[str, str]]:
    if record.get("kind") == "training" and "model" in result:
        yield "version", f"{result['model']}/{result.get('version')}"
        result = {n: v for n, v in result.items() if n not in ("model", "version")}
    for name, value in result.items():
        if said := _told(value):
            yield name.replace("_", " "), said


def _error(error: Record) -> str:
    code, field = error.get("code") or "error", error.get("field")
    where = f" at {field}" if field else ""
    # Most details begin with their field.
    detail = str(error.get("detail") or "").removeprefix(f"{field}: ")
    return f"{code}{where}: {detail or 'the service gave no reason'}"


def _told(value: Any) -> str:
    """A value in a line; of a long one only how much there is."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return short(value)
    text = json.dumps(value, default=str)
    if len(text) <= _LONG:
        return text
    return f"{len(value)} entries, in --json"
