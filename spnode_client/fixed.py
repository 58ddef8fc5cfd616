"""A version that stays what it was, and what is asked of it, blocking and awaited."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from spnode_client.labelled import labelled_rollout
from spnode_client.records import ModelVersion, Record, Rollout

if TYPE_CHECKING:
    from spnode_client.aio import AsyncClient
    from spnode_client.client import Client

C = TypeVar("C", "Client", "AsyncClient")


class FixedVersion(Generic[C]):
    """A version: where its alias moves meanwhile, this stays what it was.

    Args:
        client: Asks the service.
        version: Which version it is.
    """

    def __init__(self, client: C, version: ModelVersion) -> None:
        self.client = client
        self.version = version
        signature = version.record["signature"]
        self.states: tuple[str, ...] = tuple(signature["states"])
        self.parameters: tuple[str, ...] = tuple(signature.get("parameters") or ())
        self.controls: tuple[str, ...] = tuple(signature.get("controls") or ())

    @property
    def reference(self) -> str:
        """``name/3``."""
        return str(self.version)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reference!r}, {self.client.url!r})"


class FixedCalls(FixedVersion["Client"]):
    """Requests about the version; options are those of ``Client.rollout``."""

    def rollout(self, x0: Any, times: Any, **options: Any) -> np.ndarray:
        """Trajectories, as ``Client.rollout``."""
        return self.client.rollout(self.reference, x0, times, **options)

    def rollout_record(self, x0: Any, times: Any, **options: Any) -> Rollout:
        """The same with times, version and warnings beside the trajectories."""
        return self.client.rollout_record(self.reference, x0, times, **options)

    def as_xarray(self, x0: Any, times: Any, **options: Any) -> Any:
        """Trajectories as an ``xarray.Dataset`` whose axes have names.

        Args:
            x0: ``(state,)`` or ``(row, state)``.
            times: Times since the start.
            **options: As for ``Client.rollout``.

        Returns:
            ``x``, and ``lower``, ``upper`` and ``spread`` where they were asked for,
            with the axes ``row``, ``time`` and ``state``, or those of a sweep.

        Raises:
            ImportError: xarray is not installed.
        """
        found = self.rollout_record(x0, times, **options)
        return labelled_rollout(found, self.version, options)

    def jvp(
        self, x0: Any, times: Any, tangents: Mapping[str, Any], **options: Any
    ) -> Record:
        """The derivative along ``tangents``, as ``Client.jvp``."""
        return self.client.jvp(self.reference, x0, times, tangents, **options)

    def vjp(self, x0: Any, times: Any, cotangents: Any, **options: Any) -> Record:
        """Gradients of ``sum(cotangents * x)``, as ``Client.vjp``."""
        return self.client.vjp(self.reference, x0, times, cotangents, **options)

    def hvp(
        self,
        x0: Any,
        times: Any,
        cotangents: Any,
        tangents: Mapping[str, Any],
        **options: Any,
    ) -> Record:
        """Products of a Hessian, as ``Client.hvp``."""
        given = (x0, times, cotangents, tangents)
        return self.client.hvp(self.reference, *given, **options)

    def jacobian(
        self, x0: Any, times: Any, inputs: Sequence[str] | None = None, **options: Any
    ) -> Record:
        """The derivative by every input, as ``Client.jacobian``."""
        return self.client.jacobian(self.reference, x0, times, inputs, **options)

    def objective(
        self, x0: Any, times: Any, objective: Mapping[str, Any], **options: Any
    ) -> Record:
        """An objective and its gradient, as ``Client.objective``."""
        return self.client.objective(self.reference, x0, times, objective, **options)


class AsyncModel(FixedVersion["AsyncClient"]):
    """A version in the service, for programs with an event loop.

    Example:
        >>> async def main(client):
        ...     model = await client.model("robertson@champion")
        ...     return await model.rollout([1, 0, 0], [1.0])
    """

    async def rollout(self, x0: Any, times: Any, **options: Any) -> np.ndarray:
        """Trajectories, as ``Client.rollout``."""
        return await self.client.rollout(self.reference, x0, times, **options)

    async def rollout_record(self, x0: Any, times: Any, **options: Any) -> Rollout:
        """The same with times, version and warnings beside the trajectories."""
        return await self.client.rollout_record(self.reference, x0, times, **options)

    async def as_xarray(self, x0: Any, times: Any, **options: Any) -> Any:
        """Trajectories as an ``xarray.Dataset``, as ``Model.as_xarray``."""
        found = await self.rollout_record(x0, times, **options)
        return labelled_rollout(found, self.version, options)

    async def jvp(
        self, x0: Any, times: Any, tangents: Mapping[str, Any], **options: Any
    ) -> Record:
        """The derivative along ``tangents``, as ``Client.jvp``."""
        return await self.client.jvp(self.reference, x0, times, tangents, **options)

    async def vjp(self, x0: Any, times: Any, cotangents: Any, **options: Any) -> Record:
        """Gradients of ``sum(cotangents * x)``, as ``Client.vjp``."""
        return await self.client.vjp(self.reference, x0, times, cotangents, **options)

    async def hvp(
        self,
        x0: Any,
        times: Any,
        cotangents: Any,
        tangents: Mapping[str, Any],
        **options: Any,
    ) -> Record:
        """Products of a Hessian, as ``Client.hvp``."""
        given = (x0, times, cotangents, tangents)
        return await self.client.hvp(self.reference, *given, **options)

    async def jacobian(
        self, x0: Any, times: Any, inputs: Sequence[str] | None = None, **options: Any
    ) -> Record:
        """The derivative by every input, as ``Client.jacobian``."""
        return await self.client.jacobian(self.reference, x0, times, inputs, **options)

    async def objective(
        self, x0: Any, times: Any, objective: Mapping[str, Any], **options: Any
    ) -> Record:
        """An objective and its gradient, as ``Client.objective``."""
        given = (x0, times, objective)
        return await self.client.objective(self.reference, *given, **options)
