import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.blobs import Blobs
from services.database.clock import Reading, ServerClock
from services.database.engine import Database
from services.database.migrate import upgrade
from services.errors import Unavailable
from services.jobs import Jobs
from services.leases import Leases
from services.orphans import Orphans
from services.unsent import Unsent
from services.workers import Workers

HOUR = 3600.0


class Server:
    """A server's clock, a way to it, and the two clocks of this machine."""

    def __init__(self) -> None:
        self.seconds, self.monotonic, self.own = 1e9, 50.0, 7e8
        self.round_trips = [0.002]
        self.asked = 0

    def __call__(self) -> Reading:
        self.asked += 1
        took = self.round_trips.pop() if len(self.round_trips) > 1 else 0.002
        began = self.monotonic
        self.advance(took)
        # The server reads its clock as the question comes.
        return Reading(self.seconds - took, began, self.monotonic)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.monotonic += seconds
        self.own += seconds


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def server_clock(server: Server) -> ServerClock:
    return ServerClock(
        server, monotonic=lambda: server.monotonic, own=lambda: server.own
    )


def test_one_thread_asks_while_others_go_by_the_last_answer(server) -> None:
    asking, told = threading.Event(), threading.Event()

    def held() -> Reading:
        if server.asked:
            asking.set()
            assert told.wait(30)
        return server()

    clock = ServerClock(
        held, monotonic=lambda: server.monotonic, own=lambda: server.own
    )
    clock()
    server.advance(31)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(clock)
        assert asking.wait(30)
        for _ in range(20):
            assert clock() == pytest.approx(server.seconds, abs=0.0011)
        told.set()
        assert first.result(30) == pytest.approx(server.seconds, abs=0.0011)
    assert server.asked == 2


def test_threads_that_know_no_time_wait_for_the_one_that_asks(server) -> None:
    def slow() -> Reading:
        time.sleep(0.05)
        return server()

    clock = ServerClock(
        slow, monotonic=lambda: server.monotonic, own=lambda: server.own
    )
    with ThreadPoolExecutor(20) as threads:
        told = list(threads.map(lambda _: clock(), range(20)))
    assert told == [pytest.approx(server.seconds, abs=0.0011)] * 20
    assert server.asked == 1


def test_the_server_is_asked_now_and_then(server, server_clock) -> None:
    for _ in range(100):
        server.advance(0.9)
        assert server_clock() == pytest.approx(server.seconds, abs=0.0011)
    assert server.asked == 3, "after 0.9, 30.6 and 61.2 seconds"


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_of_one_s_own_clock_is_a_reason_to_ask_and_no_more(
    server, server_clock, step
) -> None:
    server_clock()
    server.own += step
    assert server_clock() == pytest.approx(server.seconds, abs=0.0011)
    server_clock()
    assert server.asked == 2


def test_after_a_sleep_the_server_is_asked(server, server_clock) -> None:
    server_clock()
    server.seconds += HOUR  # ``time.monotonic`` stood meanwhile
    server.own += HOUR
    assert server_clock() == pytest.approx(server.seconds, abs=0.0011)


def test_the_quickest_of_three_answers_counts(server, server_clock) -> None:
    server.round_trips = [0.0, 1.0, 0.3, 4.0]
    assert server_clock() == pytest.approx(server.seconds, abs=0.16)
    assert server.asked == 3


@pytest.fixture
def stepped(postgres_url: str, monkeypatch):
    """Opens the database of a host whose clock is wrong by some seconds."""
    true, opened = time.time, []

    def open_by(seconds: float) -> Database:
        monkeypatch.setattr(time, "time", lambda: true() + seconds)
        opened.append(Database(postgres_url))
        opened[-1].clock()
        monkeypatch.setattr(time, "time", true)
        return opened[-1]

    upgrade(open_by(0.0))
    yield open_by
    for each in opened:
        each.close()


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_hosts_with_other_clocks_leave_each_other_s_jobs_alone(stepped, step) -> None:
    here, there = stepped(0.0), stepped(step)
    job, _ = Jobs(here).submit("training", {}, owner="me")
    # By their own watches no time passes.
    watched = {"lease_seconds": 1.5, "monotonic": lambda: 0.0}
    mine, theirs = Leases(here, **watched), Leases(there, **watched)
    assert theirs.claim(job.queue, "there") is not None
    assert mine.reap() == []
    time.sleep(1.6)
    assert mine.reap() == [job.id], "the lease lasts as long as any other"
    assert mine.claim(job.queue, "here") is not None
    assert theirs.reap() == []
    assert Workers(there).living() == []
    Workers(here).beat("here", ["training"])
    assert [each.id for each in Workers(there).living()] == ["here"]


def test_a_sweep_by_a_host_whose_clock_is_ahead_deletes_nothing_young(
    stepped, tmp_path: Path
) -> None:
    blobs = Blobs(f"file://{tmp_path}/store")
    blobs.put_content("artifacts", b"on its way")
    (tmp_path / "store" / "artifacts" / "half#1").write_bytes(b"")
    orphans = Orphans(stepped(HOUR), blobs, older_than_s=60, kept_s=60)
    assert orphans.sweep() == []
    assert len(list(blobs.root.rglob("artifacts/*"))) == 2


def test_a_server_that_does_not_answer_is_unavailable(postgres_url: str) -> None:
    database = Database(postgres_url.replace("/test_", "/missing_"))
    with pytest.raises(Unavailable):
        database.clock()
    database.close()


def test_sqlite_has_the_machine_s_clock(database: Database) -> None:
    assert database.clock is time.time


def test_a_dead_worker_s_job_goes_on_after_the_clock_was_set_back(
    any_database, clock
) -> None:
    watch = clock.now - 1000.0
    jobs = Jobs(any_database, clock=clock)
    leases = Leases(
        any_database, lease_seconds=15, clock=clock, monotonic=lambda: watch
    )
    dead, alive = (jobs.submit("training", {}, owner="me")[0].id for _ in range(2))
    leases.claim("training", "dead")
    claim = leases.claim("training", "alive")
    assert claim.job.id == alive
    clock.advance(-HOUR)
    for _ in range(10):
        assert leases.reap() == []
        watch += 3.0
        clock.advance(3.0)
        leases.heartbeat(claim)
    assert leases.reap() == []
    watch += 0.1
    assert leases.reap() == [dead]
    assert leases.reap() == []
    assert jobs.get(alive).worker == "alive"


def test_what_was_sent_in_the_future_is_sent_again_once(any_database, clock) -> None:
    jobs, unsent = Jobs(any_database, clock=clock), Unsent(any_database, clock=clock)
    leases = Leases(any_database, clock=clock)
    _, never = (jobs.submit("training", {}, owner="me")[0].id for _ in range(2))
    leases.claim("training", "worker")
    clock.advance(-HOUR)
    later, _ = jobs.submit("training", {}, owner="me")

    def lacking() -> list[str]:
        return unsent.take("training", waiting=0, older_than_s=30)

    assert lacking() == [never]
    assert lacking() == []
    clock.advance(-HOUR)
    assert sorted(lacking()) == sorted([never, later.id])
    assert lacking() == []


def test_a_job_that_was_put_off_rests_no_longer_after_the_clock_was_set_back(
    any_database, clock
) -> None:
    jobs = Jobs(any_database, clock=clock)
    leases = Leases(any_database, rest_seconds=30, clock=clock)
    job, _ = jobs.submit("training", {}, owner="me")
    leases.put_off(leases.claim(job.queue, "worker"), "the store does not answer")
    assert leases.claim(job.queue, "worker") is None
    clock.advance(31)
    claim = leases.claim(job.queue, "worker")
    leases.put_off(claim, "the store does not answer")
    clock.advance(-HOUR)
    assert leases.claim(job.queue, "worker") is not None


def test_a_worker_seen_in_the_future_counts_as_dead_until_it_beats(
    any_database, clock
) -> None:
    workers = Workers(any_database, stale_seconds=15, clock=clock)
    workers.beat("dead", ["training"])
    workers.beat("alive", ["training"])
    clock.advance(-HOUR)
    assert workers.living() == []
    workers.beat("alive", ["training"])
    assert [each.id for each in workers.living()] == ["alive"]
