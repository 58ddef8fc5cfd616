"""A real PostgreSQL, as tests start it."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks.peers.ports import free_port
from benchmarks.peers.postgres import make_cluster


@contextmanager
def postgres() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server and its URL, to which ``/name`` of a database is added."""
    folder = Path(tempfile.mkdtemp(prefix="spnode-postgres-"))
    port = free_port()
    command = make_cluster(folder, port, durable=False)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
    url = f"postgresql+psycopg://spnode@127.0.0.1:{port}"
    try:
        _wait_for(url)
        yield server, url
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def empty_database(server: str) -> Iterator[str]:
    """The URL of a database of its own."""
    name = f"test_{time.time_ns()}"
    run_apart(f"{server}/postgres", f"CREATE DATABASE {name}")
    yield f"{server}/{name}"
    run_apart(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


def run_apart(url: str, *statements: str) -> None:
    """Run statements by a connection of their own, each committed at once."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def end_connections(url: str) -> None:
    """As a restart of the server does."""
    server, _, name = url.rpartition("/")
    run_apart(
        f"{server}/postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}'",
    )


@contextmanager
def away(url: str) -> Iterator[None]:
    """Cut everyone off a database, and refuse who comes, until the block ends."""
    server, _, name = url.rpartition("/")
    admin = f"{server}/postgres"
    allow = f"ALTER DATABASE {name} ALLOW_CONNECTIONS"
    run_apart(admin, f"{allow} false")
    end_connections(url)
    try:
        yield
    finally:
        run_apart(admin, f"{allow} true")


def _wait_for(url: str) -> None:
    engine = sa.create_engine(f"{url}/postgres", poolclass=sa.NullPool)
    for _ in range(600):
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            time.sleep(0.1)
    raise TimeoutError("PostgreSQL did not start within 60 s")
