"""Derivatives of rollouts: the same methods, blocking and awaited.

All are exact derivatives of the surrogate; with ``precision="float64"`` they are exact
to 1e-10, else to the rounding of the model's networks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from spnode_client.calls import Operation, T
from spnode_client.operations import rollouts
from spnode_client.records import Record


class _Client(Protocol):
    retries: int

    def run(self, operation: Operation[T]) -> T: ...


class Derivatives:
    """What ``Client`` asks of derivatives.

    Every method takes ``model``, ``x0`` and ``times`` as ``Client.rollout`` does, and
    its options: ``parameters``, ``controls``, ``control_times``, ``outputs``,
    ``on_error``, ``mode``, ``precision``.
    """

    def jvp(
        self: _Client,
        model: str,
        x0: Any,
        times: Any,
        tangents: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """The rollout ``x`` and its derivative ``jvp`` along ``tangents``.

        Args:
            model: As for ``rollout``; so are ``x0``, ``times`` and ``options``.
            x0: ``(state,)`` or ``(batch, state)``.
            times: Times since the start.
            tangents: By input, of the shape of the input, or many of them behind a
                leading axis; inputs without tangents do not move.
            timeout_s: As for ``rollout``.
            **options: As for ``rollout``.
        """
        body = rollouts.request_body(model, x0, times, tangents=tangents, **options)
        return self.run(rollouts.derivative("jvp", body, self.retries, timeout_s))

    def vjp(
        self: _Client,
        model: str,
        x0: Any,
        times: Any,
        cotangents: Any,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """The rollout ``x`` and gradients of ``sum(cotangents * x)``.

        Args:
            model: As for ``rollout``; so are ``x0``, ``times`` and ``options``.
            x0: ``(state,)`` or ``(batch, state)``.
            times: Times since the start.
            cotangents: Weights, of the shape of the rollout's answer, or many of them
                behind a leading axis.
            timeout_s: As for ``rollout``.
            **options: As for ``rollout``.

        Returns:
            ``x``, and the gradients by input in ``vjp``; those of an input that all
            rows share are summed.
        """
        body = rollouts.request_body(model, x0, times, cotangents=cotangents, **options)
        return self.run(rollouts.derivative("vjp", body, self.retries, timeout_s))

    def hvp(
        self: _Client,
        model: str,
        x0: Any,
        times: Any,
        cotangents: Any,
        tangents: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """Products of the Hessian of ``sum(cotangents * x)`` with ``tangents``.

        Args:
            model: As for ``rollout``; so are ``x0``, ``times`` and ``options``.
            x0: ``(state,)`` or ``(batch, state)``.
            times: Times since the start.
            cotangents: Weights, of the shape of the rollout's answer.
            tangents: By input, one direction, or many behind a leading axis.
            timeout_s: As for ``rollout``.
            **options: As for ``rollout``.

        Returns:
            The gradient by input in ``vjp``, the products by input in ``hvp``.
        """
        body = rollouts.request_body(
            model, x0, times, cotangents=cotangents, tangents=tangents, **options
        )
        return self.run(rollouts.derivative("hvp", body, self.retries, timeout_s))

    def jacobian(
        self: _Client,
        model: str,
        x0: Any,
        times: Any,
        inputs: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """The rollout ``x`` and its derivative by every number of its inputs.

        Args:
            model: As for ``rollout``; so are ``x0``, ``times`` and ``options``.
            x0: ``(state,)`` or ``(batch, state)``.
            times: Times since the start.
            inputs: Which of ``x0``, ``parameters``, ``controls``; all by default.
            timeout_s: As for ``rollout``.
            **options: As for ``rollout``.

        Returns:
            ``x``, and by input in ``jacobian`` the axes of ``x``, then those that the
            input of one row has.
        """
        body = rollouts.request_body(model, x0, times, inputs=inputs, **options)
        return self.run(rollouts.derivative("jacobian", body, self.retries, timeout_s))

    def objective(
        self: _Client,
        model: str,
        x0: Any,
        times: Any,
        objective: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """The value of an objective and its gradient: one call for each iteration.

        Args:
            model: As for ``rollout``; so are ``x0``, ``times`` and ``options``.
            x0: ``(state,)`` or ``(batch, state)``.
            times: Times since the start.
            objective: ``{"kind": "misfit", "observations", "weights"}`` for
                ``sum(weights * (x - observations)**2)``, NaN being observations that
                are missing; or ``{"kind": "quadratic", "target", "weights",
                "final_weights"}``.
            timeout_s: As for ``rollout``.
            **options: As for ``rollout``.

        Returns:
            ``value`` (the sum over rows), ``values`` by row, and by input the
            ``gradient`` of ``value``.
        """
        body = rollouts.request_body(model, x0, times, objective=objective, **options)
        return self.run(rollouts.derivative("objective", body, self.retries, timeout_s))


class _AsyncClient(Protocol):
    retries: int

    async def run(self, operation: Operation[T]) -> T: ...


class AsyncDerivatives:
    """What ``AsyncClient`` asks of derivatives, as ``Client`` does."""

    async def jvp(
        self: _AsyncClient,
        model: str,
        x0: Any,
        times: Any,
        tangents: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """The derivative along ``tangents``, as ``Client.jvp``."""
        body = rollouts.request_body(model, x0, times, tangents=tangents, **options)
        return await self.run(rollouts.derivative("jvp", body, self.retries, timeout_s))

    async def vjp(
        self: _AsyncClient,
        model: str,
        x0: Any,
        times: Any,
        cotangents: Any,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """Gradients of ``sum(cotangents * x)``, as ``Client.vjp``."""
        body = rollouts.request_body(model, x0, times, cotangents=cotangents, **options)
        return await self.run(rollouts.derivative("vjp", body, self.retries, timeout_s))

    async def hvp(
        self: _AsyncClient,
        model: str,
        x0: Any,
        times: Any,
        cotangents: Any,
        tangents: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """Products of a Hessian, as ``Client.hvp``."""
        body = rollouts.request_body(
            model, x0, times, cotangents=cotangents, tangents=tangents, **options
        )
        return await self.run(rollouts.derivative("hvp", body, self.retries, timeout_s))

    async def jacobian(
        self: _AsyncClient,
        model: str,
        x0: Any,
        times: Any,
        inputs: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """The derivative by every input, as ``Client.jacobian``."""
        body = rollouts.request_body(model, x0, times, inputs=inputs, **options)
        return await self.run(
            rollouts.derivative("jacobian", body, self.retries, timeout_s)
        )

    async def objective(
        self: _AsyncClient,
        model: str,
        x0: Any,
        times: Any,
        objective: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Record:
        """An objective and its gradient, as ``Client.objective``."""
        body = rollouts.request_body(model, x0, times, objective=objective, **options)
        return await self.run(
            rollouts.derivative("objective", body, self.retries, timeout_s)
        )
