"""A deployment to be hurt whose processes share three URLs and nothing else.

Each process reaches broker, database and store through links of its own, and has a data
folder of its own.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.ports import free_port
from deploy.chaos import servers
from deploy.chaos.deployment import Deployment, Times, opened, prepare
from services.settings import Settings

GATEWAYS, WORKERS = 2, 3


@contextlib.contextmanager
def network(folder: Path, compiled: Path, times: Times) -> Iterator[Deployment]:
    """PostgreSQL, S3 and Valkey; two gateways, three workers, one for rollouts.

    Args:
        folder: An empty folder.
        compiled: Where compiled programs are kept from one run to the next.
        times: ``TIMES``, and what else is set.
    """
    # Nobody, as whom PostgreSQL may run, must be able to enter.
    cluster = Path(tempfile.mkdtemp(prefix="spnode-chaos-postgres-"))
    bare = Settings(data_folder=folder / "data", **times)
    try:
        with opened(folder, compiled, bare, one_clock=False) as it, _environment_kept():
            command, database = servers.postgres(cluster)
            it.add("database", command, {})
            (folder / "store").mkdir()
            command, store = servers.seaweed(folder / "store")
            it.add("store", command, {})
            urls = {
                "database_url": servers.make_database(database, it.logs),
                "store_url": servers.make_bucket(store, it.logs),
                "executor": "queue",
            }
            os.environ.update(_credentials(store))
            it.settings = it.settings.model_copy(update=urls)
            prepare(it)
            names = [f"gateway-{n + 1}" for n in range(GATEWAYS)]
            names += [f"worker-{n + 1}" for n in range(WORKERS)]
            for name in [*names, "rollouts"]:
                _add(it, name, database, store)
            it.wait_until_ready()
            yield it
    finally:
        shutil.rmtree(cluster, ignore_errors=True)


def _add(it: Deployment, name: str, database: int, store: int) -> None:
    """Start a process behind its links."""
    to_queue = it.links.add(f"{name} to queue", it.broker)
    to_database = it.links.add(f"{name} to database", ("127.0.0.1", database))
    to_store = it.links.add(f"{name} to store", ("127.0.0.1", store))
    given = it.settings
    changes = {
        "data_folder": it.folder / name,
        "redis_url": f"redis://127.0.0.1:{to_queue.port}/0",
        "database_url": servers.through(given.database_url, to_database.port),
    }
    command = "worker --rollouts" if name == "rollouts" else "worker"
    if name.startswith("gateway"):
        command = "api"
        changes["port"] = free_port()
        it.urls.append(f"http://127.0.0.1:{changes['port']}")
    settings = given.model_copy(update=changes)
    settings.data_folder.mkdir(mode=0o700)
    it.add_ours(name, command, settings, **_credentials(to_store.port))


def _credentials(port: int) -> dict[str, str]:
    return servers.CREDENTIALS | {"AWS_ENDPOINT": f"http://127.0.0.1:{port}"}


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """At the end this process has the variables that it had."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
