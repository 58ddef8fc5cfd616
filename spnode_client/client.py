"""The blocking client: what to ask for; how it is asked stands in ``operations``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from spnode_client.calibrations import calibration_request
from spnode_client.calls import PATIENCE_S, Operation, T
from spnode_client.derivatives import Derivatives
from spnode_client.jobs import Job, Jobs, Resource
from spnode_client.model import Model
from spnode_client.operations import datasets, jobs, keys, rollouts
from spnode_client.operations.pages import items
from spnode_client.records import Dataset, Record, Rollout
from spnode_client.registry import Models
from spnode_client.sweeps import sweep_request
from spnode_client.transport import Transport

DEFAULT_URL = "http://127.0.0.1:8000"


class Client(Derivatives):
    """A service, by its address.

    Args:
        url: Address of the service.
        key: API key, or None where the service asks for none.
        timeout_s: How long an answer may take to begin. A rollout or derivative has a
            ``timeout_s`` of its own, which bounds the whole call.
        retries: Further tries after 429, 503 or a lost connection, with jitter and
            never sooner than the service's Retry-After.

    Example:
        >>> client = Client("http://127.0.0.1:8000", key="…")  # doctest: +SKIP
        >>> client.rollout("robertson", [1, 0, 0], [1.0, 10.0])  # doctest: +SKIP
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
        self.transport = self._transport(key, timeout_s)
        self.datasets = Datasets(self)
        self.jobs = Jobs(self)
        self.models = Models(self)
        self.keys = Keys(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.transport.http.close()

    def _transport(self, key: str | None, timeout_s: float) -> Transport:
        return Transport(self.url, key, timeout_s)

    def run(self, operation: Operation[T]) -> T:
        """Run one operation."""
        return self.transport.run(operation)

    def train(self, dataset: Dataset | str, model: str, **options: Any) -> Job:
        """Queue the training of a new version.

        Args:
            dataset: A dataset or its id.
            model: Name of the model that gets the version.
            **options: Fields of the request: ``preset``, ``seed``, ``surrogate``,
                ``training``, ``split``, ``certified``, ``alias``, ``tags``,
                ``members`` (of an ensemble), ``warm_start``, a version (or
                ``name@alias``) to go on from, and ``schedule``:
                ``{"priority", "deadline_seconds", "device"}``.

        Returns:
            The job; ``wait()`` gives the version.
        """
        return self.jobs.submit(jobs.training_request(dataset, model, options))

    def sweep(
        self,
        dataset: Dataset | str,
        model: str,
        candidates: Sequence[Record] | None = None,
        *,
        grid: Record | None = None,
        split: Record | None = None,
        ensemble: int | None = None,
        alias: str | None = None,
        tags: dict[str, str] | None = None,
        schedule: Record | None = None,
        **base: Any,
    ) -> Job:
        """Queue trainings that differ in some settings, and the search for the best.

        Args:
            dataset: A dataset or its id.
            model: Name of the model that gets a version of each candidate.
            candidates: What each has beside ``base``: ``[{"preset": "auto"}, …]``.
            grid: Instead, values by field, all combinations of which are tried:
                ``{"seed": [0, 1], "surrogate.latent": [4, 8]}``.
            split: What all hold out; they are ranked on the validation part.
            ensemble: How many of the best to join into one ensemble, a version of its
                own.
            alias: Alias that the ensemble takes, or else the best version.
            tags: Your own words, for each version.
            schedule: Of all its jobs, as for ``train``.
            **base: What all have in common, as for ``train``.

        Returns:
            The job; ``wait()`` gives a ``Ranking``.
        """
        given = None if candidates is None else list(candidates)
        options = {"candidates": given, "grid": grid, "split": split}
        options |= {"ensemble": ensemble, "alias": alias}
        options |= {"tags": tags, "schedule": schedule}
        return self.jobs.submit(sweep_request(dataset, model, options, base))

    def calibrate(
        self,
        model: str,
        times: Any,
        observations: Any,
        unknowns: Record,
        **options: Any,
    ) -> Job:
        """Queue the search for parameters, initial states or controls.

        Args:
            model: ``name``, ``name@alias`` or ``name/3``.
            times: Increasing times of the observations, ``(time,)``.
            observations: ``(time, state)``; None or NaN where there is none.
            unknowns: ``{"parameters": {"k1": {"lower": …, "upper": …}}, "x0": …}``,
                with ``start``, ``prior`` and ``scale`` where wanted.
            **options: ``states`` (names of the columns), ``noise``, ``model_error``,
                ``x0``, ``parameters``, ``controls``, ``control_times``, ``starts``,
                ``seed``, ``coverage``, ``schedule``.

        Returns:
            The job; ``wait()`` gives a ``Calibration``.
        """
        return self.jobs.submit(
            calibration_request(model, times, observations, unknowns, options)
        )

    def model(self, reference: str) -> Model:
        """A version as functions for JAX, torch and SciPy; fixed from here on.

        Args:
            reference: ``name``, ``name@alias`` or ``name/3``.
        """
        return Model(self, self.models.version(reference))

    def rollout(
        self,
        model: str,
        x0: Any,
        times: Any,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Trajectories from each initial condition, ``([batch,] time, state)``.

        Args:
            model: ``name``, ``name@alias`` or ``name/3``.
            x0: ``(state,)`` or ``(batch, state)``.
            times: Increasing times since the start, ``(time,)``, or
                ``{"start", "stop", "count", "spacing"}``.
            timeout_s: How long this call may take, all its tries together; 3600 at
                most. By default each try has the client's own.
            **options: ``parameters``, ``controls``, ``control_times``, ``outputs``,
                ``on_error``, ``mode`` (``"throughput"``), ``precision``
                (``"float64"``), ``sweep`` (``rollout_record(...).grid()`` has its
                axes), ``intervals`` (a coverage, 0.9: ``rollout_record(...)`` then has
                ``lower`` and ``upper``), ``spread`` (True: it then has the ``spread``
                of an ensemble's members).

        Raises:
            DeadlinePassed: There was no answer within ``timeout_s``.
            ValueError: ``timeout_s`` is no number of seconds, or out of bounds.

        Warns:
            DomainWarning: A trajectory left the domain of the training data.
        """
        return self.rollout_record(model, x0, times, timeout_s=timeout_s, **options).x

    def rollout_record(
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
        return self.run(rollouts.rollout(body, self.retries, timeout_s))


class Datasets(Resource):
    """``client.datasets``."""

    def upload(self, path: str | Path, name: str | None = None) -> Dataset:
        """Stream a file of trajectories into the store; it is checked on arrival.

        Its content says which of the formats it is, npz, HDF5, CSV or another.
        """
        return self._run(datasets.upload(path, name, self._retries))

    def get(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return self._run(datasets.get(dataset_id, self._retries))

    def list(self, limit: int | None = 20, **query: Any) -> list[Dataset]:
        """The newest datasets, 1 to 100, or None for all."""
        found = self._run(items(datasets.page, query, limit, self._retries))
        return [Dataset.of(record) for record in found]

    def download(self, dataset_id: str, path: str | Path) -> Path:
        """Write the dataset's file to ``path``."""
        return self._run(datasets.download(dataset_id, path, self._retries))

    def delete(self, dataset_id: str) -> None:
        """Remove a dataset."""
        self._run(datasets.delete(dataset_id, self._retries))

    def generate(self, system: str, trajectories: int, seed: int = 0) -> Job:
        """Queue the making of a dataset from a built-in system."""
        request = {"kind": "dataset", "system": system}
        return self._client.jobs.submit(
            {**request, "trajectories": trajectories, "seed": seed}
        )


class Keys(Resource):
    """``client.keys``, for an admin's key."""

    def create(
        self,
        name: str,
        scopes: list[str],
        *,
        project: str = "default",
        expires_in_seconds: float | None = None,
    ) -> Record:
        """Make a key, by default for good; ``secret`` is shown this once.

        It sees the datasets, jobs and models of its project; with the scope ``admin``
        those of all.
        """
        body = {"name": name, "scopes": scopes, "project": project}
        body["expires_in_seconds"] = expires_in_seconds
        return self._run(keys.create(body, self._retries))

    def rotate(self, key_id: str, *, keep_seconds: float = 3600.0) -> Record:
        """Make a key in the place of another, which stays valid for ``keep_seconds``.

        It has the old one's name, scopes and lifetime; ``secret`` is shown this once.
        """
        return self._run(keys.rotate(key_id, keep_seconds, self._retries))

    def audit(self, limit: int | None = 20, **query: Any) -> list[Record]:
        """The newest requests that may have changed something, and what came of them.

        Args:
            limit: Most of them, 1 to 100, or None for all.
            **query: ``caller``, as ``key:<id>``; ``after``, the cursor of a page.
        """
        return self._run(items(keys.acts, query, limit, self._retries))

    def list(self) -> list[Record]:
        """The keys, without their secrets."""
        return self._run(keys.page(self._retries))["data"]

    def revoke(self, key_id: str) -> None:
        """Make a key useless."""
        self._run(keys.revoke(key_id, self._retries))
