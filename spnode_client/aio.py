"""The async client: the same operations, awaited."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from spnode_client.aio_jobs import AsyncJob, AsyncJobs, AsyncResource
from spnode_client.aio_registry import AsyncModels
from spnode_client.calibrations import calibration_request
from spnode_client.calls import PATIENCE_S, Operation, T
from spnode_client.client import DEFAULT_URL
from spnode_client.derivatives import AsyncDerivatives
from spnode_client.fixed import AsyncModel
from spnode_client.operations import datasets, jobs, keys, rollouts
from spnode_client.operations.pages import items
from spnode_client.records import Dataset, Record, Rollout
from spnode_client.sweeps import sweep_request
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

    patience_s: float = PATIENCE_S
    """How long nothing may be heard of a job that is waited for or followed: so a
    gateway may start anew meanwhile."""

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
        self.datasets = AsyncDatasets(self)
        self.jobs = AsyncJobs(self)
        self.models = AsyncModels(self)
        self.keys = AsyncKeys(self)

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

    async def train(
        self, dataset: Dataset | str, model: str, **options: Any
    ) -> AsyncJob:
        """Queue the training of a new version; options as ``Client.train``."""
        return await self.jobs.submit(jobs.training_request(dataset, model, options))

    async def sweep(
        self,
        dataset: Dataset | str,
        model: str,
        candidates: Sequence[Record] | None = None,
        **options: Any,
    ) -> AsyncJob:
        """Queue trainings that differ in some settings, as ``Client.sweep``."""
        named = ("grid", "split", "ensemble", "alias", "tags", "schedule")
        own = {name: options.pop(name, None) for name in named}
        own["candidates"] = None if candidates is None else list(candidates)
        return await self.jobs.submit(sweep_request(dataset, model, own, options))

    async def calibrate(
        self,
        model: str,
        times: Any,
        observations: Any,
        unknowns: Record,
        **options: Any,
    ) -> AsyncJob:
        """Queue the search for parameters and the like, as ``Client.calibrate``."""
        return await self.jobs.submit(
            calibration_request(model, times, observations, unknowns, options)
        )

    async def model(self, reference: str) -> AsyncModel:
        """A version, fixed from here on, as ``Client.model``."""
        return AsyncModel(self, await self.models.version(reference))

    async def rollout(
        self,
        model: str,
        x0: Any,
        times: Any,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Trajectories from each initial condition, as ``Client.rollout``."""
        found = await self.rollout_record(
            model, x0, times, timeout_s=timeout_s, **options
        )
        return found.x

    async def rollout_record(
        self,
        model: str,
        x0: Any,
        times: Any,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Rollout:
        """The same with times, version and warnings beside the trajectories."""
        body = rollouts.request_body(model, x0, times, **options)
        return await self.run(rollouts.rollout(body, self.retries, timeout_s))


class AsyncDatasets(AsyncResource):
    """``client.datasets``, awaited; arguments as of ``Datasets``."""

    async def upload(self, path: str | Path, name: str | None = None) -> Dataset:
        """Stream a file of trajectories into the store; it is checked on arrival."""
        return await self._run(datasets.upload(path, name, self._retries))

    async def get(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return await self._run(datasets.get(dataset_id, self._retries))

    async def list(self, limit: int | None = 20, **query: Any) -> list[Dataset]:
        """The newest datasets, 1 to 100, or None for all."""
        found = await self._run(items(datasets.page, query, limit, self._retries))
        return [Dataset.of(record) for record in found]

    async def download(self, dataset_id: str, path: str | Path) -> Path:
        """Write the dataset's file to ``path``."""
        return await self._run(datasets.download(dataset_id, path, self._retries))

    async def delete(self, dataset_id: str) -> None:
        """Remove a dataset."""
        await self._run(datasets.delete(dataset_id, self._retries))

    async def generate(self, system: str, trajectories: int, seed: int = 0) -> AsyncJob:
        """Queue the making of a dataset from a built-in system."""
        request = {"kind": "dataset", "system": system}
        return await self._client.jobs.submit(
            {**request, "trajectories": trajectories, "seed": seed}
        )


class AsyncKeys(AsyncResource):
    """``client.keys``, awaited; arguments as of ``Keys``."""

    async def create(
        self,
        name: str,
        scopes: list[str],
        *,
        project: str = "default",
        expires_in_seconds: float | None = None,
    ) -> Record:
        """Make a key, by default for good; ``secret`` is shown this once."""
        body = {"name": name, "scopes": scopes, "project": project}
        body["expires_in_seconds"] = expires_in_seconds
        return await self._run(keys.create(body, self._retries))

    async def rotate(self, key_id: str, *, keep_seconds: float = 3600.0) -> Record:
        """Make a key in the place of another, which stays valid for a while."""
        return await self._run(keys.rotate(key_id, keep_seconds, self._retries))

    async def audit(self, limit: int | None = 20, **query: Any) -> list[Record]:
        """The newest requests that may have changed something, what came of them."""
        return await self._run(items(keys.acts, query, limit, self._retries))

    async def list(self) -> list[Record]:
        """The keys, without their secrets."""
        return (await self._run(keys.page(self._retries)))["data"]

    async def revoke(self, key_id: str) -> None:
        """Make a key useless."""
        await self._run(keys.revoke(key_id, self._retries))
