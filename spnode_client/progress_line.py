"""How far a job is, in words; and one line on a terminal that says so."""

import sys
from collections.abc import Callable
from typing import Any

from spnode_client.records import ENDED, Record


def progress_line() -> Callable[[Record], None] | None:
    """What shows a job's record on stderr; None where nobody looks at it.

    A notebook is no terminal, and wipes out a line as one does.
    """
    is_seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    return _show if is_seen else None


def done_of(progress: Record) -> tuple[int | None, int | None]:
    """Iterations, rows or candidates that are done, of how many."""
    if progress.get("rows_total"):
        return progress["rows"], progress["rows_total"]
    if total := progress.get("candidates"):
        return sum(progress[state] for state in ENDED), total
    return progress.get("iteration"), progress.get("iterations") or None


def fraction_of(progress: Record) -> float | None:
    """The part that is done, as the service says it; None where there is no telling."""
    if (fraction := progress.get("fraction")) is not None:
        return fraction
    done, total = done_of(progress)
    return done / total if total and done is not None else None


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


def time_left(progress: Record) -> str:
    """What the service says of the time that is left; empty where it does not."""
    left: Any = progress.get("remaining_s")
    if left is None:
        return ""
    if left < 90:
        return f"{left:.0f} s left"
    return f"{left / 60:.0f} min left" if left < 5400 else f"{left / 3600:.1f} h left"


def _show(record: Record) -> None:
    progress = record.get("progress") or {}
    parts = [f"{record['id']} {record['state']}"]
    if record["state"] in ENDED:
        end = "\n"
    else:
        end = ""
        parts.append(str(progress.get("message") or ""))
        parts.append(rows_done(progress) or candidates_done(progress))
        loss = progress.get("validation_loss")
        parts.append("" if loss is None else f"validation loss {loss:.2e}")
        parts.append(time_left(progress))
    # Back to the start of the line, and what stood there is wiped out.
    sys.stderr.write("\r\x1b[K" + " · ".join(filter(None, parts)) + end)
    sys.stderr.flush()
