"""Other servers of the same surrogate, each in its environment, as ready as it gets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from benchmarks.paper.rows import Numbers
from benchmarks.peers.environment import PeerError, find_python
from benchmarks.peers.ports import free_port
from benchmarks.peers.served import MODEL_VARIABLE, TIMES_VARIABLE
from benchmarks.speed.computing import computing
from benchmarks.speed.deployment import Server
from benchmarks.speed.figures import Figure, Options, Tell
from benchmarks.speed.load import post
from benchmarks.speed.robertson import Floats, Model, times, unseen

if TYPE_CHECKING:
    from benchmarks.speed.serving import Serving

_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
# Networks in float32, in other batches than ours.
_SAME_WITHIN = 1e-4
# BentoML's refuses some calls of those that come at once.
_MOST_FAILURES = 0.01
_HERE = Path(__file__).resolve().parents[1] / "peers"


@dataclass(frozen=True)
class Other:
    """A server and how it is asked.

    Args:
        name: As it is told.
        peer: Its environment.
        command: What starts it, from the environment's folder of programs and a port.
        path: Of the request.
        body: The request's, from an initial state.
        read: The states in an answer.
        at_least: The bar: how many times its requests a second we answer.
        environment: Variables beside that of the model.
    """

    name: str
    peer: str
    command: Callable[[Path, int], list[str]]
    path: str
    body: Callable[[list[float]], Any]
    read: Callable[[Any], Any]
    at_least: float
    environment: dict[str, str]


def _module(name: str, *options: str) -> Callable[[Path, int], list[str]]:
    """A program of ours that takes a port behind some options."""

    def command(programs: Path, port: int) -> list[str]:
        python = os.fspath(programs / "python")
        return [python, "-P", "-m", f"benchmarks.peers.{name}", *options, str(port)]

    return command


def _script(name: str, *arguments: str) -> Callable[[Path, int], list[str]]:
    """A program that came with the peer."""

    def command(programs: Path, port: int) -> list[str]:
        script = os.fspath(programs / name)
        return [script, *arguments, "--host", "127.0.0.1", "--port", str(port)]

    return command


OTHERS = (
    Other(
        "mosec, batched",
        "mosec",
        _module("mosec_server", "--address", "127.0.0.1", "--port"),
        "/inference",
        lambda x0: {"x0": x0},
        lambda answer: answer["x"],
        1.0,
        {},
    ),
    Other(
        "UM-Bridge's reference server",
        "umbridge",
        _module("umbridge_server"),
        "/Evaluate",
        lambda x0: {"name": "robertson", "input": [x0], "config": {}},
        lambda answer: answer["output"],
        5.0,
        {},
    ),
    Other(
        "LitServe, batched",
        "litserve",
        _module("litserve_server"),
        "/predict",
        lambda x0: {"x0": x0},
        lambda answer: answer["x"],
        15.0,
        {},
    ),
    Other(
        "Tesseract's runtime",
        "tesseract",
        _script("tesseract-runtime", "serve"),
        "/apply",
        lambda x0: {"inputs": {"x0": _tesseract_array([x0])}},
        lambda answer: answer["x"]["data"]["buffer"],
        15.0,
        {"TESSERACT_API_PATH": os.fspath(_HERE / "tesseract_api.py")},
    ),
    Other(
        "BentoML, batched",
        "bentoml",
        _script("bentoml", "serve", "benchmarks.peers.bentoml_service:Rollout"),
        "/rollout",
        lambda x0: {"x0": [x0]},
        lambda answer: answer,
        30.0,
        {"BENTOML_DO_NOT_TRACK": "True"},
    ),
)


def figures(options: Options, serving: Serving) -> list[Figure]:
    """One for each other server."""
    return [
        Figure(
            f"one row, JSON, 64 connections, against {other.name}",
            f"{other.name}, requests/s",
            partial(_measure, serving, other),
            at_least=other.at_least,
        )
        for other in OTHERS
    ]


def _measure(serving: Serving, other: Other, tell: Tell) -> Numbers:
    # Imported here: the group imports this module.
    from benchmarks.speed.serving import Target, compared

    body = json.dumps(other.body(unseen(1)[0].tolist())).encode()
    server = start(serving, other, body)
    try:
        target = Target(server, post(other.path, body, _JSON), _MOST_FAILURES)
        for connections in (1, 64):
            serving.drive(target, connections)
        found = serving.contest({"ours": serving.json, "theirs": target})
        memory = f"{server.rss_mb():.0f}"
        ours = f"{serving.gateway.rss_mb():.0f}"
    finally:
        serving.deployment.running.stop(server)
    numbers = compared(found["ours"], found["theirs"])
    numbers["notes"].append(f"Resident memory {ours} against {memory} MB.")
    return numbers


def start(
    serving: Serving,
    other: Other,
    body: bytes,
    model: Model | None = None,
    at: Floats | None = None,
) -> Server:
    """Start it and see that it gives our numbers.

    Args:
        serving: The servers of the group.
        other: What to start.
        body: A request for one row.
        model: What it serves, by default the one that is measured everywhere.
        at: The times of every rollout, by default the model's own.

    Raises:
        PeerError: It gives other numbers.
    """
    programs = find_python(other.peer, serving.options.folder).parent
    model = model or computing(serving.options).model
    at = times() if at is None else at
    port = free_port()
    running = serving.deployment.running
    variables = {
        MODEL_VARIABLE: os.fspath(model.path),
        TIMES_VARIABLE: json.dumps(at.tolist()),
        **other.environment,
    }
    process = running.start(other.peer, other.command(programs, port), variables)
    answers: list[Any] = []

    def is_ready() -> bool:
        with suppress(httpx.TransportError):
            answer = httpx.post(
                f"http://127.0.0.1:{port}{other.path}",
                content=body,
                headers=_JSON,
                timeout=30,
                trust_env=False,
            )
            if 400 <= answer.status_code < 500:
                raise PeerError(f"{other.name} refused a call: {answer.text[:500]}")
            answers[:] = [answer]
            return answer.status_code == 200
        return False

    running.wait(other.peer, process, is_ready)
    states = np.array(other.read(answers[-1].json()), np.float64)
    ours = np.asarray(model.surrogate.rollout(unseen(1), at))
    if not np.allclose(states.reshape(ours.shape), ours, atol=_SAME_WITHIN):
        raise PeerError(f"{other.name} gives other numbers than we do")
    return Server(port, process)


def _tesseract_array(values: list[list[float]]) -> dict[str, Any]:
    return {
        "object_type": "array",
        "shape": list(np.shape(values)),
        "dtype": "float64",
        "data": {"buffer": values, "encoding": "json"},
    }
