"""Word of a queued job, on its way to the workers."""

import contextlib
import logging
from collections.abc import Iterator

import sqlalchemy as sa

from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant
from services.errors import Unavailable
from services.lifecycle import Job, Sender

_LOG = logging.getLogger(__name__)


class Outbox:
    """Sends word of jobs, and notes in their rows that it did.

    Args:
        database: Where the rows are.
        sender: Sends it; None leaves that to the workers' housekeeping.
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, sender: Sender | None, clock: Clock) -> None:
        self.database = database
        self.sender = sender
        self.clock = clock

    def send(self, job: Job) -> None:
        """Note that word of a queued job is sent, and send it.

        The row says already that the job is queued, so nothing that fails here is the
        caller's: what does not arrive is sent again. It is noted first, since a worker
        that has the message leaves out a job whose row is being written.
        """
        if self.sender is None:
            return
        table = tables.jobs
        queued = sa.and_(table.c.id == job.id, table.c.state == "queued")
        with _left_for_later(job):
            sent = sa.update(table).where(queued).values(sent_at=instant(self.clock()))
            with self.database.transaction() as connection:
                connection.execute(sent)
        with _left_for_later(job):
            self.sender.send_job(job.queue, job.id)


@contextlib.contextmanager
def _left_for_later(job: Job) -> Iterator[None]:
    try:
        yield
    except Unavailable:
        return
    except Exception:  # the boundary: a caller would take the job as not queued
        _LOG.exception("job %s: word of it was not sent, but will be later", job.id)
