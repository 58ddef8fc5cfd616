"""Callers with the public client as it is, and what they met."""

import threading
from collections.abc import Callable

import numpy as np

from deploy.chaos.submissions import Submission
from deploy.chaos.tally import CountingTransport, Tally
from spnode_client.client import Client

X0, TIMES = [[0.9, 5e-7, 0.05], [0.8, 5e-7, 0.1]], [1e-3, 1.0, 50.0]
PATIENCE_S = 180


class Callers:
    """Threads that roll out and run jobs until they are told to stop.

    Args:
        url: Of the balancer.
        key: API key.
        model: A version.
        retries: Of the client; by default its own.
    """

    def __init__(self, url: str, key: str, model: str, **retries: int) -> None:
        self.tally = Tally()
        self.failed: list[str] = []
        self.submissions: list[Submission] = []
        self.jobs: list[dict] = []
        self._url, self._key, self._retries = url, key, retries
        self._model = model
        self._stop = threading.Event()
        with self._client() as client:
            self._expected = client.rollout(model, X0, TIMES)
        work = [(self._roll_out, 0.2), (self._roll_out, 0.2), (self._run_job, 1.0)]
        self._threads = [threading.Thread(target=self._call, args=w) for w in work]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when each has its last answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _client(self) -> Client:
        client = Client(self._url, self._key, **self._retries)
        client.close()
        client.transport = CountingTransport(self._url, self._key, self.tally)
        return client

    def _call(self, work: Callable[[Client], None], pause_s: float) -> None:
        with self._client() as client:
            while not self._stop.wait(pause_s):
                try:
                    work(client)
                except Exception as error:  # whatever a caller would see
                    self.failed.append(f"{type(error).__name__}: {error}")

    def _roll_out(self, client: Client) -> None:
        found = client.rollout(self._model, X0, TIMES)
        if not np.array_equal(found, self._expected):
            self.failed.append("another answer")
        self.tally.count("rollouts")

    def _run_job(self, client: Client) -> None:
        number = len(self.submissions)
        request = {"kind": "dataset", "system": "robertson", "trajectories": 2}
        request["seed"] = 100 + number
        job = client.jobs.submit(request)
        self.submissions.append(Submission(request, f"caller's {number}", job.id))
        job.wait(timeout_s=PATIENCE_S, on_record=lambda _: None)
        self.jobs.append(job.record)
