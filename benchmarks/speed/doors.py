"""Doors: many callers of one protocol, and the server that comes with its clients."""

import functools
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from benchmarks.paper.rows import Numbers
from benchmarks.speed.computing import computing
from benchmarks.speed.deployment import MODEL, Server
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.load import post
from benchmarks.speed.other_servers import OTHERS, start
from benchmarks.speed.robertson import (
    LONG_STEPS,
    Floats,
    Model,
    find_long_model,
    times,
    unseen,
)
from benchmarks.speed.serving import CONNECTIONS, Serving, Target, compared
from benchmarks.speed.turns import spread

ABOUT = f"""
Calls of one row of Robertson's reaction, the same call again and again on
{CONNECTIONS} connections of one thread that speaks HTTP as raw bytes. The reference
server holds the same surrogate, compiled for one row, and answers one call after the
other, as it always does. In every round each contestant is driven for the same time,
one after the other. Rows in a batch are the engine's own count.

Two versions: the short one takes the 50 steps of the trained model and gives all 51
states; a row of it costs less than its HTTP request, which no batch makes cheaper. The
long one takes {LONG_STEPS:,} steps and gives the last state; it is not trained, since
no speed depends on the weights.
"""
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_REFERENCE = next(other for other in OTHERS if other.peer == "umbridge")
_SERVED = "robertson"
"""What the reference server calls what it has."""
_OPERATIONS = ("Evaluate", "Gradient")


@dataclass(frozen=True)
class Version:
    """What is called.

    Args:
        name: By which the service knows the model.
        model: The artifact.
        at: Times of the output.
    """

    name: str
    model: Model
    at: Floats

    def call(
        self, operation: str, name: str = _SERVED, config: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The fields of a call, by default of the reference server."""
        x0 = unseen(1)[0].tolist()
        call = {"name": name, "input": [x0], "config": config or {}}
        if operation == "Gradient":
            size = 3 * len(self.at)
            call |= {"outWrt": 0, "inWrt": 0, "sens": [1.0] * size}
        return call


class Doors:
    """The versions and our server of them, made when they are first needed."""

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self.serving, self.options = Serving(options, stack), options

    @functools.cached_property
    def short(self) -> Version:
        """The model that is measured everywhere."""
        return Version(MODEL, computing(self.options).model, times())

    @functools.cached_property
    def long(self) -> Version:
        """Many steps, one state."""
        model = find_long_model(self.options)
        version = Version("long", model, times()[-1:])
        self.serving.deployment.publish(version.name, model)
        return version

    def version(self, which: str) -> Version:
        """One of them by its name."""
        return self.short if which == "short" else self.long

    def ours(self, version: Version, operation: str) -> Target:
        """A call of our door."""
        config = {"times": version.at.tolist()}
        body = json.dumps(version.call(operation, version.name, config)).encode()
        headers = self.serving.deployment.headers("application/json")
        request = post(f"/umbridge/{operation}", body, headers)
        return self.serving.warmed(self.serving.gateway, request)


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """All that the options ask for."""
    doors = Doors(options, stack)
    found = [
        Figure(
            f"UM-Bridge {operation}, {CONNECTIONS} connections: rows in a batch",
            f"{CONNECTIONS} connections",
            partial(_rows_in_a_batch, doors, operation),
            at_least=16.0,
            unit="rows",
            settings={"quick": True} if options.quick else {},
        )
        for operation in _OPERATIONS
    ]
    if options.peers:
        found += [
            Figure(
                f"UM-Bridge {operation}, {which} rollouts, {CONNECTIONS} connections",
                "UM-Bridge's reference server, requests/s",
                partial(_against_reference, doors, which, operation),
                at_least=5.0,
            )
            for which in ("short", "long")
            for operation in _OPERATIONS
        ]
    return found


def _rows_in_a_batch(doors: Doors, operation: str, tell: Tell) -> Numbers:
    target, serving = doors.ours(doors.short, operation), doors.serving
    found = []
    for _ in range(serving.rounds):
        before = _counted(target.server)
        serving.drive(target)
        after = _counted(target.server)
        batches, rows = (b - a for a, b in zip(before, after, strict=True))
        found.append(rows / batches)
    return {"value": spread(found), "ours": number(spread(found)["median"], "rows")}


def _counted(server: Server) -> tuple[int, int]:
    """Batches and rows since the server began."""
    url = f"http://127.0.0.1:{server.port}/health/ready"
    told = httpx.get(url, timeout=60, trust_env=False).json()["rollouts"]
    return told["batches"], told["rows"]


def _against_reference(doors: Doors, which: str, operation: str, tell: Tell) -> Numbers:
    version, serving = doors.version(which), doors.serving
    body = json.dumps(version.call("Evaluate")).encode()
    server = start(serving, _REFERENCE, body, version.model, version.at)
    try:
        request = json.dumps(version.call(operation)).encode()
        theirs = Target(server, post(f"/{operation}", request, _HEADERS))
        for connections in (1, CONNECTIONS):
            serving.drive(theirs, connections)
        ours = doors.ours(version, operation)
        found = serving.contest({"ours": ours, "theirs": theirs})
    finally:
        serving.deployment.running.stop(server)
    return compared(found["ours"], found["theirs"])


GROUP = Group("doors", "Doors", ABOUT, figures)
