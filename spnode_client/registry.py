"""The models of a service and their versions: ``client.models``."""

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spnode_client.comparisons import comparison_request
from spnode_client.jobs import Job, Resource
from spnode_client.operations import models
from spnode_client.operations.pages import items
from spnode_client.records import Dataset, ModelVersion, Record


class Models(Resource):
    """``client.models``; a reference is ``name``, ``name@alias`` or ``name/3``."""

    def alias_history(self, name: str, alias: str) -> list[Record]:
        """Every move of an alias, newest first, who moved it and why."""
        return self._run(models.alias_history(name, alias, self._retries))

    def versions(
        self, name: str, limit: int | None = 20, **query: Any
    ) -> list[ModelVersion]:
        """The newest versions of a model, 1 to 100, or None for all.

        Their records are short; ``version`` has the whole of one.
        """
        page = functools.partial(models.versions, name)
        found = self._run(items(page, query, limit, self._retries))
        return [ModelVersion.of(record) for record in found]

    def list(self, limit: int | None = 20, **query: Any) -> list[Record]:
        """The newest models, 1 to 100, or None for all."""
        return self._run(items(models.page, query, limit, self._retries))

    def get(self, name: str) -> Record:
        """A model with its aliases and its newest versions."""
        return self._run(models.get(name, self._retries))

    def version(self, reference: str) -> ModelVersion:
        """The version that a reference stands for."""
        return self._run(models.version(reference, self._retries))

    def card(self, reference: str) -> Record:
        """A version's model card."""
        return self._run(models.part(reference, "card", self._retries))

    def plots(self, reference: str) -> dict[str, bytes]:
        """The pictures of a version's training, PNG by name."""
        return self._run(models.plots(reference, self._retries))

    def certificate(self, reference: str) -> Record:
        """What is proven of a version, and under which assumptions."""
        return self._run(models.part(reference, "certificate", self._retries))

    def evaluation(self, reference: str) -> Record:
        """A version's held-out errors."""
        return self._run(models.part(reference, "evaluation", self._retries))

    def compare(self, *models: Any, dataset: Dataset | str, **options: Any) -> Job:
        """Queue a comparison of versions on the same held-out trajectories.

        Args:
            *models: Versions, or ``name``, ``name@alias``, ``name/3``; the first is the
                reference that the others are held against.
            dataset: A dataset or its id.
            **options: ``part`` (``"all"``, or ``"test"``: what the last version that
                was trained on the dataset held out), ``seed``, ``schedule``.

        Returns:
            The job; ``wait()`` gives a ``Comparison``.
        """
        return self._client.jobs.submit(comparison_request(models, dataset, options))

    def download(self, reference: str, path: str | Path) -> Path:
        """Write a version's artifact to ``path``."""
        return self._run(models.artifact(reference, path, self._retries))

    def load(self, reference: str) -> Any:
        """The surrogate in this process, verified by digest and probe.

        Needs ``spnode[jax]``, and JAX in 64-bit mode.
        """
        from spnode_client.local import load_file

        with self._fetched(reference) as (path, version):
            return load_file(path, version)

    def export(
        self,
        reference: str,
        folder: str | Path,
        times: Any = None,
        *,
        control_times: Any = None,
        rows: Sequence[int] | None = None,
    ) -> Record:
        """Write the rollout to a folder for programs without this library.

        Made in this process from the version's artifact, so it needs ``spnode[jax]``
        and JAX in 64-bit mode.

        Args:
            reference: Which version.
            folder: Where to; new or empty.
            times: Output times, increasing; the model's own where none are given.
            control_times: When controls switch, from 0.
            rows: Numbers of rows to write modules for; 1 and 32 by default.

        Returns:
            The content of ``export.json``.
        """
        from spnode_client.local import export_file

        options = {"times": times, "control_times": control_times, "rows": rows}
        with self._fetched(reference) as (path, version):
            return export_file(path, version, folder, **options)

    def register(self, path: str | Path, name: str) -> ModelVersion:
        """Make a file of ``spnode_core.save`` the next version of a model.

        The gates of ``champion`` count only what the service has evaluated itself.
        """
        return self._run(models.register(name, path, self._retries))

    def set_alias(
        self,
        name: str,
        alias: str,
        number: int,
        if_match: str | None = None,
        override: str | None = None,
    ) -> Record:
        """Point an alias at a version; ``override``: why, where its gates fail."""
        given = (name, alias, number, if_match, self._retries, override)
        return self._run(models.set_alias(*given))

    def delete_alias(self, name: str, alias: str, if_match: str | None = None) -> None:
        """Delete an alias; its history stays."""
        self._run(models.delete_alias(name, alias, if_match, self._retries))

    def describe(
        self,
        name: str,
        description: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> Record:
        """Change a model's description or all of its tags; None leaves them."""
        changes = {"description": description, "tags": tags}
        return self._run(models.describe(name, changes, self._retries))

    def tag(
        self,
        name: str,
        changes: dict[str, str | None],
        description: str | None = None,
    ) -> Record:
        """Change some of a model's tags, or remove those that are None."""
        return self._run(models.tag(name, changes, description, self._retries))

    def delete_version(self, reference: str) -> None:
        """Remove a version that no alias points at."""
        self._run(models.delete_version(reference, self._retries))

    @contextlib.contextmanager
    def _fetched(self, reference: str) -> Iterator[tuple[Path, ModelVersion]]:
        """A version's artifact, until the end of the block."""
        version = self.version(reference)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "version.spnode"
            yield self.download(str(version), path), version
