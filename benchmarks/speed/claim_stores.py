"""Databases with queued jobs, processes that claim them, and what the rows then say."""

import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.peers import postgres
from benchmarks.peers.claimer import QUEUE
from benchmarks.peers.environment import PeerError
from benchmarks.peers.ports import free_port
from benchmarks.peers.process import Program
from benchmarks.speed.deployment import Running
from benchmarks.speed.turns import Took
from services.database import tables
from services.database.engine import Database
from services.database.migrate import upgrade
from services.database.tables import instant

CLAIMERS = 4
_SOON_S = 0.2
# One message in so many reaches two workers, as after a resend.
_DOUBLED = 10
_MOST_A_SECOND = {"batches": 30_000}
_MOST_SINGLE_A_SECOND = 6_000
_REQUEST = {
    "kind": "dataset",
    "system": "robertson",
    "trajectories": 64,
    "options": {"seed": 1},
}


@dataclass
class Store:
    """A database and the processes that claim its jobs.

    Args:
        database: Migrated.
        programs: Connected to it.
        seconds: How long a round lasts.
        lost: Claims that came second, of all rounds.
        locked: How often the database refused, likewise.
        won: Claims, round by round.
    """

    database: Database
    programs: Sequence[Program]
    seconds: float
    lost: int = 0
    locked: int = 0
    won: list[int] = field(default_factory=list)

    def round(self, how: str) -> Took:
        """Claim for a while; what one claim took, all processes together.

        Raises:
            PeerError: The rows say otherwise than the claimers.
        """
        most = _MOST_A_SECOND.get(how, _MOST_SINGLE_A_SECOND)
        ids = self._queue(max(200, int(most * self.seconds)))
        shares = _shares(ids, len(self.programs))
        at = time.time() + _SOON_S

        def claim(program: Program, share: list[str]) -> dict[str, Any]:
            return program.call(
                "claim", how=how, ids=share, at=at, seconds=self.seconds
            )

        with ThreadPoolExecutor(len(shares)) as threads:
            told = list(threads.map(claim, self.programs, shares))
        won = sum(each["won"] for each in told)
        self.lost += sum(each["lost"] for each in told)
        self.locked += sum(each["locked"] for each in told)
        self.won.append(won)
        self.check(won, has_events=how == "ours")
        wall = max(each["wall_s"] for each in told)
        return Took(wall / won, sum(each["cpu_s"] for each in told) / won)

    def _queue(self, count: int) -> list[str]:
        """Let so many jobs wait, and no others be there."""
        ids = [f"job_{secrets.token_hex(13)}" for _ in range(count)]
        row = {
            "kind": "dataset",
            "queue": QUEUE,
            "owner": "bench",
            "state": "queued",
            "request": _REQUEST,
            "attempt": 1,
            "max_attempts": 3,
            "token": 0,
            "cancel_requested": False,
            "created_at": instant(time.time()),
        }
        with self.database.transaction() as connection:
            if self.database.is_sqlite:
                connection.execute(sa.delete(tables.events))
                connection.execute(sa.delete(tables.jobs))
            else:
                connection.exec_driver_sql("TRUNCATE jobs, events CASCADE")
            connection.execute(
                sa.insert(tables.jobs),
                [{"id": id, "turn": turn, **row} for turn, id in enumerate(ids)],
            )
        if not self.database.is_sqlite:
            apart = self.database.engine.execution_options(isolation_level="AUTOCOMMIT")
            with apart.connect() as connection:
                connection.exec_driver_sql("VACUUM ANALYZE jobs")
        return ids

    def check(self, won: int, *, has_events: bool) -> None:
        """Hold the rows against what the claimers say.

        Raises:
            PeerError: A job was claimed twice, or by nobody, or not told once.
        """
        table, events = tables.jobs, tables.events
        running = table.c.state == "running"
        once = sa.and_(running, table.c.token == 1, table.c.lease_owner.is_not(None))
        query = sa.select(
            sa.select(sa.func.count()).where(running).scalar_subquery(),
            sa.select(sa.func.count()).where(once).scalar_subquery(),
            sa.select(sa.func.count(events.c.job_id.distinct())).scalar_subquery(),
            sa.select(sa.func.count()).select_from(events).scalar_subquery(),
        )
        with self.database.reading() as connection:
            found = tuple(connection.execute(query).one())
        expected = (won, won, *((won, won) if has_events else (0, 0)))
        if found != expected or won == 0:
            raise PeerError(f"claims: the rows say {found}, expected {expected}")


@contextmanager
def sqlite_store(folder: Path, seconds: float) -> Iterator[Store]:
    """A store in a file, as on one machine."""
    folder.mkdir(parents=True)
    with _opened(f"sqlite:///{folder / 'spnode.db'}", folder, seconds) as store:
        yield store


@contextmanager
def postgres_store(folder: Path, seconds: float) -> Iterator[Store]:
    """A store on a server of its own, with PostgreSQL's usual settings.

    Raises:
        PeerError: PostgreSQL is not installed or does not start.
    """
    folder.mkdir(parents=True)
    port = free_port()
    with Running(folder) as running:
        process = running.start("postgres", postgres.make_cluster(folder, port), {})
        running.wait("postgres", process, lambda: postgres.make_database(port))
        with _opened(postgres.url(port), folder, seconds) as store:
            yield store


@contextmanager
def _opened(url: str, folder: Path, seconds: float) -> Iterator[Store]:
    database = Database(url)
    with ExitStack() as stack:
        stack.callback(database.close)
        upgrade(database)
        programs = []
        for number in range(CLAIMERS):
            log = folder / f"claimer-{number}.log"
            program = Program(Path(sys.executable), "claimer", log)
            programs.append(stack.enter_context(program))
            program.call("connect", url=url, worker=f"worker-{number}")
        yield Store(database, programs, seconds)


def _shares(ids: Sequence[str], count: int) -> list[list[str]]:
    """Each process has ids of its own, and now and then one of its neighbour's."""
    own = [ids[number::count] for number in range(count)]
    shares = []
    for number, mine in enumerate(own):
        others = own[(number + 1) % count]
        share = []
        for place, id in enumerate(mine):
            if place % _DOUBLED == 0 and place < len(others):
                share.append(others[place])
            share.append(id)
        shares.append(share)
    return shares
