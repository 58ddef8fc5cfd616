"""Rows of several requests made one batch, and its results given back to each."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from services import traces
from services.rollouts.answer import is_plain
from services.rollouts.executor import Batch
from services.rollouts.groups import Part
from services.rollouts.request import Arrays
from services.rollouts.work import RowResults, Work

# Numbers of a batch that are looked at on the event loop; those of larger ones are
# where their answers are written.
_LOOKED_AT = 50_000


@dataclass
class Ended:
    """What came of a batch.

    Args:
        work: The first of its requests.
        rows: How many it had.
        began: ``time.monotonic()`` when it did.
        took: Seconds that it was computed; None where it failed.
        delivered: What requests have got of it.
    """

    work: Work
    rows: int
    began: float = field(default_factory=time.monotonic)
    took: float | None = None
    delivered: list[Part] = field(default_factory=list)


def span_of(parts: list[Part], ended: Ended) -> AbstractContextManager[str | None]:
    """The span of a batch, linked to those of its requests, where traces are kept."""
    if not traces.are_on():
        return nullcontext()
    attributes = {
        "spnode.operation": ended.work.operation,
        "spnode.digest": ended.work.digest,
        "spnode.rows": ended.rows,
    }
    callers = (part.request.traceparent for part in parts)
    return traces.shared_span("batch", callers, attributes)


def looks_plain(work: Work, batch: Batch, results: Arrays) -> bool:
    """Look once at what is small for what each request would look for."""
    if work.served is None:
        return False
    if sum(array.size for array in results.values()) > _LOOKED_AT:
        return False
    return is_plain(work.served, batch.arrays, results)


def deliver(part: Part, results: Arrays, start: int, *, plain: bool) -> None:
    """Give a request its rows of a batch's results, from ``start`` on."""
    request = part.request
    stop = start + part.rows
    rows = RowResults({name: array[start:stop] for name, array in results.items()})
    count = request.work.count
    if part.rows == count:
        rows.plain = plain
        request.missing = 0
        request.future.set_result(rows)
        return
    for name, array in rows.items():
        # Where memory ends here the part has not been delivered.
        if name not in request.results:
            request.results[name] = np.empty((count, *array.shape[1:]), array.dtype)
    for name, array in rows.items():
        request.results[name][part.start : part.stop] = array
    request.missing -= part.rows
    if not request.missing:
        request.future.set_result(request.results)


def gathered(parts: list[Part], traceparent: str | None) -> Batch:
    """The batch of parts that are alike in all but their rows."""
    first = parts[0].request.work
    rows = {
        name: np.concatenate(
            [part.request.work.rows[name][part.start : part.stop] for part in parts]
        )
        if len(parts) > 1
        else first.rows[name][parts[0].start : parts[0].stop]
        for name in first.rows
    }
    return Batch(
        first.operation,
        first.digest,
        {**rows, **first.shared},
        deadline=max(part.request.deadline for part in parts),
        variant=first.variant,
        traceparent=traceparent,
    )
