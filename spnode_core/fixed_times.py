"""A surrogate's rollout at fixed times, with what no initial state changes worked out.

::

    surrogate.at(times)      plan, propagators, normalised weights: once
        (x0, p, u) -> x      the steps alone: every call
"""

from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from spnode_core.errors import InvalidInput
from spnode_core.inputs import batched_inputs
from spnode_core.rollout import Shared, rollout, shared_propagators
from spnode_core.timegrid import Plan

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate


class FixedTimes(eqx.Module):
    """``x0, p, u -> x(t_1), x(t_2), ...``; ``surrogate.at(times)`` makes one.

    A pure function of arrays: jit, grad, jvp, vjp and vmap apply to it.

    Args:
        surrogate: The model, ``prepared()``.
        plan: Its steps and output times.
        control_times: Start of each control interval.
        shared: Propagators that all rows share.
    """

    surrogate: "Surrogate"
    plan: Plan
    control_times: ArrayLike | None
    shared: Shared

    # By identity, so that jax.jit takes it as it takes a function.
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    @classmethod
    def of(
        cls, surrogate: "Surrogate", plan: Plan, control_times: ArrayLike | None
    ) -> "FixedTimes":
        """Work out what all rollouts over a plan share."""
        prepared, shared = _prepared(surrogate, plan)
        return cls(prepared, plan, control_times, shared)

    def __call__(
        self,
        x0: ArrayLike,
        *,
        parameters: ArrayLike | None = None,
        controls: ArrayLike | None = None,
    ) -> Float[Array, "*batch time state"]:
        """States at the times; arguments and shapes as of ``Surrogate.rollout``.

        Raises:
            InvalidInput: A shape or number that the model does not take.
        """
        given = (x0, parameters, controls, self.control_times)
        single, (start, p, u) = batched_inputs(self.surrogate.signature, *given)
        check_rows(self.plan, len(start))
        inputs = (start, self.plan, p, u)
        states = compiled_rollout(self.surrogate, *inputs, shared=self.shared)
        return states[0] if single else states


def check_rows(plan: Plan, rows: int) -> None:
    """Refuse a plan whose rows have times of their own, but are not as many.

    Raises:
        InvalidInput: On ``times``.
    """
    if plan.output_index.ndim == 2 and len(plan.output_index) != rows:
        raise InvalidInput(
            "times",
            found=f"shape {plan.output_index.shape}",
            expected=f"(time,), or a row for each initial state: {rows}",
        )


@eqx.filter_jit
def _prepared(surrogate: "Surrogate", plan: Plan) -> tuple["Surrogate", Shared]:
    prepared = surrogate.prepared()
    return prepared, shared_propagators(prepared, plan)


@eqx.filter_jit
def compiled_rollout(
    surrogate: "Surrogate",
    x0: Float[Array, "batch state"],
    plan: Plan,
    parameters: Float[Array, "batch parameter"] | None,
    controls: Float[Array, "batch interval control"] | None,
    *,
    shared: Shared | None = None,
) -> Float[Array, "batch time state"]:
    """``rollout`` compiled, in the layout that suits the number of rows."""
    others = (parameters, controls)
    return rollout(surrogate, x0, plan, *others, by_size=True, shared=shared)
