"""Steps of a surrogate's integrator: one of them, and all of a grid.

::

    z_0 -> z_1 -> ... -> z_K        one scan over the steps

A scan of few rows is mostly calls: XLA makes some seven for each step, about 1 us for
0.5 us of products. ``in_one_piece`` has it compile the scan into one function instead.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float

from spnode_core.integrators.base import (
    AbstractIntegrator,
    Propagators,
    joined,
    relaxation_step,
    separated,
    stacked_propagators,
)
from spnode_core.integrators.initialise import create_integrator
from spnode_core.timegrid import Plan

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate

# Rows and units. Within one function XLA calls Eigen for products of up to 32 and 128;
# it writes out larger ones, which take 10 to 180 times as long.
_ROWS, _UNITS = 2, 128
# What was measured, and calls no library: XLA knows no FFT and no solver there.
_LINEAR = frozenset({"modal"})
_NONLINEAR = frozenset({"mlp", "relaxation"})
_INTEGRATORS = frozenset({"etd1", "etd2rk", "krogstad"})
T = TypeVar("T")


def fits_one_piece(surrogate: "Surrogate", rows: int) -> bool:
    """Whether the steps of so many rows may become one function: whether it is faster.

    On CPUs, for small networks, diagonal propagators that all rows share, and weights
    that are arguments of what is compiled: constants there make XLA end the process.
    """
    spec, dynamics = surrogate.spec, surrogate.dynamics
    is_known = (
        spec.linear.kind in _LINEAR
        and spec.nonlinear.kind in _NONLINEAR
        and spec.integrator in _INTEGRATORS
        and not dynamics.linear.depends_on_parameters
    )
    leaves = [leaf for leaf in jax.tree.leaves(dynamics) if eqx.is_array(leaf)]
    return (
        is_known
        and rows <= _ROWS
        and all(isinstance(leaf, Tracer) for leaf in leaves)
        and all(leaf.ndim <= 2 and max(leaf.shape) <= _UNITS for leaf in leaves)
        and jax.default_backend() == "cpu"
    )


def kept_bytes(surrogate: "Surrogate", rows: int, steps: int) -> int:
    """What a way back reads of all steps, at most: mostly a tenth of it.

    Args:
        surrogate: The model.
        rows: How many there are.
        steps: Of each of them.
    """
    members = surrogate.signature.members
    nonlinear = surrogate.dynamics.nonlinear
    shapes = [leaf.shape for leaf in jax.tree.leaves(nonlinear) if eqx.is_array(leaf)]
    if members > 1:
        shapes = [shape[1:] for shape in shapes]
    numbers = 8 * surrogate.signature.latent + 4 * sum(map(sum, shapes))
    return 8 * numbers * rows * steps * members


def grid_states(
    surrogate: "Surrogate",
    propagators: Propagators,
    z0: Float[Array, " latent"],
    plan: Plan,
    p: Float[Array, " parameter"],
    u: Float[Array, "interval control"],
    *,
    in_one_piece: bool = False,
    recomputed: bool = False,
) -> Float[Array, "grid latent"]:
    """Latent states on the grid, the initial one first.

    Args:
        surrogate: The model, ``prepared()``.
        propagators: Those of the plan's distinct steps.
        z0: The initial latent state.
        plan: The steps.
        p: Parameters, normalised.
        u: Controls, normalised.
        in_one_piece: Whether the scan becomes one function, see ``fits_one_piece``.
        recomputed: Whether a way back computes each step again.
    """
    distinct = jnp.asarray(plan.distinct)
    shared, each = separated(propagators)
    kinds = (each, distinct)
    all_differ = plan.distinct.shape[0] == plan.step_kind.shape[0]
    # Where all steps differ their propagators are scanned over, else looked up.
    per_step = kinds if all_differ else jnp.asarray(plan.step_kind)

    def body(
        z: Float[Array, " latent"], inputs: tuple[object, Float[Array, " control"]]
    ) -> tuple[Float[Array, " latent"], Float[Array, " latent"]]:
        kind, control = inputs
        if not all_differ:
            kind = jax.tree.map(lambda leaf: leaf[kind], kinds)
        own, step = kind  # type: ignore[misc]
        z = one_step(surrogate, p, z, joined(shared, own), step, control)
        return z, z

    if recomputed:
        body = jax.checkpoint(body, prevent_cse=False)
    scan = partial(jax.lax.scan, body)
    _, later = (_in_one_piece(scan) if in_one_piece else scan)(
        z0, (per_step, u[plan.step_control])
    )
    return jnp.concatenate([z0[None], later])


def _in_one_piece(function: Callable[..., T]) -> Callable[..., T]:
    """The function, which XLA compiles into one of machine code."""

    def call(*args: Any) -> T:
        with set_xla_metadata(inlineable="false", xla_cpu_small_call="true"):
            return jax.jit(function)(*args)

    return call


def one_step(
    surrogate: "Surrogate",
    p: Float[Array, " parameter"],
    z: Float[Array, " latent"],
    propagators: Propagators,
    step: Float[Array, ""],
    control: Float[Array, " control"],
) -> Float[Array, " latent"]:
    """One step of the surrogate's integrator."""
    dynamics = surrogate.dynamics

    def forcing(v: Float[Array, " latent"]) -> Float[Array, " latent"]:
        return dynamics.forcing(v, control, p)

    if dynamics.nonlinear.is_relaxation:
        return relaxation_step(forcing, propagators, z)
    return _integrator(surrogate).step(forcing, propagators, step, z)


def propagators_of(
    surrogate: "Surrogate",
    steps: Float[Array, " step"],
    p: Float[Array, " parameter"] | None,
) -> Propagators:
    """The propagators of steps of these lengths, one behind the other."""
    dynamics = surrogate.dynamics
    return stacked_propagators(
        _integrator(surrogate),
        dynamics.linear,
        steps,
        p,
        is_relaxation=dynamics.nonlinear.is_relaxation,
    )


def _integrator(surrogate: "Surrogate") -> AbstractIntegrator:
    spec = surrogate.spec
    return create_integrator(
        spec.integrator, matrix_free=spec.propagators == "matrix_free"
    )
