"""What the deployment has to do meanwhile: jobs of all kinds, and rollouts over REST.

Everything goes through the public client. What is asked is drawn from a few requests
that come again and again, so that every answer can be held against an earlier one.
"""

import contextlib
import functools
import random
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from deploy.chaos import passing
from deploy.chaos.aliases import Moves
from deploy.chaos.submissions import CANCELLED, Submission
from deploy.chaos.tally import PATIENCE_S, CountingTransport, Tally
from deploy.chaos.uploads import Upload
from spnode_client.calls import json_call, perform
from spnode_client.client import Client
from spnode_client.errors import (
    ClientError,
    Conflict,
    NotFound,
    Overloaded,
    Unreachable,
)
from spnode_client.records import ENDED, Record

RETRIES = 12
BASE = "chaos-base"
MODEL = "chaos"
SURROGATE = {
    "latent": 4,
    "nonlinear": {"kind": "relaxation", "width": 8, "depth": 1},
    "autoencoder": {"kind": "residual", "width": 8, "depth": 1},
}
TRAINING = {"iterations": 60, "batch": 8, "polish": "none", "refine": 1}
TIMES = [1e-3, 1.0, 50.0]
START = [0.9, 5e-7, 0.05]
WEIGHTS = {
    "dataset": 16,
    "training": 1,
    "evaluation": 1,
    "calibration": 2,
    "rollout": 4,
    "sweep": 1,
}
"""How often each request is drawn, by kind: a training takes far longer than others."""
DEADLINE_S = 24 * 3600.0
"""Of some jobs: no clock is ever set forward so far."""
AT_WORK = 8
"""So many jobs wait or run at once."""
REPEATS, CANCELS, UPLOADS, MOVES, PASSES = 0.2, 0.12, 0.1, 0.2, 0.1
"""How many there are for each submission."""
RETRIES_OF_JOBS, DELETIONS = 0.5, 0.3
"""How many of the cancelled jobs are retried, and of the uploads deleted."""
_QUERIES = 7
_PAUSE_S = 0.25


class Workload:
    """Submits, repeats, cancels, and rolls out until it is told to stop.

    Args:
        urls: Of the gateways.
        key: API key.
        seed: Of what is asked when.
        folder: Where it keeps some files.
    """

    def __init__(self, urls: list[str], key: str, seed: int, folder: Path) -> None:
        self.tally = Tally()
        self.clients = [self._client(url, key) for url in urls]
        self.submissions: list[Submission] = []
        self.uploads: list[Upload] = []
        self.moves = Moves(BASE)
        self._random = random.Random(seed)
        self._seed = seed
        self._folder = folder
        self._files: list[Path] = []
        self._stop = threading.Event()
        self._requests: list[Record] = []
        self._expected: list[np.ndarray] = []
        self._passing: passing.Passing | None = None
        self._threads: list[threading.Thread] = []

    def prepare(self, kinds: Collection[str] = tuple(WEIGHTS)) -> None:
        """Make what jobs need, and have every answer once.

        Args:
            kinds: Which kinds of jobs there are; rollouts over REST where there is
                one beside ``dataset``.
        """
        data = {"kind": "dataset", "system": "robertson", "trajectories": 6}
        self._requests = [{**data, "seed": 2}]
        dataset, other = (
            self._done({**data, "seed": seed})["dataset"] for seed in (1, 2)
        )
        download = self.clients[0].datasets.download
        self._files = [
            download(each, self._folder / f"{each}.npz") for each in (dataset, other)
        ]
        if set(kinds) - {"dataset"}:
            self._add_requests(dataset)
        self._requests = [each for each in self._requests if each["kind"] in kinds]
        for request in self._requests:
            self._done(request)

    def _add_requests(self, dataset: str) -> None:
        train = {"kind": "training", "dataset": dataset, "surrogate": SURROGATE}
        train["training"] = TRAINING
        for seed in (0, 1):
            self._done({**train, "model": BASE, "seed": seed})
        client, base = self.clients[0], f"{BASE}/1"
        artifact = client.models.download(base, self._folder / "base.spnode")
        self._passing = passing.Passing(artifact, self._folder)
        self._passing.step(client)
        self._expected = [self._ask(client, n) for n in range(_QUERIES)]
        calibration = {
            "kind": "calibration",
            "model": base,
            "times": TIMES,
            "observations": client.rollout(base, START, TIMES).tolist(),
            "unknowns": {"x0": {"y1": {"lower": 0.5, "upper": 1.0}}},
            "x0": [None, *START[1:]],
            "starts": 4,
        }
        rollout = {"kind": "rollout", "model": base, "times": TIMES}
        warm = {"kind": "training", "dataset": dataset, "model": MODEL}
        warm["warm_start"] = base
        sweep: Record = {"kind": "sweep", "dataset": dataset, "model": MODEL}
        sweep["grid"], sweep["ensemble"] = {"seed": [0, 1]}, 2
        sweep["base"] = {"training": TRAINING, "surrogate": SURROGATE}
        late = {"schedule": {"priority": -1, "deadline_seconds": DEADLINE_S}}
        self._requests += [
            {**train, "model": MODEL, "seed": 0},
            {**train, "model": MODEL, "seed": 1},
            {**warm, "training": TRAINING},
            sweep,
            {"kind": "evaluation", "models": [base, f"{BASE}/2"], "dataset": dataset},
            calibration,
            {**rollout, "dataset": dataset, **late},
            {**rollout, "x0": [START] * 3},
        ]

    def start(self) -> None:
        """Begin, in threads."""
        work: list[Callable[[], None]] = [self._submit_jobs]
        rolling = self.clients if self._expected else []
        work += [functools.partial(self._roll_out, client) for client in rolling]
        for each in work:
            thread = threading.Thread(target=self._guarded, args=(each,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Ask for nothing more; return when every request has its answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join(300)
            if thread.is_alive():
                self.tally.complain("a caller got no answer within five minutes")

    def settle(self, within_s: float) -> None:
        """Wait until every job has ended, or time is up."""
        end = time.monotonic() + within_s

        def look() -> None:
            while time.monotonic() < end and self._look():
                time.sleep(_PAUSE_S)

        self._guarded(look)

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients:
            client.close()

    def _client(self, url: str, key: str) -> Client:
        client = Client(url, key, timeout_s=PATIENCE_S, retries=RETRIES)
        client.transport.http.close()
        client.transport = CountingTransport(url, key, self.tally)
        return client

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the boundary of the thread
            self.tally.complain(
                "a caller met an error", found=f"{type(error).__name__}: {error}"
            )

    def _done(self, request: Record) -> Record:
        """Submit a job before any fault and wait for its result."""
        submission = self._submit(request)
        assert submission.id is not None
        job = self.clients[0].jobs.get(submission.id)
        job.wait(timeout_s=PATIENCE_S * 12, on_record=lambda _: None)
        submission.state = job.state
        return job.record["result"]

    def _submit(self, request: Record) -> Submission:
        number = len(self.submissions)
        made = Submission(request, f"chaos-{self._seed}-{number}")
        self.submissions.append(made)
        made.id = self._send(made)
        return made

    def _send(self, submission: Submission) -> str | None:
        headers = {"idempotency-key": f'"{submission.key}"'}
        call = json_call("POST", "/v1/jobs", submission.request, headers=headers)
        client = self._random.choice(self.clients)
        try:
            reply = client.run(perform(call, RETRIES))
        except (Unreachable, Overloaded):
            self.tally.count("submissions given up for now")
            return None
        return reply.json()["id"]

    def _submit_jobs(self) -> None:
        weights = [WEIGHTS[each["kind"]] for each in self._requests]
        while not self._stop.wait(_PAUSE_S):
            if self._look() >= AT_WORK:
                continue
            made = self._submit(self._random.choices(self._requests, weights)[0])
            if self._random.random() < REPEATS:
                self._repeat(made)
            if self._random.random() < CANCELS:
                self._stop.wait(self._random.uniform(0.0, 4.0))
                self._cancel(made)
            if self._random.random() < UPLOADS:
                self._upload()
            if self._expected and self._random.random() < MOVES:
                self._move()
            if self._passing is not None and self._random.random() < PASSES:
                self._pass(self._passing)

    def _move(self) -> None:
        before, unanswered = self.tally.doubtful, self.moves.unanswered
        self.moves.move(self._random.choice(self.clients))
        if self.moves.unanswered > unanswered and self.tally.doubtful == before:
            self.tally.complain("an alias was elsewhere than where it was moved last")

    def _pass(self, versions: passing.Passing) -> None:
        try:
            versions.step(self._random.choice(self.clients))
        except (Unreachable, Overloaded, Conflict, NotFound):
            # Of a move whose first answer was lost the second finds it made, and a
            # deletion that comes late may meet the same content registered anew.
            self.tally.count("passing versions given up for now")
        else:
            self.tally.count("passing versions")

    def _repeat(self, made: Submission) -> None:
        again = self._send(made)
        self.tally.count("submissions repeated")
        if None not in (again, made.id) and again != made.id:
            self.tally.complain(
                "one Idempotency-Key gave two jobs", found=again, expected=made.id
            )
        made.id = made.id or again

    def _cancel(self, made: Submission) -> None:
        if made.id is None:
            return
        client, before = self._random.choice(self.clients), self.tally.doubtful
        try:
            client.jobs.cancel(made.id)
        except Conflict:
            self._check_ended(client, made.id, before)
            return
        except (Unreachable, Overloaded):
            made.cancel = "unknown"
            return
        made.cancel = "asked"
        self.tally.count("cancels taken")
        if self._random.random() < RETRIES_OF_JOBS:
            made.retry = "asked"

    def _check_ended(self, client: Client, id: str, doubtful: int) -> None:
        """Complain where a job that has not ended could not be cancelled."""
        with contextlib.suppress(Unreachable, Overloaded):
            state = client.jobs.get(id).state
            if state not in ENDED and self.tally.doubtful == doubtful:
                self.tally.complain("a job could not be cancelled", id=id, found=state)

    def _delete(self, made: Upload) -> None:
        before = self.tally.doubtful
        was_there = made.delete(self._random.choice(self.clients))
        if not was_there and self.tally.doubtful == before:
            self.tally.complain("an upload was gone before it was deleted", id=made.id)

    def _upload(self) -> None:
        key = f"chaos-{self._seed}-file-{len(self.uploads)}"
        made = Upload.of(self._random.choice(self._files), key)
        self.uploads.append(made)
        made.id = self._send_file(made)
        if self._random.random() < REPEATS:
            again = self._send_file(made)
            self.tally.count("uploads repeated")
            if None not in (again, made.id) and again != made.id:
                self.tally.complain(
                    "one Idempotency-Key gave two datasets",
                    found=again,
                    expected=made.id,
                )
            made.id = made.id or again
        if made.id is not None and self._random.random() < DELETIONS:
            self._delete(made)

    def _send_file(self, upload: Upload) -> str | None:
        try:
            found = upload.send(self._random.choice(self.clients), RETRIES)
        except (Unreachable, Overloaded):
            self.tally.count("uploads given up for now")
            return None
        self.tally.count("uploads")
        return found

    def _look(self) -> int:
        """Ask for all that has not ended or has no answer; how many those are."""
        waiting = 0
        for each in self.uploads:
            # The same key: a dataset that was kept without our knowing is found.
            each.id = each.id or self._send_file(each)
            waiting += each.id is None
        for each in self.submissions:
            if each.state == CANCELLED and each.retry == "asked":
                self._retry(each)
            if each.state in ENDED:
                # A retry whose answer was lost is asked for until there is one.
                waiting += each.retry == "asked"
                continue
            if each.id is None:
                # The same key: a job that was queued without our knowing is found.
                each.id = self._send(each)
            if each.id is not None:
                try:
                    each.state = (
                        self._random.choice(self.clients).jobs.get(each.id).state
                    )
                except (Unreachable, Overloaded):
                    self.tally.count("looks given up for now")
            waiting += each.state not in ENDED or each.retry == "asked"
        return waiting

    def _retry(self, made: Submission) -> None:
        try:
            made.ask_to_retry(self._random.choice(self.clients), RETRIES)
        except (Unreachable, Overloaded):
            self.tally.count("retries of jobs given up for now")
        except Conflict as error:
            # Of a sweep the candidates may take a moment more to end.
            if "have not ended" not in str(error):
                raise
        else:
            self.tally.count("retries of jobs taken")

    def _ask(self, client: Client, number: int) -> np.ndarray:
        x0 = [[0.8 + 0.01 * (number + row), 5e-7, 0.1] for row in range(number + 1)]
        versions = (f"{BASE}/1", f"{BASE}/2", f"{passing.MODEL}@{passing.ALIAS}")
        return client.rollout(versions[number % 3], x0, TIMES)

    def _roll_out(self, client: Client) -> None:
        number = 0
        while not self._stop.wait(_PAUSE_S):
            number = (number + 1) % _QUERIES
            try:
                found = self._ask(client, number)
            except (Unreachable, Overloaded):
                self.tally.count("rollouts given up")
                continue
            except ClientError as error:
                self.tally.complain("a rollout failed", found=str(error), query=number)
                continue
            self.tally.count("rollouts compared")
            if not np.array_equal(found, self._expected[number]):
                worst = float(np.max(np.abs(found - self._expected[number])))
                self.tally.complain(
                    "a rollout's answer was wrong", query=number, found=worst
                )
