"""What a worker process works with, opened once."""

import os
import secrets
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

from services.blobs import Blobs
from services.database.engine import Database
from services.datasets import Datasets
from services.leases import Leases
from services.old_events import OldEvents
from services.orphans import Orphans
from services.queue import Queue
from services.registry import Registry
from services.results import Results
from services.settings import Settings
from services.sweeps.candidates import Candidates
from services.unsent import Unsent
from services.work_folder import work_folder
from services.workers import Workers


@dataclass(frozen=True)
class Context:
    """The services of a worker, its name, and whether it is warm or stopping."""

    settings: Settings
    database: Database
    blobs: Blobs
    queue: Queue
    leases: Leases
    unsent: Unsent
    registry: Registry
    datasets: Datasets
    results: Results
    orphans: Orphans
    old_events: OldEvents
    candidates: Candidates
    workers: Workers
    name: str
    queues: tuple[str, ...]
    stopping: threading.Event = field(default_factory=threading.Event)
    warm: threading.Event = field(default_factory=threading.Event)
    """Set once what the worker keeps ready is compiled."""

    @property
    def work_folder(self) -> Path:
        """Where the folders of running jobs lie."""
        return work_folder(self.settings)

    def beat(self) -> None:
        """Say that the worker lives.

        Raises:
            Unavailable: The database does not answer.
        """
        self.workers.beat(self.name, self.queues, is_warm=self.warm.is_set())


def open_context(settings: Settings, queues: tuple[str, ...]) -> Context:
    """Open the services; nothing connects before it is used."""
    database = Database(settings.database_url)
    blobs = Blobs(settings.store_url)
    queue = Queue(settings)
    return Context(
        settings=settings,
        database=database,
        blobs=blobs,
        queue=queue,
        leases=Leases(
            database,
            queue,
            lease_seconds=settings.lease_seconds,
            rest_seconds=settings.resend_seconds,
        ),
        unsent=Unsent(database),
        registry=Registry(database, blobs),
        datasets=Datasets(database, blobs, settings),
        results=Results(database, blobs, settings),
        orphans=Orphans(
            database,
            blobs,
            older_than_s=settings.orphan_seconds,
            kept_s=settings.result_keep_seconds,
        ),
        old_events=OldEvents(database, kept_s=settings.event_keep_seconds),
        candidates=Candidates(database),
        workers=Workers(database, stale_seconds=settings.lease_seconds),
        name=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}",
        queues=queues,
    )
