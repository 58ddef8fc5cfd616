"""A deployment to be hurt whose processes share three URLs and nothing else.

Each process reaches broker, database and store through links of its own, and has a data
folder of its own.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.ports import free_port
from deploy.chaos import servers
from deploy.chaos.deployment import Deployment, Times, opened, prepare
from deploy.chaos.links import HOST
from services.settings import Settings

GATEWAYS, WORKERS = 2, 3


@dataclass
class Fleet:
    """A deployment whose servers run, and the ways to them.

    Args:
        deployment: Broker, database and store, until processes are added.
        database: Port of the database itself.
        store: Port of the store itself.
    """

    deployment: Deployment
    database: int
    store: int

    def add(self, name: str, host: str = HOST, before: Sequence[str] = ()) -> None:
        """Start a process behind its links.

        Args:
            name: It begins with ``gateway``, ``worker`` or ``rollouts``.
            host: Where it finds its links.
            before: A command that becomes that of the process.
        """
        it = self.deployment
        to_queue = it.links.add(f"{name} to queue", it.broker, host=host)
        to_database = it.links.add(
            f"{name} to database", (HOST, self.database), host=host
        )
        to_store = it.links.add(f"{name} to store", (HOST, self.store), host=host)
        given = it.settings
        database_url = servers.through(given.database_url, host, to_database.port)
        changes = {
            "data_folder": it.folder / name,
            "redis_url": f"redis://{host}:{to_queue.port}/0",
            "database_url": database_url,
        }
        command = "worker --rollouts" if name.startswith("rollouts") else "worker"
        if name.startswith("gateway"):
            command = "api"
            changes["port"] = free_port()
            it.urls.append(f"http://{HOST}:{changes['port']}")
        settings = given.model_copy(update=changes)
        settings.data_folder.mkdir(mode=0o700)
        variables = _credentials(host, to_store.port)
        it.add_ours(name, command, settings, before=before, **variables)


@contextlib.contextmanager
def network(folder: Path, compiled: Path, times: Times) -> Iterator[Deployment]:
    """PostgreSQL, S3 and Valkey; two gateways, three workers, one for rollouts.

    Args:
        folder: An empty folder.
        compiled: Where compiled programs are kept from one run to the next.
        times: ``TIMES``, and what else is set.
    """
    with fleet(folder, compiled, times) as it:
        names = [f"gateway-{n + 1}" for n in range(GATEWAYS)]
        names += [f"worker-{n + 1}" for n in range(WORKERS)]
        for name in [*names, "rollouts"]:
            it.add(name)
        it.deployment.wait_until_ready()
        yield it.deployment


@contextlib.contextmanager
def fleet(
    folder: Path, compiled: Path, times: Times, *, durable: bool = True
) -> Iterator[Fleet]:
    """PostgreSQL, S3 and Valkey, and no process of ours yet.

    Args:
        folder: An empty folder.
        compiled: Where compiled programs are kept from one run to the next.
        times: ``TIMES``, and what else is set.
        durable: Whether what the database commits outlives a power cut.
    """
    # Nobody, as whom PostgreSQL may run, must be able to enter.
    cluster = Path(tempfile.mkdtemp(prefix="spnode-chaos-postgres-"))
    bare = Settings(data_folder=folder / "data", **times)
    try:
        with opened(folder, compiled, bare, one_clock=False) as it, _environment_kept():
            command, database = servers.postgres(cluster, durable=durable)
            it.add("database", command, {})
            (folder / "store").mkdir()
            command, store = servers.seaweed(folder / "store")
            it.add("store", command, {})
            urls = {
                "database_url": servers.make_database(database, it.logs),
                "store_url": servers.make_bucket(store, it.logs),
                "executor": "queue",
            }
            os.environ.update(_credentials(HOST, store))
            it.settings = it.settings.model_copy(update=urls)
            prepare(it)
            yield Fleet(it, database, store)
    finally:
        shutil.rmtree(cluster, ignore_errors=True)


def _credentials(host: str, port: int) -> dict[str, str]:
    return servers.CREDENTIALS | {"AWS_ENDPOINT": f"http://{host}:{port}"}


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """At the end this process has the variables that it had."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
