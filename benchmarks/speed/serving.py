"""Serving: requests of one row against a no-op, alone, unbatched, and other servers."""

import functools
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.paper.rows import Numbers
from benchmarks.peers.environment import PeerError
from benchmarks.speed import executors, other_servers
from benchmarks.speed.computing import computing
from benchmarks.speed.deployment import (
    MODEL,
    Deployment,
    Server,
    deployed,
    json_body,
)
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.load import Load, drive, post
from benchmarks.speed.robertson import times, unseen
from benchmarks.speed.turns import measured, ratios, spread
from spnode_client.arrays import pack

CONNECTIONS = 64
# Answers for each connection in a window, at least.
_EACH = 20

ABOUT = f"""
`POST /v1/rollout` of one row of Robertson's reaction at the model's own 51 times, with
authentication, limits and every check on; the same request again and again on
{CONNECTIONS} connections of one thread that speaks HTTP as raw bytes. The no-op is a
raw ASGI application that reads the body and answers `{{}}`, under uvicorn as it comes,
with the same settings; the service's own protocol class writes an answer at once, where
uvicorn writes it in two parts. In every round each contestant is driven for the same
time, one after the other. Other servers serve the same surrogate from the same
artifact, compiled for batches of 1, 8 and 64 rows; those that batch gather up to 64
rows for 1 ms.
"""


@dataclass(frozen=True)
class Target:
    """A request to a server, of whose answers some may be refusals.

    Args:
        server: What answers.
        request: As bytes.
        most_failures: Their share; at most it counts as if all were answered.
    """

    server: Server
    request: bytes
    most_failures: float = 0.0


@dataclass(frozen=True)
class Window:
    """What came of one window.

    Args:
        load: The client's side.
        server_cpu_s: CPU time of the server and its children.
    """

    load: Load
    server_cpu_s: float


class Serving:
    """The servers of this group, each started when it is first needed.

    Args:
        options: What the caller chose.
        stack: Ends them.
    """

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self.options, self._stack = options, stack
        self.seconds, self.rounds = (0.3, 2) if options.quick else (1.0, 9)

    @functools.cached_property
    def deployment(self) -> Deployment:
        """Folder, broker, key and model."""
        model = computing(self.options).model
        return self._stack.enter_context(deployed(model))

    @functools.cached_property
    def no_op(self) -> Target:
        """What nothing under this server can be faster than."""
        return Target(self.deployment.no_op(), post("/", json_body(), {}))

    @functools.cached_property
    def gateway(self) -> Server:
        """The service as it is by default."""
        return self.deployment.gateway()

    @functools.cached_property
    def worker(self) -> Server:
        """A rollout worker, for the queue."""
        return self.deployment.worker()

    @functools.cached_property
    def json(self) -> Target:
        """One row, JSON both ways."""
        return self.warmed(self.gateway, self._post(json_body(), "application/json"))

    @functools.cached_property
    def npz(self) -> Target:
        """One row, npz both ways."""
        arrays = {"model": np.array(MODEL), "x0": unseen(1)[0], "times": times()}
        body = pack(arrays)
        return self.warmed(self.gateway, self._post(body, "application/x-npz"))

    @functools.cached_property
    def unbatched(self) -> Target:
        """The service with batches of one row."""
        server = self.deployment.gateway("unbatched", max_batch_rows=1)
        return self.warmed(server, self.json.request)

    def drive(self, target: Target, connections: int = CONNECTIONS) -> Load:
        """One window; its answers must be successes."""
        return checked(
            drive(
                target.server.port,
                target.request,
                connections=connections,
                seconds=self.seconds,
                each=1 if self.options.quick else _EACH,
            ),
            target.most_failures,
        )

    def contest(self, targets: Mapping[str, Target]) -> dict[str, list[Window]]:
        """Windows of several targets in turns."""
        found: dict[str, list[Window]] = {name: [] for name in targets}
        names = list(targets)
        for turn in range(self.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(self._window(targets[name]))
        return found

    def _window(self, target: Target) -> "Window":
        before = target.server.cpu_s()
        load = self.drive(target)
        return Window(load, target.server.cpu_s() - before)

    def _post(self, body: bytes, kind: str) -> bytes:
        return post("/v1/rollout", body, self.deployment.headers(kind))

    def warmed(self, server: Server, request: bytes) -> Target:
        """A target after its first answers, and after what they leave to be done."""
        target = Target(server, request)
        for connections in (1, CONNECTIONS, 1):
            # The first answers may take longer than a window.
            drive(server.port, request, connections=connections, seconds=self.seconds)
            if not self.options.quick:
                server.wait_until_quiet()
        return target


def checked(load: Load, most_failures: float = 0.0) -> Load:
    """The load, if its answers were successes, or all but so large a share of them.

    Raises:
        PeerError: More were not, so that their speed says nothing.
    """
    if load.failures > most_failures * load.answers or not load.answers:
        raise PeerError(f"{load.failures} of {load.answers} answers were no success")
    return load


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """All that the options ask for."""
    serving = Serving(options, stack)
    quick = {"quick": True} if options.quick else {}
    found = [
        Figure(
            f"one row, JSON, {CONNECTIONS} connections",
            "raw ASGI no-op, requests/s",
            partial(_against_no_op, serving, "json"),
            at_least=0.40,
            settings=quick,
        ),
        Figure(
            f"one row, npz, {CONNECTIONS} connections",
            "raw ASGI no-op, requests/s",
            partial(_against_no_op, serving, "npz"),
            at_least=0.50,
            settings=quick,
        ),
        Figure(
            "one row alone: median latency beyond no-op and model",
            "no-op + model",
            partial(_alone, serving),
            at_most=0.2,
            unit="ms",
            settings=quick,
        ),
    ]
    if not options.quick:
        found.append(
            Figure(
                f"one row, {CONNECTIONS} connections, batching on",
                "batching off, requests/s",
                partial(_against_unbatched, serving),
                at_least=5.0,
            )
        )
        found += executors.figures(options, serving)
    if options.peers:
        found += other_servers.figures(options, serving)
    return found


def _against_no_op(serving: Serving, kind: str, tell: Tell) -> Numbers:
    target = {"json": serving.json, "npz": serving.npz}[kind]
    found = serving.contest({"ours": target, "theirs": serving.no_op})
    return compared(found["ours"], found["theirs"])


def _against_unbatched(serving: Serving, tell: Tell) -> Numbers:
    found = serving.contest({"ours": serving.json, "theirs": serving.unbatched})
    return compared(found["ours"], found["theirs"])


def _alone(serving: Serving, tell: Tell) -> Numbers:
    roll = computing(serving.options).rollout(1)
    calls = 20 if serving.options.quick else 200
    extra, alone, no_op, model = [], [], [], []
    for _ in range(serving.rounds):
        alone.append(1e3 * serving.drive(serving.json, 1).p50_s)
        no_op.append(1e3 * serving.drive(serving.no_op, 1).p50_s)
        each = [measured(roll, 1).wall_s for _ in range(calls)]
        model.append(1e3 * statistics.median(each))
        extra.append(alone[-1] - no_op[-1] - model[-1])
    return {
        "value": spread(extra),
        "ours": f"{number(statistics.median(alone), 'ms')}",
        "theirs": f"{number(statistics.median(no_op), 'ms')} + "
        f"{number(statistics.median(model), 'ms')}",
    }


def compared(ours: list[Window], theirs: list[Window]) -> Numbers:
    """The ratio of requests a second, with CPU times and the client's share."""
    value = ratios([w.load.rate for w in ours], [w.load.rate for w in theirs])
    by_cpu = number(_cpu_us(theirs) / _cpu_us(ours), "x")
    busy = max(w.load.client_cpu_s / w.load.seconds for w in (*ours, *theirs))
    failed = sum(w.load.failures for w in theirs)
    refused = f" {failed} of their answers were refusals." if failed else ""
    return {
        "value": value,
        "ours": _in_words(ours),
        "theirs": _in_words(theirs),
        "notes": [
            f"By CPU time of the servers for a request the ratio is {by_cpu}. "
            f"The client was busy for at most {100 * busy:.0f} % of a window.{refused}"
        ],
    }


def _cpu_us(windows: list[Window]) -> float:
    return statistics.median(1e6 * w.server_cpu_s / w.load.answers for w in windows)


def _in_words(windows: list[Window]) -> str:
    rate = statistics.median(w.load.rate for w in windows)
    p50 = statistics.median(w.load.p50_s for w in windows)
    return (
        f"{number(rate)} requests/s, {_cpu_us(windows):.0f} µs of CPU each, "
        f"median latency {number(1e3 * p50, 'ms')}"
    )


GROUP = Group("serving", "Serving", ABOUT, figures)
