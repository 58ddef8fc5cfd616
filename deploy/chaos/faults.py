"""The faults: each begins, says whom it hit, and gives what ends it.

A fault that finds nothing to hit (no job runs, say) returns None and is tried again a
moment later.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psutil
import redis

from deploy.chaos.deployment import TIMES, Deployment
from deploy.chaos.links import Link, State
from deploy.chaos.processes import Process
from deploy.chaos.schedule import Planned

T = TypeVar("T")
FILE_LIMIT_BYTES = 1024
"""No file grows beyond this where the disk counts as full."""
STEP_S = 3600
"""By how much a clock is wrong."""
_LEASE_S = TIMES["lease_seconds"]
# Of a server: a lease that was renewed just before can be once more.
_FROZEN_S = (1.0, _LEASE_S - 2.0)


@dataclass(frozen=True)
class Hit:
    """A fault that has begun.

    Args:
        whom: The process, link or server.
        end: Undoes it; called once.
    """

    whom: str
    end: Callable[[], None] = lambda: None


Begin = Callable[[Deployment, Planned], Hit | None]
Fault = tuple[Begin, tuple[float, float]]
"""How it begins; its shortest and longest time."""


def kill_worker(it: Deployment, planned: Planned) -> Hit | None:
    """``kill -9`` of a worker."""
    return _kill(it.named("worker"), planned)


def stop_worker(it: Deployment, planned: Planned) -> Hit | None:
    """SIGTERM of a worker, as in a rolling restart."""
    worker = _chosen([each for each in it.named("worker") if each.is_up], planned)
    if worker is None:
        return None
    worker.terminate()
    return Hit(worker.name)


def kill_child(it: Deployment, planned: Planned) -> Hit | None:
    """``kill -9`` of the process of a job."""
    worker = _chosen(_busy(it), planned)
    if worker is None:
        return None
    for child in worker.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    return Hit(worker.name)


def freeze_worker(it: Deployment, planned: Planned) -> Hit | None:
    """SIGSTOP of a worker with its children, SIGCONT after its lease: a zombie."""
    return _freeze(_busy(it), planned, Process.family)


def freeze_child(it: Deployment, planned: Planned) -> Hit | None:
    """SIGSTOP of the process of a job alone: its worker must notice."""
    return _freeze(_busy(it), planned, Process.children)


def freeze_gateway(it: Deployment, planned: Planned) -> Hit | None:
    """SIGSTOP of a gateway with its children: it is connected to, and answers none."""
    return _freeze_one_of(it, "gateway", planned)


def kill_rollouts(it: Deployment, planned: Planned) -> Hit | None:
    """``kill -9`` of the worker that computes the gateways' rollouts."""
    return _kill(it.named("rollouts"), planned)


def kill_gateway(it: Deployment, planned: Planned) -> Hit | None:
    """``kill -9`` of a gateway."""
    return _kill(it.named("gateway"), planned)


def restart_broker(it: Deployment, planned: Planned) -> Hit | None:
    """``kill -9`` of the broker, which comes back with what its log holds."""
    return _kill(it.named("broker"), planned)


def freeze_broker(it: Deployment, planned: Planned) -> Hit | None:
    """SIGSTOP of the broker: it takes connections, and answers none."""
    return _freeze_one_of(it, "broker", planned)


def wipe_broker(it: Deployment, planned: Planned) -> Hit | None:
    """FLUSHALL: every message is lost."""
    # Another fault may have frozen it, whose end waits for this.
    client = redis.Redis.from_url(f"unix://{it.broker}", socket_timeout=1.0)
    with client:
        try:
            client.flushall()
        except redis.RedisError:
            return None
    return Hit("broker")


def lock_database(it: Deployment, planned: Planned) -> Hit | None:
    """Somebody else holds SQLite's lock for writing."""
    path = it.settings.data_folder / "spnode.db"
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        connection.close()
        return None

    def let_go() -> None:
        connection.execute("ROLLBACK")
        connection.close()

    return Hit("database", let_go)


def fill_disk(it: Deployment, planned: Planned) -> Hit | None:
    """A worker's or a gateway's files cannot grow, as on a full disk."""
    ours = it.named("worker") + it.named("gateway")
    process = _chosen([each for each in ours if each.is_up], planned)
    if process is None:
        return None
    _limit_files(process, FILE_LIMIT_BYTES)
    return Hit(process.name, lambda: _limit_files(process, None))


def slow_link(it: Deployment, planned: Planned) -> Hit | None:
    """Everything that crosses a link takes long."""
    return _change_link(it, planned, "slow")


def cut_link(it: Deployment, planned: Planned) -> Hit | None:
    """A link's connections break, and no new ones come about."""
    return _change_link(it, planned, "cut")


def hold_link(it: Deployment, planned: Planned) -> Hit | None:
    """Nothing passes a link and nobody is told, as where packets get lost."""
    return _change_link(it, planned, "held")


def step_clock(it: Deployment, planned: Planned) -> Hit | None:
    """The clock of one machine is an hour ahead or behind, for all that runs there."""
    right = [name for name, ahead_s in it.clocks.ahead.items() if not ahead_s]
    name = _chosen(right, planned)
    if name is None:
        return None
    # Further digits of the same choice.
    sign = 1 if planned.choice * len(right) % 1 < 0.5 else -1
    it.clocks.step(name, sign * STEP_S)
    whom = f"{name}, {sign * STEP_S:+d} s"
    return Hit(whom, lambda: it.clocks.step(name, 0))


def restart_database(it: Deployment, planned: Planned) -> Hit | None:
    """``kill -9`` of the database server, which recovers from its log."""
    return _kill(it.named("database"), planned)


def freeze_database(it: Deployment, planned: Planned) -> Hit | None:
    """SIGSTOP of the database server with all its processes, for less than a lease."""
    return _freeze_one_of(it, "database", planned)


def restart_store(it: Deployment, planned: Planned) -> Hit | None:
    """``kill -9`` of the S3 server, which comes back with what its files hold."""
    return _kill(it.named("store"), planned)


def fail_store(it: Deployment, planned: Planned) -> Hit | None:
    """A store answers every request with 503, and some PUTs with 404."""
    return _change_link(it, planned, "errors", it.links_to("store"))


STEP_CLOCK = "step clock"
FAULTS: dict[str, Fault] = {
    # For how long: of what is killed, until it is started again.
    "kill worker": (kill_worker, (0.5, 3.0)),
    "stop worker": (stop_worker, (0.0, 0.0)),
    "kill child": (kill_child, (0.0, 0.0)),
    "freeze worker": (freeze_worker, (_LEASE_S + 2.0, _LEASE_S + 5.0)),
    # Four leases and more.
    "freeze child": (freeze_child, (4 * _LEASE_S + 5.0, 4 * _LEASE_S + 10.0)),
    "kill gateway": (kill_gateway, (0.5, 3.0)),
    "freeze gateway": (freeze_gateway, (2.0, _LEASE_S + 4.0)),
    "restart broker": (restart_broker, (0.5, 6.0)),
    "freeze broker": (freeze_broker, _FROZEN_S),
    "wipe broker": (wipe_broker, (0.0, 0.0)),
    "fill disk": (fill_disk, (2.0, 8.0)),
    "slow link": (slow_link, (4.0, 10.0)),
    "cut link": (cut_link, (2.0, 10.0)),
    "hold link": (hold_link, (2.0, _LEASE_S + 4.0)),
    STEP_CLOCK: (step_clock, (5.0, 15.0)),
}
"""The faults of every deployment by their names."""
LOCAL: dict[str, Fault] = {**FAULTS, "lock database": (lock_database, (2.0, 14.0))}
NETWORK: dict[str, Fault] = {
    **FAULTS,
    "restart database": (restart_database, (0.5, 4.0)),
    "freeze database": (freeze_database, _FROZEN_S),
    "restart store": (restart_store, (0.5, 4.0)),
    "kill rollouts": (kill_rollouts, (0.5, 3.0)),
    "fail store": (fail_store, (3.0, 10.0)),
}


def _chosen(among: Sequence[T], planned: Planned) -> T | None:
    return among[int(planned.choice * len(among))] if among else None


def _busy(it: Deployment) -> list[Process]:
    """Workers with a job."""
    return [each for each in it.named("worker") if each.children()]


def _kill(among: Sequence[Process], planned: Planned) -> Hit | None:
    process = _chosen([each for each in among if each.is_up], planned)
    if process is None:
        return None
    process.kill(planned.seconds)
    return Hit(process.name)


def _freeze_one_of(it: Deployment, name: str, planned: Planned) -> Hit | None:
    """Stop a process with its children until the fault ends."""
    up = [each for each in it.named(name) if each.is_up]
    return _freeze(up, planned, Process.family)


def _freeze(
    among: Sequence[Process],
    planned: Planned,
    part: Callable[[Process], list[psutil.Process]],
) -> Hit | None:
    """Stop a part of a process until the fault ends."""
    process = _chosen(among, planned)
    if process is None:
        return None
    frozen = part(process)
    for each in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.suspend()

    def wake() -> None:
        for each in reversed(frozen):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()

    return Hit(process.name, wake)


def _limit_files(process: Process, most: int | None) -> None:
    """Set the soft limit alone: some children have a hard one of their own."""
    for each in process.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            _, hard = each.rlimit(psutil.RLIMIT_FSIZE)
            each.rlimit(psutil.RLIMIT_FSIZE, (hard if most is None else most, hard))


def _change_link(
    it: Deployment, planned: Planned, state: State, among: Sequence[Link] | None = None
) -> Hit | None:
    links = it.links.all if among is None else among
    free = [link for link in links if link.state == "open"]
    link = _chosen(free, planned)
    if link is None:
        return None
    it.links.change(link, state)
    return Hit(link.name, lambda: it.links.change(link, "open"))
