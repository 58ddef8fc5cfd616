"""``doctor``: what this machine has, what is missing, and how to mend it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from deploy import stack, valkey
from deploy.folder import ROOT, Folder
from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import fits, is_newer
from services.errors import Unavailable
from services.queue import Queue
from services.settings import SettingsError, read_settings

GIB = 2**30
LEAST_FREE_BYTES = 1 * GIB
FREE_BYTES_WANTED = 5 * GIB
JAX_WITHIN_S = 60
EARLIEST_CLOCK = 1_735_689_600
"""2025-01-01: a clock before that is not set, and signed times would be wrong."""
# docs/decisions/0024-jax-versions.md; pyproject.toml takes none of them.
_WAITING_JAX = ("0.10.", "0.11.0", "0.11.1")
_DEVICES = (
    "import jax, json; "
    "print(json.dumps([f'{d.platform}: {d.device_kind}' for d in jax.devices()]))"
)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    level: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def examine(folder: Folder) -> Iterator[Finding]:
    """Look at everything the stack needs, one finding at a time."""
    checks: tuple[Callable[[Folder], Finding], ...] = (
        _python,
        _packages,
        _settings,
        _data_folder,
        _disk,
        _broker,
        _database,
        _store,
        _port,
        _devices,
        _clock,
        _stack,
    )
    for check in checks:
        try:
            yield check(folder)
        except Exception as error:
            # What nobody thought of is what a doctor is asked about.
            name = check.__name__.strip("_").replace("_", " ")
            kind = (
                "" if isinstance(error, SettingsError) else f"{type(error).__name__}: "
            )
            said = f"{kind}{_first_line(error)}"
            yield Finding(name, "fail", said, "docs/faq.md, docs/settings.md")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _python(_: Folder) -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    return Finding("python", "ok", found)


def _packages(_: Folder) -> Finding:
    names = ("jax", "equinox", "numpy", "fastapi", "celery", "sqlalchemy", "supervisor")
    remedy = f"remove {ROOT / '.venv'} and run ./spnode again"
    try:
        found = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    except metadata.PackageNotFoundError as error:
        return Finding("packages", "fail", f"{error.name} is missing", remedy)
    if metadata.version("jax").startswith(_WAITING_JAX):
        said = f"{found}: batched solves of this JAX may wait for each other for ever"
        return Finding("packages", "fail", said, remedy)
    return Finding("packages", "ok", found)


def _settings(_: Folder) -> Finding:
    try:
        read_settings()
    except SettingsError as error:
        return Finding("settings", "fail", str(error), "docs/settings.md lists them")
    given = sorted(name for name in os.environ if name.startswith("SPNODE_"))
    return Finding("settings", "ok", ", ".join(given) or "defaults")


def _data_folder(folder: Folder) -> Finding:
    return _written("data folder", folder.path)


def _written(name: str, path: Path) -> Finding:
    """Whether a folder, or the one that it will be made in, takes a file."""
    remedy = "set SPNODE_DATA_FOLDER to a folder that you can write to"
    parent = path
    while not parent.exists():
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(b"probe")
    except OSError as error:
        return Finding(name, "fail", f"{path}: {error}", remedy)
    return Finding(name, "ok", os.fspath(path))


def _disk(folder: Folder) -> Finding:
    parent: Path = folder.path
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    found = f"{free / GIB:.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        return Finding("disk", "fail", found, "free at least 1 GiB")
    if free < FREE_BYTES_WANTED:
        return Finding("disk", "warn", found, "datasets and checkpoints may need more")
    return Finding("disk", "ok", found)


def _broker(_: Folder) -> Finding:
    if os.environ.get("SPNODE_REDIS_URL"):
        return _answers("broker", "SPNODE_REDIS_URL", _ask_broker)
    server = valkey.find_server()
    if server is None:
        remedy = "put valkey-server or redis-server on PATH, or set SPNODE_REDIS_URL"
        return Finding("broker", "fail", "no Valkey or Redis server", remedy)
    done = subprocess.run(
        [server[0], "--version"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        remedy = "install valkey-server or redis-server; this binary does not run here"
        return Finding("broker", "fail", done.stderr.strip(), remedy)
    words = done.stdout.split()
    return Finding("broker", "ok", f"{' '.join(words[:3])}, from {server[1]}")


def _database(folder: Folder) -> Finding:
    if os.environ.get("SPNODE_DATABASE_URL"):
        return _answers(
            "database",
            "SPNODE_DATABASE_URL",
            lambda: _ask_database(read_settings().database_url),
        )
    file = folder.path / "spnode.db"
    if not file.exists():
        return Finding("database", "ok", "`up` makes one in the data folder")
    try:
        note = _ask_database(f"sqlite:///{file}")
    except (Unavailable, SQLAlchemyError, OSError) as error:
        remedy = "docs/backup.md says how a backup is restored"
        return Finding("database", "fail", f"{file}: {_first_line(error)}", remedy)
    return Finding("database", "ok", f"{file}{note}")


def _store(folder: Folder) -> Finding:
    if os.environ.get("SPNODE_STORE_URL"):
        return _answers("store", "SPNODE_STORE_URL", _ask_store)
    return _written("store", folder.path / "store")


def _answers(name: str, setting: str, ask: Callable[[], str]) -> Finding:
    """Whether what a setting names answers; ``ask`` gives what to note beside."""
    try:
        note = ask()
    except (Unavailable, SettingsError, ArgumentError, ValueError, OSError) as error:
        return Finding(name, "fail", str(error), f"see {setting} in docs/settings.md")
    return Finding(name, "ok", f"{setting} answers{note}")


def _ask_broker() -> str:
    with contextlib.closing(Queue(read_settings())) as queue:
        queue.ping()
    return ""


def _ask_database(url: str) -> str:
    with contextlib.closing(Database(url)) as database:
        database.ping()
        if fits(database):
            return ""
        with database.reading() as connection:
            if is_newer(connection):
                raise Unavailable("its schema is of another, newer version of spnode")
    return "; the next process that starts brings its schema"


def _ask_store() -> str:
    Blobs(read_settings().store_url).ping()
    return ""


def _port(folder: Folder) -> Finding:
    if stack.is_up(folder):
        return Finding(
            "port", "ok", f"in use by this stack: {stack.status(folder).url}"
        )
    given = read_settings()
    host, port = given.host, given.port
    try:
        is_free = stack.is_free(host, port)
    except stack.StackError as error:
        return Finding("port", "fail", str(error), "docs/settings.md")
    if is_free:
        said = f"{port} is free on {host}" if port else f"the system chooses on {host}"
        return Finding("port", "ok", said)
    remedy = "`up` takes the next free port; SPNODE_PORT chooses another"
    return Finding("port", "warn", f"{port} is taken on {host}", remedy)


def _devices(_: Folder) -> Finding:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DEVICES],
            capture_output=True,
            text=True,
            check=False,
            timeout=JAX_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        remedy = "a hanging driver? JAX_PLATFORMS=cpu leaves accelerators out"
        return Finding("devices", "fail", "JAX does not start", remedy)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["JAX does not start"])[-1]
        return Finding("devices", "fail", last, "JAX_PLATFORMS=cpu leaves GPUs out")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    note = f"{', '.join(found)}; {os.cpu_count()} CPU cores"
    if shutil.which("nvidia-smi") and not any("cpu" not in each for each in found):
        remedy = "a GPU is here that JAX does not use: docs/how_to/gpu.md"
        return Finding("devices", "warn", note, remedy)
    return Finding("devices", "ok", note)


def _clock(_: Folder) -> Finding:
    now = time.time()
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < EARLIEST_CLOCK:
        return Finding(
            "clock", "fail", found, "set the clock; leases on SQLite go by it"
        )
    return Finding("clock", "ok", found)


def _stack(folder: Folder) -> Finding:
    found = stack.status(folder)
    if not found.running:
        return Finding("stack", "ok", "not running; `up` starts it")
    bad = [each.name for each in found.processes if each.state != "running"]
    restarted = [each.name for each in found.processes if each.restarts]
    logs = f"see {folder.logs}"
    if bad:
        return Finding("stack", "fail", f"{', '.join(bad)} not running", logs)
    if restarted:
        return Finding("stack", "warn", f"{', '.join(restarted)} was restarted", logs)
    return Finding("stack", "ok", found.url)
