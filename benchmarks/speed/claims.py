"""Claims of jobs by four processes: a second, and against bare statements."""

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import celery

from benchmarks.paper.rows import Numbers
from benchmarks.peers.claimer import BATCH
from benchmarks.speed.celery_peer import celery_peer
from benchmarks.speed.claim_stores import (
    CLAIMERS,
    Store,
    postgres_store,
    sqlite_store,
)
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.turns import Took, in_turns, ratios, spread, walls

AT_LEAST_A_SECOND, SHARE_OF_BARE = 1000.0, 0.9

ABOUT = f"""
{CLAIMERS} processes take queued jobs with the service's own code, `Leases.claim`: it
finds the first of the queue that is due, by priority and turn, raises its fencing
token, sets the lease and appends an event, committed before the next; all four want the
same first job. Each round begins with fresh rows. After it the rows are held against
what the claimers say: a job that two have, or that nobody has, is an error and no
figure.

The bare loop is psycopg alone with one prepared `UPDATE jobs … WHERE id = … AND state =
'queued'` a claim, on the same table: it does not choose, appends no event, and gets no
row in return. Each process has ids of its own, and every tenth of a neighbour's, so
that some come second, which are not counted. It commits as psycopg does by default
(BEGIN, UPDATE, COMMIT), or each statement by itself. Batches are
`UPDATE … WHERE id IN (SELECT … LIMIT {BATCH} FOR UPDATE SKIP LOCKED)`, which the
service does not use: its jobs take longer than any claim. PostgreSQL waits for the
disk at each commit. SQLite does where a caller is told of what was written, and not at
a claim, which a power cut may take back: it ends the worker too. Celery's tasks do
nothing; each is taken from the broker by one of {CLAIMERS} processes, marked as started
and then as done in Valkey.
"""


@dataclass
class Claims:
    """The stores, opened when they are first needed, and what is found on them.

    Args:
        options: What the caller chose.
        stack: Closes them.
    """

    options: Options
    stack: ExitStack
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        # The sockets in it have short paths; PostgreSQL's user must get in.
        made = tempfile.TemporaryDirectory(prefix="spnode-claims-")
        self.folder = Path(self.stack.enter_context(made))
        self.folder.chmod(0o755)

    @property
    def seconds(self) -> float:
        """How long a round of a contestant lasts."""
        return 0.15 if self.options.quick else 2.0

    @property
    def rounds(self) -> int:
        """How often each is measured."""
        return 2 if self.options.quick else 9

    @cached_property
    def sqlite(self) -> Store:
        """On SQLite."""
        return self.stack.enter_context(
            sqlite_store(self.folder / "sqlite", self.seconds)
        )

    @cached_property
    def on_sqlite(self) -> list[Took]:
        """What claims took there."""
        claim = partial(self.sqlite.round, "ours")
        claim()
        return in_turns({"ours": claim}, self.rounds)["ours"]

    @cached_property
    def on_postgres(self) -> dict[str, list[Took]]:
        """What claims of every kind took on PostgreSQL, in turns."""
        opened = postgres_store(self.folder / "postgres", self.seconds)
        with opened as store:
            ways = ("ours", "update", "autocommit", "batches")
            for way in ways:  # connections, prepared statements
                store.round(way)
            return in_turns(
                {way: partial(store.round, way) for way in ways}, self.rounds
            )


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """Those of both databases; with peers that of Celery."""
    claims = Claims(options, stack)
    settings = {"processes": CLAIMERS}
    found = [
        Figure(
            "claims on SQLite",
            f"{AT_LEAST_A_SECOND:,.0f} a second",
            partial(_on_sqlite, claims),
            at_least=AT_LEAST_A_SECOND,
            unit="1/s",
            settings=settings,
        ),
        Figure(
            "refusals of a locked database, SQLite",
            "none",
            partial(_locked, claims),
            at_most=0.0,
            unit="",
            settings=settings,
        ),
        *(
            Figure(name, against, partial(_over, claims, *ways), bar, settings=settings)
            for name, against, ways, bar in _ON_POSTGRES
        ),
    ]
    if options.peers:
        found.append(
            Figure(
                "claims on SQLite, with Celery's tasks beside",
                "Celery, results in Valkey",
                partial(_against_celery, claims),
                settings=settings,
            )
        )
    return found


_ON_POSTGRES: Sequence[tuple[str, str, tuple[str, str], float | None]] = (
    (
        "claims on PostgreSQL",
        "a bare loop: BEGIN, UPDATE, COMMIT",
        ("ours", "update"),
        SHARE_OF_BARE,
    ),
    (
        "claims on PostgreSQL, against single statements",
        "a bare loop: UPDATE alone",
        ("ours", "autocommit"),
        None,
    ),
    (
        f"batches of {BATCH} by SKIP LOCKED on PostgreSQL",
        "claims one by one",
        ("batches", "ours"),
        None,
    ),
)


def _on_sqlite(claims: Claims, tell: Tell) -> Numbers:
    taken = claims.on_sqlite
    return {
        "value": spread([1 / each.wall_s for each in taken]),
        "ours": _in_words(taken),
        "notes": [
            f"{sum(claims.sqlite.won):,} claims in all; {claims.sqlite.lost:,} found "
            f"nothing; {claims.sqlite.locked} found the database locked."
        ],
    }


def _locked(claims: Claims, tell: Tell) -> Numbers:
    rounds, tried = len(claims.on_sqlite), sum(claims.sqlite.won) + claims.sqlite.lost
    return {
        "value": spread([float(claims.sqlite.locked)]),
        "ours": f"{claims.sqlite.locked} of {tried:,} claims in {rounds} rounds",
    }


def _over(claims: Claims, mine: str, other: str, tell: Tell) -> Numbers:
    ours, theirs = claims.on_postgres[mine], claims.on_postgres[other]
    return {
        "value": ratios(walls(theirs), walls(ours)),
        "ours": _in_words(ours),
        "theirs": _in_words(theirs),
    }


def _against_celery(claims: Claims, tell: Tell) -> Numbers:
    tasks = 100 if claims.options.quick else 2000
    with celery_peer(claims.folder / "celery", tasks) as peer:
        peer.round()
        contestants = {
            "ours": partial(claims.sqlite.round, "ours"),
            "theirs": peer.round,
        }
        taken = in_turns(contestants, min(5, claims.rounds))
    rate = number(1 / statistics.median(walls(taken["theirs"])), "a second")
    return {
        "value": ratios(walls(taken["theirs"]), walls(taken["ours"])),
        "ours": _in_words(taken["ours"]),
        "theirs": rate,
        "notes": [f"Celery {celery.__version__}, prefork, {tasks:,} tasks a round."],
    }


def _in_words(taken: Sequence[Took]) -> str:
    rate = 1 / statistics.median(walls(taken))
    cpu = 1e6 * statistics.median([each.cpu_s for each in taken])
    return f"{number(rate, 'a second')}, {cpu:.0f} µs of CPU each"


GROUP = Group("claims", "Claims of jobs", ABOUT, figures)
