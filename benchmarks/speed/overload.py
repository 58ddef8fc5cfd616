"""Overload: four times what a gateway can compute, and how it is afterwards."""

import functools
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from benchmarks.paper.rows import Numbers
from benchmarks.speed.computing import computing
from benchmarks.speed.deployment import MODEL, Deployment, Server, deployed
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.load import drive, post
from benchmarks.speed.open_load import Answer, send
from benchmarks.speed.robertson import times, unseen
from benchmarks.speed.turns import spread
from spnode_client.arrays import pack

TIMES_CAPACITY = 4.0
ROWS = 1024
QUEUE_S = 1.0
"""The queue is set to hold what is computed in this time."""
_CLOSED = 8
_BESIDE = 2
"""Requests that are computed beside a full queue: the one that waits, and the batch."""
_PROBE_EVERY_S = 0.05
_GIVE_UP_S = 60.0
_AS_BEFORE = 3.0
_IN_A_ROW = 5

ABOUT = f"""
One gateway (`inline`) is first driven by {_CLOSED} connections that wait for their
answers, which is its capacity, and then by callers who do not wait: {TIMES_CAPACITY:g}
times as many requests a second, at even distances, on as many connections as that
takes. A request is npz, {ROWS:,} rows of Robertson's reaction to its last time, so that
computing is what is scarce. `SPNODE_QUEUED_ROWS_LIMIT` is what the gateway computes in
{QUEUE_S:g} s; what finds the queue full is refused at once. What bounds the latency is
thus how much is computed while a request waits, from when it was due to its answer: a
full queue, itself, and the batch that runs. In seconds that is as fast as the machine
is meanwhile, which stands beside it. The load generator runs on the same two cores.
Afterwards one caller asks again and again, until {_IN_A_ROW} answers in a row take at
most {_AS_BEFORE:g} times what they took before.
"""


@dataclass(frozen=True)
class Found:
    """What came of one run.

    Args:
        capacity: Requests a second that were answered to callers who wait.
        alone_s: The median latency of one caller alone.
        room: Requests that the queue has room for.
        answers: To those who did not wait.
        seconds: How long these came.
        recovery_s: From then until it was as before.
    """

    capacity: float
    alone_s: float
    room: float
    answers: list[Answer]
    seconds: float
    recovery_s: float

    @property
    def taken(self) -> list[Answer]:
        """Those that were computed."""
        return [each for each in self.answers if each.status == 200]

    @property
    def wrong(self) -> list[Answer]:
        """Those that are neither computed nor refused with word when to come again."""
        refused = (429, 503)
        return [
            each
            for each in self.answers
            if each.status != 200 and not (each.status in refused and each.says_when)
        ]


class Overload:
    """One run, from which all figures are.

    Args:
        options: What the caller chose.
        stack: Ends the gateway.
    """

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self.options, self._stack = options, stack

    @functools.cached_property
    def found(self) -> Found:
        """What came of it."""
        closed_s, open_s = (1.0, 3.0) if self.options.quick else (10.0, 120.0)
        deployment = self._stack.enter_context(deployed(computing(self.options).model))
        request = _request(deployment)
        first = deployment.gateway("first")
        first.wait_until_quiet()
        rows = drive(first.port, request, connections=_CLOSED, seconds=closed_s).rate
        deployment.running.stop(first)
        # Room for what is computed in the time that callers shall wait at most.
        limit = round(rows * ROWS * QUEUE_S)
        server = deployment.gateway("overloaded", queued_rows_limit=limit)
        server.wait_until_quiet()
        load = drive(server.port, request, connections=_CLOSED, seconds=closed_s)
        if load.failures:
            # The machine was busy with something else when the queue was measured out.
            raise RuntimeError(f"{load.failures} of the callers who wait were refused")
        alone = drive(server.port, request, connections=1, seconds=closed_s / 2)
        rate = TIMES_CAPACITY * load.rate
        answers = send(server.port, request, rate=rate, seconds=open_s)
        recovery = _recovery_s(server, request, alone.p50_s)
        room = limit / ROWS
        return Found(load.rate, alone.p50_s, room, answers, open_s, recovery)

    def latency(self, tell: Tell) -> Numbers:
        """What was computed while the slowest hundredth waited, over a full queue."""
        found = self.found
        due = np.array([each.due_s for each in found.taken])
        taken = np.array([each.latency_s for each in found.taken])
        done = np.sort(due + taken)
        meanwhile = np.searchsorted(done, due + taken, "right")
        meanwhile = meanwhile - np.searchsorted(done, due)
        in_queues = np.percentile(meanwhile, 99) / (found.room + _BESIDE)
        p50, p99 = np.percentile(taken, [50, 99])
        rate = len(taken) / found.seconds
        at_the_mean = found.room / rate + found.alone_s
        counts = Counter(each.status for each in found.answers)
        told = ", ".join(f"{counts[status]:,} of {status}" for status in sorted(counts))
        return {
            "value": spread([in_queues]),
            "ours": f"p50 {number(p50, 's')}, p99 {number(p99, 's')}",
            "theirs": f"a full queue at the mean rate and one request alone: "
            f"{number(at_the_mean, 's')}, of which p99 is {p99 / at_the_mean:.2f}",
            "notes": [
                f"{len(found.answers):,} requests in {found.seconds:g} s, answers: "
                f"{told}."
            ],
        }

    def wrong(self, tell: Tell) -> Numbers:
        """Answers that are neither right nor a refusal that says when."""
        return {"value": spread([float(len(self.found.wrong))])}

    def throughput(self, tell: Tell) -> Numbers:
        """What is computed under overload, over what is computed without."""
        found = self.found
        rate = len(found.taken) / found.seconds
        return {
            "value": spread([rate / found.capacity]),
            "ours": f"{number(rate * ROWS)} rows a second",
            "theirs": f"{number(found.capacity * ROWS)} rows a second",
        }

    def recovery(self, tell: Tell) -> Numbers:
        """From the last request that was due to answers as before."""
        return {"value": spread([self.found.recovery_s])}


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """All of them, from one run."""
    run = Overload(options, stack)
    return [
        Figure(
            "computed while a request waits at 4 times capacity, p99",
            "a full queue, itself, and the batch that runs",
            run.latency,
            at_most=1.1,
        ),
        Figure(
            "answers that are neither 200 nor a refusal with Retry-After",
            "none",
            run.wrong,
            at_most=0.0,
            unit="",
        ),
        Figure(
            "rows a second at 4 times capacity",
            "rows a second of callers who wait",
            run.throughput,
        ),
        Figure(
            "time until answers take as long as before",
            "the end of the load",
            run.recovery,
            at_most=5.0,
            unit="s",
        ),
    ]


def _request(deployment: Deployment) -> bytes:
    headers = deployment.headers("application/x-npz")
    body = pack({"model": MODEL, "x0": unseen(ROWS), "times": times()[-1:]})
    return post("/v1/rollout", body, headers)


def _recovery_s(server: Server, request: bytes, alone_s: float) -> float:
    began, good = time.perf_counter(), 0
    while (gone := time.perf_counter() - began) < _GIVE_UP_S:
        (answer,) = send(server.port, request, rate=1.0, seconds=1.0)
        is_good = answer.status == 200 and answer.latency_s <= _AS_BEFORE * alone_s
        good = good + 1 if is_good else 0
        if good == _IN_A_ROW:
            return gone
        time.sleep(_PROBE_EVERY_S)
    return _GIVE_UP_S


GROUP = Group("overload", "Overload", ABOUT, figures)
