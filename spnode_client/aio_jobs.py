"""Jobs of the service, and what they made: the async form of ``jobs``."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
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
from spnode_client.results import AsyncRolloutResult
from spnode_client.sse import EventReader, PastEvents
from spnode_client.sweeps import Ranking

if TYPE_CHECKING:
    from spnode_client.aio import AsyncClient

AsyncMade = (
    ModelVersion
    | Dataset
    | AsyncRolloutResult
    | Calibration
    | Comparison
    | Ranking
    | Record
)
"""What a job may make."""


class AsyncResource:
    """One collection of the service."""

    def __init__(self, client: "AsyncClient") -> None:
        self._client = client
        self._run = client.run
        self._retries = client.retries


class AsyncJob(AbstractJob):
    """A job of the service.

    Attributes:
        record: What the service said of it last.
    """

    def __init__(self, client: "AsyncClient", record: Record) -> None:
        self._client = client
        self.record = record

    async def refresh(self) -> Self:
        """Ask the service again."""
        self.record = (await self._client.jobs.get(self.id)).record
        return self

    async def wait(
        self,
        timeout_s: float | None = None,
        on_record: Callable[[Record], None] | None = None,
    ) -> AsyncMade:
        """Wait for the end; give what the job made, as ``Job.wait``."""
        client = self._client
        self.record = await client.run(
            jobs.wait(
                self.id,
                timeout_s,
                on_record or progress_line(),
                client.retries,
                client.patience_s,
            )
        )
        return await self.result()

    async def result(self) -> AsyncMade:
        """What a succeeded job made, as ``Job.result``."""
        made = await self._client.run(jobs.result(self.record, self._client.retries))
        if self.record.get("kind") == "rollout":
            return AsyncRolloutResult(self._client, made)
        return made

    def events(self, after: str | None = None) -> AsyncIterator[Event]:
        """Events as they happen, as ``Job.events``, for ``async for``."""
        return self._client.jobs.events(self.id, after)

    async def past_events(self) -> list[Event]:
        """Events until now, oldest first."""
        if self.state in ENDED:
            return [event async for event in self.events()]
        return await self._client.jobs.past_events(self.id)

    async def has_worker(self) -> bool:
        """Whether a worker lives that takes jobs of its queue."""
        living = await self._client.run(jobs.workers(self._client.retries))
        return living.get(self.record["queue"], 0) > 0

    async def cancel(self) -> Self:
        """Ask for the end of the job."""
        self.record = (await self._client.jobs.cancel(self.id)).record
        return self


class AsyncJobs(AsyncResource):
    """``client.jobs``, awaited; arguments and errors as of ``Jobs``."""

    async def submit(self, request: Record) -> AsyncJob:
        """Queue a job."""
        return await self._job(jobs.submit(request, self._retries))

    async def rollout(
        self, model: str, x0: Any = None, times: Any = None, **options: Any
    ) -> AsyncJob:
        """Queue a rollout of more rows than one answer holds."""
        submit = results.submit(model, x0, times, options, self._retries)
        return await self._job(submit)

    async def validate(self, request: Record) -> Record:
        """Check a request and queue nothing."""
        return await self._run(jobs.validate(request, self._retries))

    async def get(self, job_id: str, wait_s: float | None = None) -> AsyncJob:
        """One job."""
        return await self._job(jobs.get(job_id, wait_s, self._retries))

    async def past_events(self, job_id: str, quiet_s: float = 1.0) -> list[Event]:
        """A job's events until now, oldest first."""
        lost: httpx.TransportError | None = None
        for patience in (quiet_s, 10 * quiet_s):
            past, call = PastEvents(quiet_s), jobs.events_call(job_id, None)
            try:
                async for line in self._client.transport.lines(call, patience):
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

    async def list(self, limit: int | None = 20, **query: Any) -> list[AsyncJob]:
        """The newest jobs, 1 to 100, or None for all."""
        found = await self._run(items(jobs.page, query, limit, self._retries))
        return [AsyncJob(self._client, record) for record in found]

    async def cancel(self, job_id: str) -> AsyncJob:
        """Ask for the end of a job."""
        return await self._job(jobs.act(job_id, "cancel", self._retries))

    async def retry(self, job_id: str) -> AsyncJob:
        """Queue a failed or cancelled job again."""
        return await self._job(jobs.act(job_id, "retry", self._retries))

    async def wait(self, job_id: str, timeout_s: float | None = None) -> AsyncMade:
        """Wait for a job's result, as ``Job.wait``."""
        return await (await self.get(job_id)).wait(timeout_s)

    async def events(
        self, job_id: str, after: str | None = None
    ) -> AsyncIterator[Event]:
        """A job's events as they happen, until it ends, for ``async for``."""
        reader = EventReader(after)
        failures, lost_at = 0, 0.0
        while True:
            reader.begin()
            before = reader.last_id
            call = jobs.events_call(job_id, before)
            try:
                async for line in self._client.transport.lines(call):
                    failures = 0
                    if (event := reader.feed(line)) is not None:
                        yield event
                if reader.is_over:
                    return
                record = (await self.get(job_id)).record
                if reader.is_through(record, before):
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
            await asyncio.sleep(retry_delay(failures, found))

    async def _job(self, operation: Operation[Record]) -> AsyncJob:
        return AsyncJob(self._client, await self._run(operation))
