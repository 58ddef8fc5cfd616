"""Doors: many callers of one protocol, and the server that comes with its clients."""

import json
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx

from benchmarks.paper.rows import Numbers
from benchmarks.speed.deployment import MODEL, Server
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.load import post
from benchmarks.speed.other_servers import OTHERS, start
from benchmarks.speed.robertson import times, unseen
from benchmarks.speed.serving import CONNECTIONS, Serving, Target, compared
from benchmarks.speed.turns import spread

ABOUT = f"""
Calls of one row of Robertson's reaction at the model's own 51 times, the same call
again and again on {CONNECTIONS} connections of one thread that speaks HTTP as raw
bytes. The reference server holds the same surrogate, compiled for one row, and answers
one call after the other, as it always does. In every round each contestant is driven
for the same time, one after the other. Rows in a batch are the engine's own count.
"""
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_REFERENCE = next(other for other in OTHERS if other.peer == "umbridge")
_OPERATIONS = ("Evaluate", "Gradient")


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """All that the options ask for."""
    serving = Serving(options, stack)
    found = [
        Figure(
            f"UM-Bridge {operation}, {CONNECTIONS} connections: rows in a batch",
            f"{CONNECTIONS} connections",
            partial(_rows_in_a_batch, serving, operation),
            at_least=16.0,
            unit="rows",
            settings={"quick": True} if options.quick else {},
        )
        for operation in _OPERATIONS
    ]
    if options.peers:
        found += [
            Figure(
                f"UM-Bridge {operation}, {CONNECTIONS} connections",
                "UM-Bridge's reference server, requests/s",
                partial(_against_reference, serving, operation),
                at_least=5.0,
            )
            for operation in _OPERATIONS
        ]
    return found


def _call(operation: str, config: dict[str, Any]) -> dict[str, Any]:
    call = {"name": MODEL, "input": [unseen(1)[0].tolist()], "config": config}
    if operation == "Gradient":
        size = 3 * len(times())
        call |= {"outWrt": 0, "inWrt": 0, "sens": [1.0] * size}
    return call


def _ours(serving: Serving, operation: str) -> Target:
    body = json.dumps(_call(operation, {"times": times().tolist()})).encode()
    headers = serving.deployment.headers("application/json")
    request = post(f"/umbridge/{operation}", body, headers)
    return serving.warmed(serving.gateway, request)


def _rows_in_a_batch(serving: Serving, operation: str, tell: Tell) -> Numbers:
    target = _ours(serving, operation)
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


def _against_reference(serving: Serving, operation: str, tell: Tell) -> Numbers:
    body = json.dumps(_call("Evaluate", {})).encode()
    server = start(serving, _REFERENCE, body)
    try:
        request = json.dumps(_call(operation, {})).encode()
        theirs = Target(server, post(f"/{operation}", request, _HEADERS))
        for connections in (1, CONNECTIONS):
            serving.drive(theirs, connections)
        ours = _ours(serving, operation)
        found = serving.contest({"ours": ours, "theirs": theirs})
    finally:
        serving.deployment.running.stop(server)
    return compared(found["ours"], found["theirs"])


GROUP = Group("doors", "Doors", ABOUT, figures)
