"""When a job runs: which queue takes it, before which others, and until when.

A worker that gets a message takes the first queued job of that queue: of the highest
priority, then of the smallest turn. Turns share a queue among its callers: the next job
of a caller comes one turn after the last one that still waits or runs, and at the
earliest in the turn that is being served, so that nobody waits behind all that another
has queued.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from services.database import tables
from services.errors import Overloaded, TooManyRequests
from services.queue_names import queue_of

MOST_PRIORITY = 10
LATE = {
    "code": "deadline_exceeded",
    "detail": "the deadline of the job passed before it had ended",
}
"""The error of a job that has failed for its deadline."""
_ROOM_AFTER_S = 30.0
_LONGEST_S = 366 * 24 * 3600.0


class Schedule(BaseModel):
    """Where and until when a job runs, and before which others."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    priority: Annotated[
        int, Field(strict=True, ge=-MOST_PRIORITY, le=MOST_PRIORITY)
    ] = 0
    """A queue's jobs of a higher priority begin first; above 0 needs the scope
    ``admin``."""
    deadline_seconds: (
        Annotated[float, Field(strict=True, gt=0, le=_LONGEST_S)] | None
    ) = None
    """Time from its submission, or its retry, after which the job has failed with the
    code ``deadline_exceeded`` unless it has ended before."""
    device: Literal["any", "gpu"] = "any"
    """``gpu``: only a worker that has one takes the job."""


class Scheduled(BaseModel):
    """What every request for a job may say beside the rest."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    schedule: Schedule = Schedule()
    """Where and until when the job runs, and before which others."""


@dataclass(frozen=True)
class Place:
    """A job's place among those that wait."""

    queue: str
    rank: int
    turn: int
    deadline: datetime | None

    @property
    def columns(self) -> dict[str, Any]:
        """Its columns."""
        return self.__dict__


def place_of(
    connection: sa.Connection,
    kind: str,
    owner: str,
    request: dict[str, Any],
    now: datetime,
) -> Place:
    """Return the place of a job that is queued now.

    Args:
        connection: Of the transaction that queues it.
        kind: The job's.
        owner: Whose job it is.
        request: What its row keeps, with its ``schedule`` where there is one.
        now: When it is queued.
    """
    schedule = Schedule.model_validate(request.get("schedule") or {})
    queue = queue_of(kind, schedule.device)
    deadline = None
    if schedule.deadline_seconds is not None:
        deadline = now + timedelta(seconds=schedule.deadline_seconds)
    rank = -schedule.priority
    return Place(queue, rank, _turn(connection, queue, rank, owner), deadline)


def check_room(
    connection: sa.Connection, owner: str, count: int, most: int, most_of_all: int
) -> None:
    """Refuse more jobs than may wait, of a caller and of all of them.

    Raises:
        TooManyRequests: There are too many of the caller's (code ``too_many_jobs``).
        Overloaded: There are too many of everybody's.
    """
    table = tables.jobs
    queued = table.c.state == sa.literal("queued", literal_execute=True)
    query = sa.select(sa.func.count()).where(table.c.owner == owner, queued)
    waiting = connection.execute(query).scalar_one()
    if waiting + count > most:
        raise TooManyRequests(
            f"{waiting} jobs of this key wait, of at most {most}",
            code="too_many_jobs",
            retry_after_s=_ROOM_AFTER_S,
        )
    in_all = connection.execute(sa.select(sa.func.count()).where(queued)).scalar_one()
    if in_all + count > most_of_all:
        raise Overloaded(
            f"{in_all} jobs wait in this deployment, of at most {most_of_all}",
            retry_after_s=_ROOM_AFTER_S,
        )


def _turn(connection: sa.Connection, queue: str, rank: int, owner: str) -> int:
    table = tables.jobs
    beside = sa.and_(table.c.queue == queue, table.c.rank == rank)
    # In the text: an index of those that wait serves no statement that may ask for
    # others.
    queued = sa.literal("queued", literal_execute=True)
    waiting = sa.and_(beside, table.c.state == queued)
    running = sa.and_(beside, table.c.state == "running")
    own = table.c.owner == owner
    last, first = table.c.turn.desc(), table.c.turn
    ends = (
        # The turn being served: of what comes next or, where nothing waits, came last.
        sa.select(table.c.turn).where(waiting).order_by(first).limit(1),
        sa.select(table.c.turn).where(running).order_by(last).limit(1),
        sa.select(table.c.turn).where(waiting, own).order_by(last).limit(1),
        sa.select(table.c.turn).where(running, own).order_by(last).limit(1),
    )
    query = sa.select(*(each.scalar_subquery() for each in ends))
    following, latest, *own_turns = tuple(connection.execute(query).one())
    served = latest if following is None else following
    return max([served or 0, *(turn + 1 for turn in own_turns if turn is not None)])
