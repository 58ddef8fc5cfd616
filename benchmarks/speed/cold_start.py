"""Cold start and memory: from process start to the first answer, and what stays."""

import gc
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial

import httpx
import numpy as np
import psutil

from benchmarks.paper.rows import Numbers
from benchmarks.peers.environment import ROOT, PeerError
from benchmarks.speed.computing import computing, stored_copies
from benchmarks.speed.deployment import (
    READY_WITHIN_S,
    Deployment,
    deployed,
    json_body,
)
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.load import drive, post
from benchmarks.speed.turns import spread

_COPIES = 20

ABOUT = """
A gateway is started on a data folder that has served the model before, so that the
compilation cache holds what it needs, and asked for one row until it answers; against
a process that imports JAX and ends. Memory is resident memory of the process, in
10^6 bytes.
"""


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """All of them; none needs a peer."""
    rounds = 2 if options.quick else 5
    return [
        Figure(
            "process start to first answer, cache warm: beyond `import jax`",
            "import jax",
            partial(_start, options, rounds),
            at_most=1.5,
            unit="s",
        ),
        Figure(
            "memory of the gateway, queue mode",
            "the process before any request and after 1000",
            partial(_gateway_memory, options),
            at_most=120.0,
            unit="MB",
        ),
        Figure(
            "memory of a resident Robertson model",
            f"resident memory of the process, over {_COPIES} models",
            partial(_model_memory, options),
            unit="MB",
        ),
    ]


def _start(options: Options, rounds: int, tell: Tell) -> Numbers:
    beyond, ours, imports = [], [], []
    with deployed(computing(options).model) as deployment:
        # Once to fill the cache, which the second one leaves as it is.
        for _ in range(2):
            _first_answer_s(deployment)
        for _ in range(rounds):
            imports.append(_import_s())
            ours.append(_first_answer_s(deployment))
            beyond.append(ours[-1] - imports[-1])
    return {
        "value": spread(beyond),
        "ours": number(float(np.median(ours)), "s"),
        "theirs": number(float(np.median(imports)), "s"),
    }


def _first_answer_s(deployment: Deployment) -> float:
    began = time.perf_counter()
    server = deployment.gateway(is_ready=lambda url: _answers(deployment, url))
    took = time.perf_counter() - began
    deployment.running.stop(server)
    return took


def _answers(deployment: Deployment, url: str) -> bool:
    try:
        answer = httpx.post(
            f"{url}/v1/rollout",
            content=json_body(),
            headers=deployment.headers("application/json"),
            timeout=READY_WITHIN_S,
            trust_env=False,
        )
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        raise PeerError(f"the first answer was {answer.status_code}: {answer.text}")
    return True


def _import_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", "import jax"], cwd=ROOT, check=True)
    return time.perf_counter() - began


def _gateway_memory(options: Options, tell: Tell) -> Numbers:
    with deployed(computing(options).model) as deployment:
        deployment.worker()
        server = deployment.gateway(executor="queue")
        before = server.rss_mb()
        headers = deployment.headers("application/json")
        request = post("/v1/rollout", json_body(), headers)
        answers = 0
        while answers < 1000:
            answers += drive(server.port, request, connections=8, seconds=1.0).answers
        after = server.rss_mb()
    return {
        "value": spread([after]),
        "notes": [f"{before:.0f} MB when it was ready, {after:.0f} MB afterwards."],
    }


def _model_memory(options: Options, tell: Tell) -> Numbers:
    ours = computing(options)
    digests = stored_copies(ours, _COPIES)
    taken = []
    for digest in digests:
        before = _rss_mb()
        ours.warm(digest)
        taken.append(_rss_mb() - before)
    model = ours.engine.resident.get(digests[0])
    return {
        "value": spread(taken),
        "notes": [
            f"Of these {model.size_bytes / 1e6:.2f} MB are its arrays, the rest what "
            "was compiled and traced for it. The first models pay for what all share."
        ],
    }


def _rss_mb() -> float:
    gc.collect()
    return psutil.Process(os.getpid()).memory_info().rss / 1e6


GROUP = Group("cold-start", "Cold start and memory", ABOUT, figures)
