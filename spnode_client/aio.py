"""The async client: the same operations, awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np

from spnode_client.calibrations import Calibration, calibration_request
from spnode_client.calls import Lost, Operation, T, broken, retry_delay
from spnode_client.client import DEFAULT_URL
from spnode_client.comparisons import Comparison, comparison_request
from spnode_client.derivatives import AsyncDerivatives
from spnode_client.errors import ProblemError, Unreachable
from spnode_client.fixed import AsyncModel
from spnode_client.operations import datasets, jobs, models, results, rollouts
from spnode_client.progress_line import progress_line
from spnode_client.records import (
    AbstractJob,
    Dataset,
    Event,
    ModelVersion,
    Record,
    Rollout,
)
from spnode_client.results import AsyncRolloutResult
from spnode_client.sse import EventReader
from spnode_client.sweeps import Ranking, sweep_request
from spnode_client.transport import AsyncTransport


class AsyncClient(AsyncDerivatives):
    """A service, by its address, for programs with an event loop.

    Args:
        url: Address of the service.
        key: API key, or None where the service asks for none.
        timeout_s: How long an answer may take to begin.
        retries: Further tries after 429, 503 or a lost connection.

    Example:
        >>> async def main():
        ...     async with AsyncClient(key="…") as client:
        ...         return await client.rollout("robertson", [1, 0, 0], [1.0])
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
    ) -> None:
        self.url = url.rstrip("/")
        self.retries = retries
        self.transport = AsyncTransport(self.url, key, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.http.aclose()

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation."""
        return await self.transport.run(operation)

    async def upload(self, path: str | Path, name: str | None = None) -> Dataset:
        """Stream a file of trajectories into the store, as ``Client`` does."""
        return await self.run(datasets.upload(path, name, self.retries))

    async def train(
        self, dataset: Dataset | str, model: str, **options: Any
    ) -> "AsyncJob":
        """Queue the training of a new version; options as ``Client.train``."""
        return await self.submit(jobs.training_request(dataset, model, options))

    async def sweep(
        self,
        dataset: Dataset | str,
        model: str,
        candidates: Sequence[Record] | None = None,
        **options: Any,
    ) -> "AsyncJob":
        """Queue trainings that differ in some settings, as ``Client.sweep``."""
        named = ("grid", "split", "ensemble", "alias", "tags", "schedule")
        own = {name: options.pop(name, None) for name in named}
        own["candidates"] = None if candidates is None else list(candidates)
        return await self.submit(sweep_request(dataset, model, own, options))

    async def calibrate(
        self,
        model: str,
        times: Any,
        observations: Any,
        unknowns: Record,
        **options: Any,
    ) -> "AsyncJob":
        """Queue the search for parameters and the like, as ``Client.calibrate``."""
        return await self.submit(
            calibration_request(model, times, observations, unknowns, options)
        )

    async def compare(
        self, *models: Any, dataset: Dataset | str, **options: Any
    ) -> "AsyncJob":
        """Queue a comparison of versions, as ``Client.models.compare``."""
        return await self.submit(comparison_request(models, dataset, options))

    async def submit(self, request: Record) -> "AsyncJob":
        """Queue a job."""
        return AsyncJob(self, await self.run(jobs.submit(request, self.retries)))

    async def rollout_job(
        self, model: str, x0: Any = None, times: Any = None, **options: Any
    ) -> "AsyncJob":
        """Queue a rollout of more rows than one answer holds, as ``Jobs.rollout``."""
        submit = results.submit(model, x0, times, options, self.retries)
        return AsyncJob(self, await self.run(submit))

    async def job(self, job_id: str) -> "AsyncJob":
        """One job."""
        return AsyncJob(self, await self.run(jobs.get(job_id, None, self.retries)))

    async def version(self, reference: str) -> ModelVersion:
        """The version that ``name``, ``name@alias`` or ``name/3`` stands for."""
        return await self.run(models.version(reference, self.retries))

    async def model(self, reference: str) -> AsyncModel:
        """A version, fixed from here on, as ``Client.model``."""
        return AsyncModel(self, await self.version(reference))

    async def rollout(
        self, model: str, x0: Any, times: Any, **options: Any
    ) -> np.ndarray:
        """Trajectories from each initial condition, as ``Client.rollout``."""
        return (await self.rollout_record(model, x0, times, **options)).x

    async def rollout_record(
        self, model: str, x0: Any, times: Any, **options: Any
    ) -> Rollout:
        """The same with times, version and warnings beside the trajectories."""
        body = rollouts.request_body(model, x0, times, **options)
        return await self.run(rollouts.rollout(body, self.retries))


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


class AsyncJob(AbstractJob):
    """A job of the service.

    Attributes:
        record: What the service said of it last.
    """

    def __init__(self, client: AsyncClient, record: Record) -> None:
        self._client = client
        self.record = record

    async def wait(
        self,
        timeout_s: float | None = None,
        on_record: Callable[[Record], None] | None = None,
    ) -> AsyncMade:
        """Wait for the end; give what the job made, as ``Job.wait``."""
        client = self._client
        self.record = await client.run(
            jobs.wait(self.id, timeout_s, on_record or progress_line(), client.retries)
        )
        return await self.result()

    async def result(
        self,
    ) -> AsyncMade:
        """What a succeeded job made, as ``Job.result``."""
        made = await self._client.run(jobs.result(self.record, self._client.retries))
        if self.record.get("kind") == "rollout":
            return AsyncRolloutResult(self._client, made)
        return made

    async def cancel(self) -> Self:
        """Ask for the end of the job."""
        client = self._client
        self.record = await client.run(jobs.act(self.id, "cancel", client.retries))
        return self

    async def events(self, after: str | None = None) -> AsyncIterator[Event]:
        """Events as they happen, until the job ends.

        Raises:
            Unreachable: The stream broke, and again after the retries.
        """
        reader = EventReader(after)
        failures = 0
        while True:
            reader.begin()
            before = reader.last_id
            call = jobs.events_call(self.id, before)
            try:
                async for line in self._client.transport.lines(call):
                    failures = 0
                    if (event := reader.feed(line)) is not None:
                        yield event
                if reader.is_over:
                    return
                client = self._client
                self.record = await client.run(jobs.get(self.id, None, client.retries))
                if reader.is_through(self.record, before):
                    return
                if reader.last_id != before:
                    continue
                found = Lost("it ended before the job")
            except (httpx.TransportError, ProblemError) as error:
                found = broken(error)
            failures += 1
            if failures > self._client.retries:
                raise Unreachable(f"no events from {self._client.url}: {found.reason}")
            await asyncio.sleep(retry_delay(failures, found))
