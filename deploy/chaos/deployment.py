"""A deployment of real processes to be hurt, on one folder.

::

    local     SQLite, a folder, Valkey behind a link; one gateway, two workers
    network   PostgreSQL, S3, Valkey, each behind a link per process; two gateways,
              three workers of jobs and one of rollouts, with a data folder each;
              in ``deploy.chaos.network``

Everything listens on 127.0.0.1 or a socket in a folder of the run, and ends with it.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from benchmarks.peers.ports import free_port
from deploy import valkey
from deploy.chaos.clocks import Clocks
from deploy.chaos.links import Link, Links
from deploy.chaos.processes import Process
from deploy.chaos.waiting import wait_for
from deploy.folder import Folder
from deploy.stack import StackError
from services.database.engine import Database
from services.database.migrate import upgrade
from services.keys import SCOPES, Keys
from services.settings import Settings

READY_WITHIN_S = 240.0
SERVERS = ("broker", "database", "store")
Times = dict[str, Any]
TIMES: Times = {
    "lease_seconds": 6.0,
    "heartbeat_seconds": 1.0,
    "resend_seconds": 3.0,
    "checkpoint_seconds": 1.0,
    "stop_seconds": 3.0,
    # Faults come far more often than in any deployment; none may use up a job.
    "max_attempts": 10,
}
"""Settings of every process: all that a fault needs to be noticed happens soon."""


@dataclass
class Deployment:
    """What runs, and the ways to it.

    Args:
        folder: Of everything, logs too.
        compiled: Where compiled programs are kept.
        settings: What reaches database and store without any link.
        links: Every link of the run.
        clocks: Those of gateways and workers.
    """

    folder: Path
    compiled: Path
    settings: Settings
    links: Links
    clocks: Clocks
    broker: Path
    """Socket of the broker itself."""
    processes: dict[str, Process] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)
    key: str = ""

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.folder / "logs"

    def named(self, beginning: str) -> list[Process]:
        """Processes by the beginning of their names."""
        return [
            each for name, each in self.processes.items() if name.startswith(beginning)
        ]

    def links_to(self, server: str) -> list[Link]:
        """Links to the broker, the database or the store."""
        return [link for link in self.links.all if link.name.endswith(server)]

    def add(
        self, name: str, command: list[str], environment: dict[str, str]
    ) -> Process:
        """Start one more process, which is kept up from now on."""
        process = Process(name, command, environment, self.logs)
        self.logs.mkdir(exist_ok=True)
        self.processes[name] = process
        process.start()
        return process

    def add_ours(
        self,
        name: str,
        command: str,
        settings: Settings,
        *,
        before: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """Start a gateway or a worker.

        Args:
            name: Of the process.
            command: The module with its options.
            settings: Of the process.
            before: A command that becomes the one that follows it.
            **environment: More variables.
        """
        cache = {"JAX_COMPILATION_CACHE_DIR": os.fspath(self.compiled)}
        given = settings.environment() | cache | self.clocks.environment(name)
        words = [*before, sys.executable, "-P", "-m", *command.split()]
        self.add(name, words, given | environment)

    def keep_up(self) -> None:
        """Start again what ended."""
        for process in self.processes.values():
            process.keep_up()

    def wait_until_ready(self) -> None:
        """Wait for every gateway to say that it is ready, and for the workers.

        Raises:
            StackError: They are not in time.
        """
        wanted = {
            "training": len(self.named("worker")),
            "rollouts": len(self.named("rollouts")),
        }

        def is_ready(url: str) -> bool:
            self.keep_up()
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"{url}/health/ready", timeout=5, trust_env=False)
                # Any other answer may be a problem, which has no checks.
                return answer.status_code == 200 and _has(answer.json(), wanted)
            return False

        for url in self.urls:
            wait_for(lambda url=url: is_ready(url), READY_WITHIN_S, url, self.logs)

    def close(self) -> None:
        """End everything, servers last."""
        servers = [self.processes[name] for name in SERVERS if name in self.processes]
        ours = [each for each in self.processes.values() if each not in servers]
        for group in (ours, servers):
            for process in group:
                # Asked, the S3 server takes twenty seconds; nobody reads it any more.
                end = process.kill if process.name == "store" else process.ask_to_end
                end()
            for process in group:
                process.close()
        self.links.close()
        self.clocks.close()


def _has(found: dict[str, Any], wanted: dict[str, int]) -> bool:
    """Whether a ready gateway reaches its servers and so many workers live."""
    reached = {found["checks"][name] for name in ("database", "queue")} == {"ok"}
    there = found["workers"]
    return reached and all(there[kind] >= n for kind, n in wanted.items())


@contextlib.contextmanager
def local(folder: Path, compiled: Path, times: Times) -> Iterator[Deployment]:
    """SQLite, a local folder and Valkey; one gateway and two workers.

    Args:
        folder: An empty folder.
        compiled: Where compiled programs are kept from one run to the next.
        times: ``TIMES``, and what else is set.
    """
    settings = Settings(data_folder=folder / "data", **times)
    with opened(folder, compiled, settings, one_clock=True) as it:
        link = it.links.add("all to queue", it.broker)
        settings = it.settings.model_copy(
            update={
                "redis_url": f"redis://127.0.0.1:{link.port}/0",
                "port": free_port(),
            }
        )
        it.urls = [f"http://127.0.0.1:{settings.port}"]
        prepare(it)
        it.add_ours("gateway", "api", settings)
        for number in (1, 2):
            it.add_ours(f"worker-{number}", "worker", settings)
        it.wait_until_ready()
        yield it


@contextlib.contextmanager
def opened(
    folder: Path, compiled: Path, settings: Settings, *, one_clock: bool
) -> Iterator[Deployment]:
    """A deployment with a broker and nothing else yet."""
    compiled.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(parents=True, exist_ok=True)
    settings.data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Sockets have short paths.
    sockets = Path(tempfile.mkdtemp(prefix="spnode-chaos-"))
    broker = sockets / "valkey.sock"
    clocks = Clocks(folder / "clocks", one=one_clock)
    it = Deployment(folder, compiled, settings, Links(), clocks, broker)
    try:
        _start_broker(it, sockets)
        yield it
    finally:
        it.close()
        shutil.rmtree(sockets, ignore_errors=True)


def _start_broker(it: Deployment, sockets: Path) -> None:
    server = valkey.find_server()
    if server is None:
        raise StackError("no Valkey or Redis server: `./spnode doctor` says more")
    kept = Folder(it.folder / "broker")
    (kept.path / "valkey").mkdir(parents=True, exist_ok=True)
    text = valkey.CONFIGURATION.format(socket=it.broker, directory=kept.path / "valkey")
    configuration = sockets / "valkey.conf"
    configuration.write_text(text)
    it.add("broker", [server[0], os.fspath(configuration)], {})
    wait_for(lambda: answers(it.broker), 20, "the broker", it.logs)


def prepare(it: Deployment) -> None:
    """Make the schema and a key."""
    database = Database(it.settings.database_url)
    try:
        upgrade(database)
        it.key, _ = Keys(database).create("chaos", SCOPES)
    finally:
        database.close()


def answers(broker: Path) -> bool:
    """Whether the broker behind a socket answers."""
    client = redis.Redis.from_url(f"unix://{broker}")
    with contextlib.suppress(redis.RedisError), client:
        return bool(client.ping())
    return False
