"""The fault command: its schedule, its audit, its links."""

import contextlib
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
import sqlalchemy as sa

from benchmarks.peers.ports import free_port
from deploy.chaos.audit import Audit
from deploy.chaos.clocks import Clocks, can_step
from deploy.chaos.faults import LOCAL, NETWORK
from deploy.chaos.links import Links
from deploy.chaos.schedule import draw
from deploy.chaos.uploads import Upload
from deploy.chaos.waiting import wait_for
from deploy.chaos.workload import Submission
from services.blobs import Blobs
from services.database import tables
from services.database.engine import Database
from services.database.migrate import upgrade
from services.database.tables import instant
from services.datasets import Datasets
from services.jobs import Jobs
from services.leases import Leases
from services.registry import Registry
from services.settings import Settings
from spnode_core import artifact
from spnode_core.dataset import save_dataset
from spnode_core.systems import generate
from tests.core.models import small_surrogate

jax.config.update("jax_enable_x64", True)

LENGTHS = {kind: seconds for kind, (_, seconds) in NETWORK.items()}


def test_the_same_seed_draws_the_same_faults_and_another_others() -> None:
    first = draw(7, 1200, LENGTHS, every_s=9.0)
    assert first == draw(7, 1200, LENGTHS, every_s=9.0)
    assert first != draw(8, 1200, LENGTHS, every_s=9.0)
    assert len(first) >= 100, "what a run of twenty minutes is to show"
    times = [each.at_s for each in first]
    assert times == sorted(times)
    assert times[-1] < 1200
    for each in first:
        shortest, longest = LENGTHS[each.kind]
        assert shortest <= each.seconds <= longest


@pytest.mark.parametrize("kinds", [LOCAL, NETWORK], ids=["local", "network"])
def test_a_short_run_meets_every_kind_of_fault(kinds) -> None:
    lengths = {kind: seconds for kind, (_, seconds) in kinds.items()}
    assert len(lengths) >= 8
    found = draw(3, 9.0 * 1.5 * (len(lengths) + 1), lengths, every_s=9.0)
    assert {each.kind for each in found} == set(lengths)


class World:
    """After a good run: a training, a dataset, two calibrations, two uploads."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(data_folder=folder / "data")
        self.database = Database(settings.database_url)
        upgrade(self.database)
        self.blobs = Blobs(settings.store_url)
        self.jobs, self.leases = Jobs(self.database), Leases(self.database)
        self.datasets = Datasets(self.database, self.blobs, settings)
        self.registry = Registry(self.database, self.blobs)
        self.folder, self.work = folder, settings.data_folder / "work"
        self.submissions: list[Submission] = []
        self.uploads: list[Upload] = []
        self.training, self.dataset = self._train(), self._make_dataset()
        self.calibrations = [self._calibrate(), self._calibrate()]
        self.files = [folder / "dataset.npz", folder / "other.npz"]
        save_dataset(generate("robertson", 3, seed=2), self.files[1])
        for path in self.files:
            self.upload(path)
        cancelled = self._submit("dataset", {"kind": "dataset", "seed": 5})
        self.jobs.cancel(cancelled)
        self.submissions[-1].cancel = "asked"

    def findings(self) -> list[str]:
        audit = Audit(
            self.database,
            self.blobs,
            self.submissions,
            -1.0,
            [self.work],
            self.uploads,
        )
        return [each["what"] for each in audit.findings()]

    def execute(self, statement) -> None:
        with self.database.transaction() as connection:
            connection.execute(statement)

    def change(self, id: str, **values) -> None:
        table = tables.jobs
        self.execute(sa.update(table).where(table.c.id == id).values(values))

    def upload(self, path: Path, key: str = "") -> str:
        """Keep a file and note it, under a new key or once more under an old one."""
        made = Upload.of(path, key or f"file-{len(self.uploads)}")
        record, replayed = self.datasets.upload(
            path, owner="me", name=made.key, idempotency_key=made.key
        )
        if not replayed:
            made.id = record.id
            self.uploads.append(made)
        return record.id

    def _submit(self, kind: str, request: dict) -> str:
        key = f"key-{len(self.submissions)}"
        job, _ = self.jobs.submit(kind, request, owner="me", idempotency_key=key)
        self.submissions.append(Submission(request, key, job.id))
        return job.id

    def _claim(self, id: str):
        claim = self.leases.claim(id, "worker")
        assert claim is not None
        return claim

    def _train(self) -> str:
        claim = self._claim(
            self._submit("training", {"kind": "training", "model": "m"})
        )
        path = self.folder / "artifact"
        surrogate = small_surrogate(normalisation=dict.fromkeys("abc", "linear"))
        artifact.save(surrogate, path, card={"job": claim.job.id})
        digest = self.blobs.put_content("artifacts", path)
        with self.database.transaction() as connection:
            number = self.registry.publish(
                connection,
                "m",
                owner="me",
                digest=digest,
                size_bytes=path.stat().st_size,
                signature=surrogate.signature.model_dump(mode="json"),
                spec=surrogate.spec.model_dump(mode="json"),
                card={},
                evaluation={},
                certificate={},
                job_id=claim.job.id,
            )
            result = {"model": "m", "version": number, "digest": digest}
            self.leases.succeed(connection, claim, result, "done")
        return claim.job.id

    def _make_dataset(self) -> str:
        claim = self._claim(self._submit("dataset", {"kind": "dataset", "seed": 1}))
        path = self.folder / "dataset.npz"
        save_dataset(generate("robertson", 2, seed=1), path)
        digest = self.blobs.put_content("datasets", path)
        with self.database.transaction() as connection:
            record = self.datasets.register(
                connection,
                digest=digest,
                size_bytes=path.stat().st_size,
                summary={},
                owner="me",
                job_id=claim.job.id,
            )
            self.leases.succeed(connection, claim, {"dataset": record.id}, "done")
        return claim.job.id

    def _calibrate(self) -> str:
        claim = self._claim(self._submit("calibration", {"kind": "calibration"}))
        with self.database.transaction() as connection:
            self.leases.succeed(connection, claim, {"estimates": [0.5]}, "done")
        return claim.job.id


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    assert made.findings() == []
    yield made
    made.database.close()


def test_the_audit_finds_an_end_that_was_told_twice(world) -> None:
    values = {"job_id": world.dataset, "kind": "status", "level": "info"}
    values |= {"message": "again", "data": {"state": "succeeded"}}
    world.execute(sa.insert(tables.events).values(created_at=instant(0.0), **values))
    assert set(world.findings()) == {
        "the end of a job was not told once",
        "the events of a job contradict",
    }


@pytest.mark.parametrize("prefix", ["artifacts", "datasets"])
@pytest.mark.parametrize("is_missing", [True, False], ids=["missing", "damaged"])
def test_the_audit_finds_a_content_that_is_gone_or_damaged(
    world, prefix, is_missing
) -> None:
    key, *_ = world.blobs.list(prefix)
    path = world.blobs.root / key
    path.unlink() if is_missing else path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "a content cannot be read" in world.findings()


def test_the_audit_finds_another_answer_to_the_same_request(world) -> None:
    world.change(world.calibrations[1], result={"estimates": [0.5000001]})
    assert world.findings() == ["the same request had another answer"]


def test_the_audit_finds_jobs_that_are_lost_doubled_or_stuck(world) -> None:
    world.submissions.append(Submission({}, "lost", f"job_{'0' * 26}"))
    world.jobs.submit("calibration", {"kind": "calibration"}, owner="me")
    assert sorted(world.findings()) == [
        "a job did not end rightly",
        "a job exists that nobody submitted",
        "an accepted job is lost",
    ]


def test_candidates_are_submitted_with_their_sweep_and_end_as_it_does(world) -> None:
    request = {"kind": "training", "model": "n"}
    ids = [f"job_{'0' * 25}{number}" for number in (1, 2)]
    sweep, _ = world.jobs.submit(
        "sweep", {"kind": "sweep"}, owner="me", candidates=dict.fromkeys(ids, request)
    )
    world.submissions.append(Submission({}, "sweep", sweep.id))
    assert sorted(world.findings()) == ["a job did not end rightly"] * 3
    world.jobs.cancel(sweep.id)
    world.submissions[-1].cancel = "asked"
    assert world.findings() == []
    world.submissions.pop()
    assert set(world.findings()) >= {"a job exists that nobody submitted"}


def test_the_audit_finds_a_cancelled_job_that_ended_well(world) -> None:
    world.submissions[2].cancel = "asked"
    assert world.findings() == ["a job did not end rightly"]


def test_the_audit_finds_a_second_version_and_a_gap(world) -> None:
    table = tables.versions
    with world.database.reading() as connection:
        row = dict(connection.execute(sa.select(table)).mappings().one())
    world.execute(sa.insert(table).values({**row, "number": 3, "job_id": "job_other"}))
    assert set(world.findings()) == {
        "something was made by no job",
        "a job names another version than it made",
        "numbers of versions are missing",
    }


def test_the_audit_finds_what_was_left_behind(world) -> None:
    world.blobs.put_content("artifacts", b"nobody's")
    world.blobs.put_content(f"checkpoints/{world.training}", b"of an ended job")
    half = world.blobs.root / "datasets" / "half#1"
    half.write_bytes(b"")
    (world.work / "body-host-1-abcd_123").mkdir(parents=True)
    assert world.findings() == [
        *["an orphan was not swept"] * 3,
        "a folder of a job or request was left",
    ]


@pytest.fixture
def echo():
    """A server that sends back what it is sent."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_link_can_be_cut_slowed_held_and_made_to_refuse(echo) -> None:
    with contextlib.ExitStack() as opened:
        links = Links()
        opened.callback(links.close)
        link = links.add("test", echo)

        def connect() -> socket.socket:
            made = socket.create_connection(("127.0.0.1", link.port), timeout=5)
            return opened.enter_context(made)

        connection = connect()
        assert _asked(connection) == b"hello"
        links.change(link, "slow")
        began = time.monotonic()
        assert _asked(connection) == b"hello"
        assert time.monotonic() - began > 0.25, "there and back"
        links.change(link, "held")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            _asked(connection)
        links.change(link, "open")
        assert connection.recv(100) == b"hello", "nothing was lost"
        links.change(link, "cut")
        assert _ended(connection)
        assert _ended(connect())
        links.change(link, "errors")
        refused = connect()
        refused.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert refused.recv(1000).startswith(b"HTTP/1.1 503 ")
        links.change(link, "open")
        assert _asked(connect()) == b"hello"


def test_a_link_to_several_passes_over_those_that_take_nothing(echo) -> None:
    with contextlib.ExitStack() as opened:
        links = Links()
        opened.callback(links.close)
        nobody = ("127.0.0.1", free_port())
        link = links.add("test", nobody, echo)
        for _ in range(4):
            connection = socket.create_connection(("127.0.0.1", link.port), timeout=5)
            assert _asked(opened.enter_context(connection)) == b"hello"
        refused = links.add("nobody", nobody, nobody)
        connection = socket.create_connection(("127.0.0.1", refused.port), timeout=5)
        assert _ended(opened.enter_context(connection))


def test_a_clock_is_stepped_for_its_own_processes_alone(tmp_path: Path) -> None:
    if not can_step():
        pytest.skip("libfaketime is not installed, or does not run here")
    clocks = Clocks(tmp_path / "clocks", one=False)
    tell = "import time\nwhile True: input(); print(time.time(), time.monotonic())"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", tell],
        env=os.environ | clocks.environment("it"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def is_ahead(seconds: float) -> bool:
            process.stdin.write("\n")
            process.stdin.flush()
            told, monotonic = map(float, process.stdout.readline().split())
            assert abs(monotonic - time.monotonic()) < 60
            return abs(told - time.time() - seconds) < 60

        assert is_ahead(0)
        clocks.environment("other")
        clocks.step("other", -3600)
        for seconds in (3600, -3600, 0):
            clocks.step("it", seconds)
            wait_for(lambda ahead=seconds: is_ahead(ahead), 20, "the clock", tmp_path)
        process.kill()
    clocks.close()
    left = [str(each) for each in Path("/dev/shm").glob(f"*faketime*_{process.pid}")]
    assert left == []


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1000):
                self.request.sendall(data)


def _asked(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(100)


def _ended(connection: socket.socket) -> bool:
    connection.settimeout(5)
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True
