"""Results that are too large for one answer: fetched chunk by chunk, as needed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spnode_client.labelled import labelled
from spnode_client.operations import results
from spnode_client.operations.results import Fetched, ResultChunk
from spnode_client.records import Record, in_grid

if TYPE_CHECKING:
    from spnode_client.aio import AsyncClient
    from spnode_client.client import Client


class AbstractResult:
    """What is known of a result without fetching any of its chunks.

    Attributes:
        record: The index of the result, as the service gives it.
    """

    record: Record

    @property
    def shape(self) -> tuple[int, ...]:
        """``(row, time, state)``; ``(row, state)`` of the final time."""
        return tuple(self.record["shape"])

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states, in the order of the last axis."""
        return tuple(self.record["states"])

    @property
    def times(self) -> np.ndarray:
        """The times of the output."""
        return np.array(self.record["times"])

    @property
    def failed(self) -> int:
        """How many rows left the finite range."""
        return self.record["failed"]

    @property
    def sweep(self) -> Record | None:
        """The grid of a sweep: its ``shape`` and ``axes``."""
        return self.record.get("sweep")

    def __len__(self) -> int:
        return self.record["rows"]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.record['job']!r}, shape={self.shape}, "
            f"{len(self.record['chunks'])} chunks)"
        )


class RolloutResult(AbstractResult):
    """The result of a rollout job: rows on demand.

    Args:
        client: Where it is fetched from.
        record: Its index.

    Example:
        >>> result = client.jobs.get("job_…").result()  # doctest: +SKIP
        >>> result.shape, result[500_000:500_010]  # doctest: +SKIP
        >>> for chunk in result:  # doctest: +SKIP
        ...     print(chunk.start, chunk.x.mean())
    """

    def __init__(self, client: "Client", record: Record) -> None:
        self._client = client
        self._fetched = Fetched(record, client.retries)
        self.record = record

    def __iter__(self) -> Iterator[ResultChunk]:
        """The chunks in order; only the last two stay in memory."""
        for number in self._fetched.numbers:
            yield self._client.run(self._fetched.chunk(number))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Rows as numpy slices them; only the chunks that hold any are fetched."""
        return self._client.run(self._fetched.rows(key))

    def array(self) -> np.ndarray:
        """All rows in memory."""
        return self[:]

    def grid(self) -> np.ndarray:
        """All rows in the shape of the sweep: ``(*axes, time, state)``."""
        return in_grid(self.array(), self.sweep)

    def to_xarray(self) -> Any:
        """All rows as an ``xarray.DataArray``, a sweep's in its grid; needs xarray."""
        return labelled(self.array(), self.times, self.states, self.sweep)

    def save(self, path: str | Path) -> Path:
        """Write the whole result to an npz file, a chunk at a time."""
        client = self._client
        return client.run(self._fetched.save(Path(path), client.transport.on_bytes))

    def delete(self) -> None:
        """Delete it from the service."""
        self._client.run(results.delete(self.record["job"], self._client.retries))


class AsyncRolloutResult(AbstractResult):
    """The same, awaited; arguments as for ``RolloutResult``."""

    def __init__(self, client: "AsyncClient", record: Record) -> None:
        self._client = client
        self._fetched = Fetched(record, client.retries)
        self.record = record

    async def __aiter__(self) -> AsyncIterator[ResultChunk]:
        """The chunks in order; only the last two stay in memory."""
        for number in self._fetched.numbers:
            yield await self._client.run(self._fetched.chunk(number))

    async def rows(self, key: Any) -> np.ndarray:
        """Rows as numpy slices them; only the chunks that hold any are fetched."""
        return await self._client.run(self._fetched.rows(key))

    async def array(self) -> np.ndarray:
        """All rows in memory."""
        return await self.rows(slice(None))

    async def grid(self) -> np.ndarray:
        """All rows in the shape of the sweep: ``(*axes, time, state)``."""
        return in_grid(await self.array(), self.sweep)

    async def to_xarray(self) -> Any:
        """All rows as an ``xarray.DataArray``, as ``RolloutResult.to_xarray``."""
        return labelled(await self.array(), self.times, self.states, self.sweep)

    async def save(self, path: str | Path) -> Path:
        """Write the whole result to an npz file, a chunk at a time."""
        return await self._client.run(self._fetched.save(Path(path)))

    async def delete(self) -> None:
        """Delete it from the service."""
        await self._client.run(results.delete(self.record["job"], self._client.retries))
