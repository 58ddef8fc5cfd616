"""The rollout of a surrogate: encode, step on the model's own grid, decode.

::

    x0 -> E -> z_0 -> z_1 -> ... -> z_K        one scan over the grid's steps
                       |             |
                 one more step to each output time that is off the grid
                       |             |
                       D             D   -> x(t_1), x(t_2), ...

A pure function of arrays: jit, grad, jvp, vjp and vmap apply to it. The propagators of
the steps do not depend on the trajectory, so they are computed once for a whole batch.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from spnode_core.batched_networks import batched, filled
from spnode_core.integrators.base import Propagators, joined, separated
from spnode_core.stepping import fits_one_piece, grid_states, one_step, propagators_of
from spnode_core.timegrid import Plan

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate

# Numbers in a step's propagators, per latent variable, that are copied for each row.
_FEW = 8
Shared = tuple[Propagators | None, Propagators | None]

jax.tree_util.register_dataclass(
    Plan,
    data_fields=[
        "distinct",
        "step_kind",
        "step_control",
        "output_index",
        "output_step",
        "output_control",
    ],
    meta_fields=["on_grid"],
)


def rollout(
    surrogate: "Surrogate",
    x0: Float[Array, "batch state"],
    plan: Plan,
    parameters: Float[Array, "batch parameter"] | None = None,
    controls: Float[Array, "batch interval control"] | None = None,
    *,
    latent: bool = False,
    by_size: bool = False,
    in_one_piece: bool = False,
    recomputed: bool = False,
    shared: Shared | None = None,
) -> Float[Array, "batch time column"]:
    """States of a batch of trajectories at the plan's output times.

    Args:
        surrogate: The model; its networks compute in the dtype of their weights.
        x0: Initial states, physical units, float64.
        plan: ``surrogate.grid.plan(times)``; output times may differ by row.
        parameters: Parameters of each row, physical units.
        controls: Control values of each row over the plan's control intervals.
        latent: Return the latent states instead, ``(batch, time, latent)``.
        by_size: Compute networks in the layout that suits the number of rows: faster
            on CPUs, but for gradients by the weights.
        in_one_piece: Compile the steps into one function where ``fits_one_piece``:
            faster on CPUs, but for forward derivatives, which take three times as
            long. Members of an ensemble never do.
        recomputed: Keep nothing of a step but its latent state for a way back, which
            computes the rest again: less memory, and faster where what is kept of all
            steps leaves the cache.
        shared: ``shared_propagators(surrogate.prepared(), plan)``, where they have been
            computed before.

    Returns:
        States in physical units, float64; of an ensemble the mean of its members'.
    """
    if surrogate.signature.members > 1 and not latent:
        inputs = (x0, plan, parameters, controls)
        how = {"by_size": by_size, "recomputed": recomputed}
        return rollouts_by_member(surrogate, *inputs, shared=shared, **how).mean(axis=0)
    prepared = surrogate.prepared()
    prepared = batched(prepared) if by_size else prepared
    if shared is None:
        shared = shared_propagators(prepared, plan)
    others = (x0, plan, parameters, controls)
    is_small = in_one_piece and fits_one_piece(prepared, len(x0))
    how = {"in_one_piece": is_small, "recomputed": recomputed}
    return prepared_rollout(prepared, shared, *others, latent=latent, **how)


def rollouts_by_member(
    surrogate: "Surrogate", *inputs: Any, shared: Shared | None = None, **how: bool
) -> Float[Array, "member batch time column"]:
    """The rollout of each member of an ensemble.

    Args:
        surrogate: The ensemble.
        *inputs: As of :func:`rollout`.
        shared: Likewise.
        **how: Likewise.
    """

    def one(member: "Surrogate", own: Shared | None = None) -> Any:
        return rollout(member, *inputs, shared=own, **how)

    return surrogate.by_member(one, *(() if shared is None else (shared,)))


def prepared_rollout(
    surrogate: "Surrogate",
    shared: Shared,
    x0: Float[Array, "batch state"],
    plan: Plan,
    parameters: Float[Array, "batch parameter"] | None = None,
    controls: Float[Array, "batch interval control"] | None = None,
    *,
    latent: bool = False,
    in_one_piece: bool = False,
    recomputed: bool = False,
) -> Float[Array, "batch time column"]:
    """The same, with what no trajectory changes worked out before.

    Args:
        surrogate: ``surrogate.prepared()``.
        shared: ``shared_propagators`` of it and of the plan.
        x0: As of :func:`rollout`, and so are the others.
        plan: What is to be computed.
        parameters: Parameters of each row.
        controls: Control values of each row.
        latent: Whether to return the latent states.
        in_one_piece: Whether the steps become one function, see ``fits_one_piece``.
        recomputed: Whether a way back computes each step again.
    """
    batch = x0.shape[0]
    if parameters is None:
        parameters = jnp.zeros((batch, 0), jnp.float64)
    if controls is None:
        controls = jnp.zeros((batch, 1, 0), jnp.float64)
    p = jax.vmap(surrogate.normaliser.parameters.normalise)(parameters)
    u = jax.vmap(jax.vmap(surrogate.normaliser.controls.normalise))(controls)
    z0 = jax.vmap(surrogate.encode)(x0, parameters)
    states = partial(grid_states, in_one_piece=in_one_piece, recomputed=recomputed)
    one = partial(_trajectory, surrogate, shared, states)
    z = jax.vmap(one, in_axes=(0, _plan_axes(plan), 0, 0))(z0, plan, p, u)
    if not plan.on_grid and shared[1] is not None:
        z = _advanced(surrogate, shared[1], z, plan, p, u[:, plan.output_control])
    return z if latent else decoded(surrogate, z, x0, parameters)


def shared_propagators(surrogate: "Surrogate", plan: Plan) -> Shared:
    """Those of a plan's steps and remainders, where all rows have the same ones."""
    steps = propagators_of_all(surrogate, jnp.asarray(plan.distinct))
    if plan.on_grid or plan.output_index.ndim == 2:
        return steps, None
    return steps, propagators_of_all(surrogate, jnp.asarray(plan.output_step))


def propagators_of_all(
    surrogate: "Surrogate", steps: Float[Array, " step"]
) -> Propagators | None:
    """Those of steps of these lengths for all rows; None where each has its own.

    Of an ensemble they have a leading axis of members.
    """
    if surrogate.dynamics.linear.depends_on_parameters:
        return None
    if surrogate.signature.members > 1:
        return surrogate.by_member(lambda one: propagators_of(one, steps, None))
    return propagators_of(surrogate, steps, None)


def decoded(
    surrogate: "Surrogate",
    z: Float[Array, "batch time latent"],
    x0: Float[Array, "batch state"],
    parameters: Float[Array, "batch parameter"],
) -> Float[Array, "batch time state"]:
    """States of a batch of latent trajectories, physical units, float64.

    Args:
        surrogate: The model.
        z: Latent states, as ``rollout(..., latent=True)`` gives them.
        x0: Initial states, whose conserved sums the states have.
        parameters: Parameters of each row, physical units.
    """
    # Rows and times as one axis, filled up: all numbers of rows then round alike.
    surrogate, (rows, times, columns) = filled(surrogate), z.shape
    sums = jax.vmap(surrogate.conserved_sums)(x0)
    by_row = (jnp.repeat(each, times, axis=0) for each in (sums, parameters))
    x = jax.vmap(surrogate.decode)(z.reshape(rows * times, columns), *by_row)
    return x.reshape(rows, times, x.shape[-1])


def march(
    surrogate: "Surrogate",
    z: Float[Array, "batch latent"],
    *,
    step: float,
    every: int,
    count: int,
) -> Float[Array, "count batch latent"]:
    """Latent states of a batch further along, on steps of one length.

    For runs too long to be planned as a whole: the next call goes on from the last
    latent state, which is not encoded anew. Without parameters and controls.

    Args:
        surrogate: The model.
        z: Latent states to go on from.
        step: Length of a step, in time.
        every: Steps between two states that are returned.
        count: How many are returned, the last of them the state to go on from.
    """
    surrogate = surrogate.prepared()
    none = jnp.zeros(0, jnp.float64)
    steps = jnp.asarray([step], jnp.float64)
    shared, each = separated(propagators_of(surrogate, steps, none))
    propagators = joined(shared, jax.tree.map(lambda leaf: leaf[0], each))
    advance = jax.vmap(
        lambda v: one_step(surrogate, none, v, propagators, steps[0], none)
    )

    def outputs(
        z: Float[Array, "batch latent"], _: None
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        z = jax.lax.fori_loop(0, every, lambda _, v: advance(v), z)
        return z, z

    return jax.lax.scan(outputs, z, length=count)[1]


def restarted(
    surrogate: "Surrogate",
    samples: Float[Array, "batch grid latent"],
    present: Bool[Array, "batch grid"],
    plan: Plan,
    parameters: Float[Array, "batch parameter"],
    controls: Float[Array, "batch interval control"],
) -> Float[Array, "batch step latent"]:
    """Latent states that arrive at each grid time, going on from the samples.

    Like a rollout over the grid of a plan, but wherever a sample is present the next
    step starts from it and not from what arrived there.

    Args:
        surrogate: The model.
        samples: Latent states at the grid times, the first one present.
        present: Where ``samples`` means anything.
        plan: Its steps are taken; its outputs are not looked at.
        parameters: Parameters of each row, physical units.
        controls: Control values of each row over the plan's control intervals.
    """
    prepared = surrogate.prepared()
    steps, _ = shared_propagators(prepared, plan)
    kind, distinct = jnp.asarray(plan.step_kind), jnp.asarray(plan.distinct)

    def one(
        samples: Float[Array, "grid latent"],
        present: Bool[Array, " grid"],
        parameters: Float[Array, " parameter"],
        controls: Float[Array, "interval control"],
    ) -> Float[Array, "step latent"]:
        p = surrogate.normaliser.parameters.normalise(parameters)
        u = jax.vmap(surrogate.normaliser.controls.normalise)(controls)
        own = propagators_of(prepared, distinct, p) if steps is None else steps
        same, each = separated(own)

        def body(z: Float[Array, " latent"], inputs: Any) -> tuple[Any, Any]:
            k, control, sample, is_there = inputs
            propagators = joined(same, jax.tree.map(lambda leaf: leaf[k], each))
            arrived = one_step(prepared, p, z, propagators, distinct[k], control)
            return jnp.where(is_there, sample, arrived), arrived

        inputs = (kind, u[plan.step_control], samples[1:], present[1:])
        return jax.lax.scan(body, samples[0], inputs)[1]

    return jax.vmap(one)(samples, present, parameters, controls)


def _plan_axes(plan: Plan) -> Any:
    """What ``vmap`` maps of a plan: the outputs, where rows have their own."""
    by_row = 0 if plan.output_index.ndim == 2 else None
    none: Any = jax.tree.map(lambda _: None, plan)
    outputs = dict.fromkeys(("output_index", "output_step", "output_control"), by_row)
    return dataclasses.replace(none, **outputs)


def _trajectory(
    surrogate: "Surrogate",
    shared: Shared,
    states: Callable[..., Float[Array, "grid latent"]],
    z0: Float[Array, " latent"],
    plan: Plan,
    p: Float[Array, " parameter"],
    u: Float[Array, "interval control"],
) -> Float[Array, "time latent"]:
    """Latent states of one row on the grid, before each output time.

    At the output times themselves where the row has propagators of its own for them.
    """
    propagators, remainders = shared
    if propagators is None:
        propagators = propagators_of(surrogate, jnp.asarray(plan.distinct), p)
    z = states(surrogate, propagators, z0, plan, p, u)[plan.output_index]
    if plan.on_grid or remainders is not None:
        return z
    own = propagators_of(surrogate, jnp.asarray(plan.output_step), p)
    return _to_outputs(surrogate, own, z, plan, p, u[plan.output_control])


def _advanced(
    surrogate: "Surrogate",
    remainders: Propagators,
    z: Float[Array, "batch time latent"],
    plan: Plan,
    p: Float[Array, "batch parameter"],
    controls: Float[Array, "batch time control"],
) -> Float[Array, "batch time latent"]:
    """One more step to each output time, with propagators that all rows share."""
    same, each = separated(remainders)
    rows, times, columns = z.shape
    if sum(leaf.size for leaf in jax.tree.leaves(each)) > _FEW * times * columns:
        # Matrices are not copied for every row.
        by_row = jax.vmap(partial(_to_outputs, surrogate, remainders), (0, None, 0, 0))
        return by_row(z, plan, p, controls)
    each, steps = jax.tree.map(
        lambda leaf: jnp.tile(leaf, (rows,) + (1,) * (leaf.ndim - 1)),
        (each, jnp.asarray(plan.output_step)),
    )
    # One axis, as in decoding.
    z = jax.vmap(partial(_remainder, surrogate, same))(
        jnp.repeat(p, times, axis=0),
        z.reshape(rows * times, columns),
        each,
        steps,
        controls.reshape(rows * times, controls.shape[-1]),
    )
    return z.reshape(rows, times, columns)


def _to_outputs(
    surrogate: "Surrogate",
    remainders: Propagators,
    z: Float[Array, "time latent"],
    plan: Plan,
    p: Float[Array, " parameter"],
    controls: Float[Array, "time control"],
) -> Float[Array, "time latent"]:
    """One more step of one row to each output time."""
    same, each = separated(remainders)
    step = partial(_remainder, surrogate, same, p)
    return jax.vmap(step)(z, each, jnp.asarray(plan.output_step), controls)


def _remainder(
    surrogate: "Surrogate",
    same: Propagators,
    p: Float[Array, " parameter"],
    z: Float[Array, " latent"],
    each: Propagators,
    step: Float[Array, ""],
    control: Float[Array, " control"],
) -> Float[Array, " latent"]:
    """The step from the grid to one output time."""
    return one_step(surrogate, p, z, joined(same, each), step, control)
