"""One line on a terminal that says how far a job is."""

import sys
from collections.abc import Callable

from spnode_client.records import ENDED, Record


def progress_line() -> Callable[[Record], None] | None:
    """What shows a job's record on stderr; None where that is no terminal."""
    return _show if sys.stderr.isatty() else None


def rows_done(progress: Record) -> str:
    """How many rows of a rollout job are done, and how fast; empty for other kinds."""
    if not progress.get("rows_total"):
        return ""
    return (
        f"{progress['rows']} of {progress['rows_total']} rows, "
        f"{progress['rows_per_second']:.0f} rows/s"
    )


def candidates_done(progress: Record) -> str:
    """How many candidates of a sweep are trained; empty for other kinds."""
    if not progress.get("candidates"):
        return ""
    lost = progress["failed"] + progress["cancelled"]
    trained = f"{progress['succeeded']} of {progress['candidates']} trained"
    return f"{trained}, {lost} not" if lost else trained


def _show(record: Record) -> None:
    progress = record.get("progress") or {}
    parts = [f"{record['id']} {record['state']}"]
    if record["state"] in ENDED:
        end = "\n"
    else:
        end = ""
        parts.append(str(progress.get("message") or ""))
        parts.append(rows_done(progress) or candidates_done(progress))
        loss, left = progress.get("validation_loss"), progress.get("remaining_s")
        parts.append("" if loss is None else f"validation loss {loss:.2e}")
        parts.append("" if left is None else f"{left:.0f} s left")
    # Back to the start of the line, and what stood there is wiped out.
    sys.stderr.write("\r\x1b[K" + " · ".join(filter(None, parts)) + end)
    sys.stderr.flush()
