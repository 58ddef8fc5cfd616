"""Jobs of the service, and what they made: the blocking form."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import httpx

from spnode_client.calibrations import Calibration
from spnode_client.calls import Lost, Operation, broken, retry_delay
from spnode_client.comparisons import Comparison
from spnode_client.errors import ProblemError, Unreachable
from spnode_client.operations import jobs, results
from spnode_client.operations.pages import items
from spnode_client.progress_line import progress_line
from spnode_client.records import (
    ENDED,
    AbstractJob,
    Dataset,
    Event,
    ModelVersion,
    Record,
)
from spnode_client.results import RolloutResult
from spnode_client.sse import EventReader, PastEvents
from spnode_client.sweeps import Ranking

if TYPE_CHECKING:
    from spnode_client.client import Client


Made = (
    ModelVersion | Dataset | RolloutResult | Calibration | Comparison | Ranking | Record
)
"""What a job may make."""


class Resource:
    """One collection of the service."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._run = client.run
        self._retries = client.retries


class Job(AbstractJob):
    """A job of the service.

    Attributes:
        record: What the service said of it last.
    """

    def __init__(self, client: "Client", record: Record) -> None:
        self._client = client
        self.record = record

    def refresh(self) -> Self:
        """Ask the service again."""
        self.record = self._client.jobs.get(self.id).record
        return self

    def wait(
        self,
        timeout_s: float | None = None,
        on_record: Callable[[Record], None] | None = None,
    ) -> Made:
        """Wait for the end; give the version, the dataset or the result.

        Args:
            timeout_s: When to give up; the job itself goes on.
            on_record: Called with the job's record about once a second; on a terminal
                a line of progress is shown by default.

        Raises:
            JobFailed: It ended as failed or cancelled.
            TimeoutError: ``timeout_s`` passed.
            Unreachable: Nothing was heard for ``client.patience_s``, and there is no
                ``timeout_s``.
        """
        self.record = self._client.run(
            jobs.wait(
                self.id,
                timeout_s,
                on_record or progress_line(),
                self._client.retries,
                self._client.patience_s,
            )
        )
        return self.result()

    def result(
        self,
    ) -> Made:
        """What a succeeded job made.

        Raises:
            Conflict: A rollout job has not succeeded.
            NotFound: Its result has been deleted.
        """
        made = self._client.run(jobs.result(self.record, self._client.retries))
        if self.record.get("kind") == "rollout":
            return RolloutResult(self._client, made)
        return made

    def events(self, after: str | None = None) -> Iterator[Event]:
        """Events as they happen, until the job ends; lost connections are resumed.

        Kinds are ``status``, ``log``, ``metrics``, ``checkpoint``, and ``progress``:
        what the record has there, after all earlier events and whenever it changes.
        """
        return self._client.jobs.events(self.id, after)

    def past_events(self) -> list[Event]:
        """Events until now, oldest first."""
        if self.state in ENDED:
            return list(self.events())
        return self._client.jobs.past_events(self.id)

    def has_worker(self) -> bool:
        """Whether a worker lives that takes jobs of its queue."""
        living = self._client.run(jobs.workers(self._client.retries))
        return living.get(self.record["queue"], 0) > 0

    def cancel(self) -> Self:
        """Ask for the end of the job."""
        self.record = self._client.jobs.cancel(self.id).record
        return self


class Jobs(Resource):
    """``client.jobs``."""

    def submit(self, request: Record) -> Job:
        """Queue a job."""
        return self._job(jobs.submit(request, self._retries))

    def rollout(
        self, model: str, x0: Any = None, times: Any = None, **options: Any
    ) -> Job:
        """Queue a rollout of more rows than one answer holds.

        Args:
            model: ``name``, ``name@alias`` or ``name/3``.
            x0: ``(batch, state)``; or leave it to a dataset or a sweep.
            times: As for ``Client.rollout``.
            **options: ``dataset`` (its initial states and parameters), ``sweep``,
                ``parameters``, ``controls``, ``control_times``, ``outputs``,
                ``on_error``, ``mode``, ``precision``.

        Returns:
            The job; ``wait()`` gives a ``RolloutResult``.
        """
        return self._job(results.submit(model, x0, times, options, self._retries))

    def validate(self, request: Record) -> Record:
        """Check a request and queue nothing."""
        return self._run(jobs.validate(request, self._retries))

    def get(self, job_id: str, wait_s: float | None = None) -> Job:
        """One job."""
        return self._job(jobs.get(job_id, wait_s, self._retries))

    def past_events(self, job_id: str, quiet_s: float = 1.0) -> list[Event]:
        """A job's events until now, oldest first.

        Args:
            job_id: Id of the job.
            quiet_s: Of a job that goes on, how long nothing comes before that was all;
                the first event is waited for ten times as long.

        Raises:
            Unreachable: Nothing came at all.
        """
        lost: httpx.TransportError | None = None
        for patience in (quiet_s, 10 * quiet_s):
            past, call = PastEvents(quiet_s), jobs.events_call(job_id, None)
            try:
                for line in self._client.transport.lines(call, patience):
                    if past.are_all_after(line):
                        break
                return past.events
            except httpx.ReadTimeout as error:
                if past.events:
                    return past.events
                lost = error
            except httpx.TransportError as error:
                # Some are no whole history: another gateway may have it.
                lost = error
        raise Unreachable(f"job {job_id!r} gave no events: {lost}") from lost

    def list(self, limit: int | None = 20, **query: Any) -> list[Job]:
        """The newest jobs, 1 to 100, or None for all.

        ``state``, ``kind`` and ``parent`` narrow them.
        """
        found = self._run(items(jobs.page, query, limit, self._retries))
        return [Job(self._client, record) for record in found]

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job."""
        return self._job(jobs.act(job_id, "cancel", self._retries))

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again."""
        return self._job(jobs.act(job_id, "retry", self._retries))

    def wait(self, job_id: str, timeout_s: float | None = None) -> Any:
        """Wait for a job's result, as ``Job.wait``."""
        return self.get(job_id).wait(timeout_s)

    def events(self, job_id: str, after: str | None = None) -> Iterator[Event]:
        """A job's events as they happen, until it ends.

        Raises:
            Unreachable: The stream broke, and came again neither after the retries nor
                within ``client.patience_s``.
        """
        reader = EventReader(after)
        failures, lost_at = 0, 0.0
        while True:
            reader.begin()
            before = reader.last_id
            call = jobs.events_call(job_id, before)
            try:
                for line in self._client.transport.lines(call):
                    failures = 0
                    if (event := reader.feed(line)) is not None:
                        yield event
                if reader.is_over or reader.is_through(self.get(job_id).record, before):
                    return
                if reader.last_id != before:
                    continue
                found = Lost("it ended before the job")
            except (httpx.TransportError, ProblemError, Unreachable) as error:
                found = broken(error)
            lost_at = lost_at if failures else time.monotonic()
            failures += 1
            lasted_s = time.monotonic() - lost_at
            if failures > self._retries and lasted_s >= self._client.patience_s:
                raise Unreachable(f"no events from {self._client.url}: {found.reason}")
            time.sleep(retry_delay(failures, found))

    def _job(self, operation: Operation[Record]) -> Job:
        return Job(self._client, self._run(operation))
