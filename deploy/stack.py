"""The embedded stack: gateway, worker and broker on one machine, from one folder.

A start goes on with whatever the folder holds: after ``kill -9`` of everything the
supervisor's leftovers are removed, jobs resume from their checkpoints.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from deploy import supervisor, valkey
from deploy.folder import ROOT, Folder, write_private
from deploy.given import given_settings
from deploy.supervisor import Process, Program
from services.database.engine import Database
from services.devices import visible_gpus
from services.errors import ServiceError, Unavailable
from services.jobs import Jobs
from services.keys import SCOPES, Keys
from services.queue import Queue
from services.queue_names import QUEUES, ROLLOUTS_QUEUE
from services.settings import Settings, read_settings

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 30.0
CRASHES_ALLOWED = 4
"""A process that crashes so often before it was ready will not start."""
PORTS_TRIED = 100
# How often a start begins anew where its port was taken meanwhile.
_STARTS = 3
CLIENT_VARIABLES = ("SPNODE_URL", "SPNODE_KEY")


class StackError(RuntimeError):
    """The stack cannot start or stop; the message says what to do."""


class _PortTaken(StackError):
    """Another process has taken the port since it was found free."""


@dataclass(frozen=True)
class Status:
    """What runs, where, and how it has been."""

    running: bool
    url: str
    data_folder: str
    processes: list[Process] = field(default_factory=list)
    queues: dict[str, int | None] = field(default_factory=dict)
    """Messages that wait, by queue; None where the broker does not answer."""
    jobs: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the newest jobs that wait or run, by state."""

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


def up(folder: Folder, say: Callable[[str], None]) -> bool:
    """Start the stack and wait until it is ready.

    Args:
        folder: Its data folder.
        say: Told what happens, a line at a time.

    Returns:
        False where it ran already.

    Raises:
        StackError: It did not become ready, with the end of the log that says why.
        services.settings.SettingsError: A ``SPNODE_`` variable is wrong.
    """
    read_settings()
    with folder.locked():
        if supervisor.processes(folder) is not None:
            return False
        say(f"starting in {folder.path}")
        for left in reversed(range(_STARTS)):
            try:
                _start(folder)
                break
            except _PortTaken as error:
                if not left:
                    raise
                say(f"{error}: starting on another one")
        return True


def _start(folder: Folder) -> None:
    given = given_settings(folder)
    settings = given.model_copy(update={"port": _port(folder, given)})
    write_private(folder.stack, _json(settings, given))
    configuration = supervisor.write_configuration(folder, _programs(folder, settings))
    supervisor.launch(folder, configuration, _environment(settings))
    try:
        _wait_until_ready(folder, _url(folder), READY_WITHIN_S, settings)
        _ensure_key(folder, settings)
    except BaseException:
        # Ctrl-C too: a start is whole or did not happen.
        _stop(folder)
        raise


def down(folder: Folder) -> bool:
    """Stop the stack; False where none ran.

    Raises:
        StackError: A process could not be ended.
    """
    with folder.locked():
        if not is_up(folder):
            return False
        left = _stop(folder)
        if left:
            raise StackError(f"these processes did not end: {left}")
        return True


def status(folder: Folder) -> Status:
    """What runs now.

    Raises:
        services.settings.SettingsError: A ``SPNODE_`` variable is wrong.
    """
    read_settings()
    found = supervisor.processes(folder)
    if found is None:
        return Status(False, "", os.fspath(folder.path))
    url = _url(folder)
    return Status(
        running=True,
        url=url,
        data_folder=os.fspath(folder.path),
        processes=found,
        queues=_queues(folder),
        jobs=_jobs(folder),
    )


def is_up(folder: Folder) -> bool:
    """Whether a supervisor answers."""
    return supervisor.processes(folder) is not None


def address(folder: Folder) -> tuple[str, str | None] | None:
    """URL and key of the stack of this folder; None before its first start."""
    return (_url(folder), folder.read_key()) if folder.read_stack() else None


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there, and no other does.

    Raises:
        StackError: None could: the host is not of this machine, or the port is kept.
    """
    with _bound(host, port) as probe:
        return probe is not None


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket | None]:
    """A socket with that address; None where another has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise StackError(
                    f"SPNODE_PORT: found {port}, which only root may use; expected "
                    "1024 or more"
                ) from error
            if error.errno != errno.EADDRINUSE:
                raise StackError(
                    f"SPNODE_HOST: found {host!r} ({error.strerror}); expected an "
                    "address of this machine"
                ) from error
            yield None
            return
        yield probe


def find_port(host: str, first: int) -> int:
    """The first free port from ``first`` on; one that the system chooses for 0.

    Raises:
        StackError: None of a hundred is free, or none can be on that host.
    """
    if first == 0:
        with _bound(host, 0) as probe:
            assert probe is not None, "the system chose it"
            return int(probe.getsockname()[1])
    for port in range(first, first + PORTS_TRIED):
        if is_free(host, port):
            return port
    raise StackError(
        f"no port of {first} to {first + PORTS_TRIED - 1} is free on {host}; "
        "set SPNODE_PORT"
    )


def _port(folder: Folder, given: Settings) -> int:
    first = given.port
    if "SPNODE_PORT" not in os.environ:
        first = folder.read_stack().get("port", first)
    return find_port(given.host, first)


def _environment(settings: Settings) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in CLIENT_VARIABLES
    }
    return inherited | settings.environment() | {"PYTHONPATH": os.fspath(ROOT)}


def _programs(folder: Folder, settings: Settings) -> list[Program]:
    python = [sys.executable, "-P", "-m"]
    programs = [Program("gateway", [*python, "api"], priority=20)]
    gpus, count = visible_gpus(), settings.job_workers
    for number in range(count):
        # One alone divides its minibatches among all devices.
        gpu = _gpu(gpus, number) if count > 1 else {}
        name = "worker" if count == 1 else f"worker-{number + 1}"
        command = [*python, "worker"]
        programs.append(Program(name, command, 30, stop_s=25, environment=gpu))
    for number in range(_rollout_workers(settings)):
        command = [*python, "worker", "--rollouts"]
        name, gpu = f"rollouts-{number + 1}", _gpu(gpus, number)
        programs.append(Program(name, command, 30, stop_s=25, environment=gpu))
    if os.environ.get("SPNODE_REDIS_URL"):
        return programs
    server = valkey.find_server()
    if server is None:
        raise StackError(
            "no Valkey or Redis server: put valkey-server or redis-server on PATH, "
            "or set SPNODE_REDIS_URL"
        )
    command = [server[0], valkey.write_configuration(folder)]
    return [Program("valkey", command, priority=10), *programs]


def _gpu(gpus: Sequence[str], number: int) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def _rollout_workers(settings: Settings) -> int:
    return settings.rollout_workers if settings.executor == "queue" else 0


def _json(settings: Settings, given: Settings) -> str:
    # The host that others name: a wildcard address is no address to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    chosen = {
        "url": f"http://{host}:{settings.port}",
        "port": settings.port,
        "redis_url": settings.redis_url,
        "database_url": settings.database_url,
        "settings": given.environment(),
    }
    return json.dumps(chosen, indent=2) + "\n"


def _url(folder: Folder) -> str:
    return folder.read_stack().get("url", "")


def _wait_until_ready(
    folder: Folder, url: str, within_s: float, settings: Settings
) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = supervisor.processes(folder) or []
        lost = [
            each.name
            for each in found
            if each.state == "fatal" or len(each.restarts) >= CRASHES_ALLOWED
        ]
        taken = _PortTaken(f"another process has taken port {settings.port}")
        if lost:
            if "gateway" in lost and not is_free(settings.host, settings.port):
                raise taken
            _give_up(folder, f"{', '.join(lost)} does not stay up", lost)
        running = bool(found) and all(each.state == "running" for each in found)
        if running and _is_ready(url, _rollout_workers(settings)):
            # Who started at the same time may have found the same port free.
            pids = [each.pid for each in found if each.name == "gateway"]
            if not any(_listens(pid, settings.port) for pid in pids):
                raise taken
            return
        time.sleep(0.1)
    names = [program.name for program in _programs(folder, settings)]
    _give_up(folder, f"not ready after {within_s:g} s", names)


def _listens(pid: int, port: int) -> bool:
    """Whether a process listens on a port, as far as that may be known."""
    try:
        held = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False
    ports = [each.laddr.port for each in held if each.status == psutil.CONN_LISTEN]
    return port in ports


def _is_ready(url: str, rollout_workers: int) -> bool:
    try:
        answer = httpx.get(f"{url}/health/ready", timeout=2)
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    return answer.json()["workers"][ROLLOUTS_QUEUE] >= rollout_workers


def _give_up(folder: Folder, reason: str, names: list[str]) -> None:
    ends = "\n".join(_end_of(folder.logs / f"{name}.log") for name in names)
    raise StackError(f"the stack did not start: {reason}\n{ends}")


def _stop(folder: Folder) -> list[int]:
    """End every process; give the pids of those that are there all the same."""
    found = supervisor.processes(folder) or []
    daemon = supervisor.call(folder, "getPID")
    pids = [pid for pid in (daemon, *(each.pid for each in found)) if pid]
    supervisor.shutdown(folder, pids, STOP_WITHIN_S)
    return [pid for pid in pids if psutil.pid_exists(pid)]


def _end_of(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-8:]
    except FileNotFoundError:
        return f"{log}: nothing was written"
    return "\n".join([f"{log}:", *(f"  {line}" for line in lines)])


def _ensure_key(folder: Folder, settings: Settings) -> None:
    """Make the API key of this folder, unless its file holds one that is valid."""
    database = Database(settings.database_url)
    try:
        keys = Keys(database)
        secret = folder.read_key()
        if secret is None or keys.verify(secret) is None:
            secret, _ = keys.create("embedded stack", SCOPES)
            write_private(folder.key, secret + "\n")
    finally:
        database.close()


def _queues(folder: Folder) -> dict[str, int | None]:
    there = {"redis_url": folder.read_stack()["redis_url"]}
    queue = Queue(read_settings().model_copy(update=there))
    found: dict[str, int | None] = {}
    for name in QUEUES:
        try:
            found[name] = queue.waiting(name)
        except Unavailable:
            found[name] = None
    queue.close()
    return found


def _jobs(folder: Folder) -> dict[str, list[str]]:
    database = Database(folder.read_stack()["database_url"])
    try:
        jobs = Jobs(database)
        return {
            state: [job.id for job in jobs.list(limit=100, state=state).items]
            for state in ("running", "queued")
        }
    except ServiceError:
        return {}
    finally:
        database.close()
