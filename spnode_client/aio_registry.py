"""The models of a service and their versions: the async form of ``registry``."""

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from spnode_client.aio_jobs import AsyncJob, AsyncResource
from spnode_client.comparisons import comparison_request
from spnode_client.operations import models
from spnode_client.operations.pages import items
from spnode_client.records import Dataset, ModelVersion, Record


class AsyncModels(AsyncResource):
    """``client.models``, awaited; arguments as of ``Models``."""

    async def alias_history(self, name: str, alias: str) -> list[Record]:
        """Every move of an alias, newest first, who moved it and why."""
        return await self._run(models.alias_history(name, alias, self._retries))

    async def versions(
        self, name: str, limit: int | None = 20, **query: Any
    ) -> list[ModelVersion]:
        """The newest versions of a model, 1 to 100, or None for all."""
        page = functools.partial(models.versions, name)
        found = await self._run(items(page, query, limit, self._retries))
        return [ModelVersion.of(record) for record in found]

    async def list(self, limit: int | None = 20, **query: Any) -> list[Record]:
        """The newest models, 1 to 100, or None for all."""
        return await self._run(items(models.page, query, limit, self._retries))

    async def get(self, name: str) -> Record:
        """A model with its aliases and its newest versions."""
        return await self._run(models.get(name, self._retries))

    async def version(self, reference: str) -> ModelVersion:
        """The version that a reference stands for."""
        return await self._run(models.version(reference, self._retries))

    async def card(self, reference: str) -> Record:
        """A version's model card."""
        return await self._run(models.part(reference, "card", self._retries))

    async def plots(self, reference: str) -> dict[str, bytes]:
        """The pictures of a version's training, PNG by name."""
        return await self._run(models.plots(reference, self._retries))

    async def certificate(self, reference: str) -> Record:
        """What is proven of a version, and under which assumptions."""
        return await self._run(models.part(reference, "certificate", self._retries))

    async def evaluation(self, reference: str) -> Record:
        """A version's held-out errors."""
        return await self._run(models.part(reference, "evaluation", self._retries))

    async def compare(
        self, *models: Any, dataset: Dataset | str, **options: Any
    ) -> AsyncJob:
        """Queue a comparison of versions on the same held-out trajectories."""
        return await self._client.jobs.submit(
            comparison_request(models, dataset, options)
        )

    async def download(self, reference: str, path: str | Path) -> Path:
        """Write a version's artifact to ``path``."""
        return await self._run(models.artifact(reference, path, self._retries))

    async def load(self, reference: str) -> Any:
        """The surrogate in this process, verified by digest and probe."""
        from spnode_client.local import load_file

        async with self._fetched(reference) as (path, version):
            return await asyncio.to_thread(load_file, path, version)

    async def export(
        self,
        reference: str,
        folder: str | Path,
        times: Any = None,
        *,
        control_times: Any = None,
        rows: Sequence[int] | None = None,
    ) -> Record:
        """Write the rollout to a folder for programs without this library."""
        from spnode_client.local import export_file

        options = {"times": times, "control_times": control_times, "rows": rows}
        async with self._fetched(reference) as (path, version):
            return await asyncio.to_thread(
                export_file, path, version, folder, **options
            )

    async def register(self, path: str | Path, name: str) -> ModelVersion:
        """Make a file of ``spnode_core.save`` the next version of a model."""
        return await self._run(models.register(name, path, self._retries))

    async def set_alias(
        self,
        name: str,
        alias: str,
        number: int,
        if_match: str | None = None,
        override: str | None = None,
    ) -> Record:
        """Point an alias at a version; ``override``: why, where its gates fail."""
        given = (name, alias, number, if_match, self._retries, override)
        return await self._run(models.set_alias(*given))

    async def delete_alias(
        self, name: str, alias: str, if_match: str | None = None
    ) -> None:
        """Delete an alias; its history stays."""
        await self._run(models.delete_alias(name, alias, if_match, self._retries))

    async def describe(
        self,
        name: str,
        description: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> Record:
        """Change a model's description or all of its tags; None leaves them."""
        changes = {"description": description, "tags": tags}
        return await self._run(models.describe(name, changes, self._retries))

    async def tag(
        self,
        name: str,
        changes: dict[str, str | None],
        description: str | None = None,
    ) -> Record:
        """Change some of a model's tags, or remove those that are None."""
        return await self._run(models.tag(name, changes, description, self._retries))

    async def delete_version(self, reference: str) -> None:
        """Remove a version that no alias points at."""
        await self._run(models.delete_version(reference, self._retries))

    @contextlib.asynccontextmanager
    async def _fetched(
        self, reference: str
    ) -> AsyncIterator[tuple[Path, ModelVersion]]:
        """A version's artifact, until the end of the block."""
        version = await self.version(reference)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "version.spnode"
            yield await self.download(str(version), path), version
