r"""``e^A v`` by products with ``A`` alone, in stages of a truncated Taylor sum.

.. math:: e^A v = \Big(e^{\mu/s}\, T_m\big((A - \mu I)/s\big)\Big)^s v

The degree m and the number of stages s are the cheapest pair for which the error is
that of rounding ``A`` once; sums end early where the terms are small enough. Both
numbers are data, not shape: one compilation serves every length of step.
"""

from collections.abc import Callable
from typing import Any

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int
from numpy.typing import DTypeLike

from spnode_core.linear.action import Interval

Product = Callable[[Float[Array, " size"]], Float[Array, " size"]]
Loop = Callable[[Callable[[Any], Any], Callable[[Any], Any], Any, int | None], Any]

DEGREES = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)
THETA = {
    "float64": (
        2.400876358e-3, 0.1441829762, 0.6410835233, 1.438252597, 2.428582524,
        3.539666349, 4.728347346, 5.968802630, 7.245068430, 8.546902046, 9.867496676,
    ),
    "float32": (
        0.130849, 0.995184, 2.21704, 3.55093, 4.92690,
        6.32108, 7.72380, 9.13065, 10.5394, 11.9490, 13.3588,
    ),
}  # fmt: skip
"""Largest 1-norm at which the Taylor sum of each degree has a relative backward error
below half a unit in the last place, 2^-53 and 2^-24."""

LARGEST_NORM = 1e6
"""Beyond this 1-norm (some millions of products) the result is NaN, not hours late."""

# What the online checkpoints of a gradient may hold: states at so many stages.
_CHECKPOINTS = 32


def plain_loop(
    condition: Callable[[Any], Any],
    body: Callable[[Any], Any],
    start: Any,
    limit: int | None,
) -> Any:
    """A while loop without a reverse-mode derivative, the fastest there is."""
    del limit
    return jax.lax.while_loop(condition, body, start)


def checkpointed_loop(
    condition: Callable[[Any], Any],
    body: Callable[[Any], Any],
    start: Any,
    limit: int | None,
) -> Any:
    """A while loop with a reverse-mode derivative in bounded memory."""
    checkpoints = None if limit is not None else _CHECKPOINTS
    return eqxi.while_loop(
        condition,
        body,
        start,
        max_steps=limit,
        kind="checkpointed",
        checkpoints=checkpoints,
    )


def degree_and_stages(
    norm: Float[Array, ""], dtype: DTypeLike
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The cheapest degree m and number of stages s for a 1-norm.

    Args:
        norm: ``||A - mu I||_1``, at most :data:`LARGEST_NORM`.
        dtype: Of the vector: float32 needs fewer terms.

    Source:
        Al-Mohy & Higham (2011), SIAM J. Sci. Comput. 33(2), 488-511, (3.11) and
        Table 3.1, doi:10.1137/100788860.
    """
    theta = jnp.asarray(THETA[jnp.dtype(dtype).name], jnp.float64)
    degrees = jnp.asarray(DEGREES, jnp.float64)
    stages = jnp.maximum(jnp.ceil(norm / theta), 1.0)
    best = jnp.argmin(degrees * stages)
    return degrees[best].astype(jnp.int32), stages[best].astype(jnp.int32)


def taylor_flow(
    product: Product,
    discs: Interval,
    vector: Float[Array, " size"],
    *,
    loop: Loop = plain_loop,
) -> tuple[Float[Array, " size"], Float[Array, " size"]]:
    """``e^A v`` and ``e^A v - v``, the second without cancellation.

    The shift is the middle of the discs rather than the mean of the diagonal: it leaves
    the smallest 1-norm, so the fewest stages.

    Args:
        product: ``v -> A v``.
        discs: What :meth:`AbstractAction.discs` says of ``A``.
        vector: v.
        loop: :func:`plain_loop`, or :func:`checkpointed_loop` under reverse mode.

    Returns:
        Both NaN where the 1-norm exceeds :data:`LARGEST_NORM`.

    Source:
        Al-Mohy & Higham (2011), algorithm 3.2.
    """
    low, high = map(jax.lax.stop_gradient, discs)
    shift, norm = (low + high) / 2, (high - low) / 2
    possible = norm <= LARGEST_NORM
    degree, stages = degree_and_stages(jnp.where(possible, norm, 0.0), vector.dtype)
    parts = stages.astype(vector.dtype)
    part = (shift / parts).astype(vector.dtype)

    def stage(state: Any) -> Any:
        count, flow, change = state
        rest = _taylor(product, shift, parts, degree, flow, loop)
        change = change + jnp.expm1(part) * flow + jnp.exp(part) * rest
        return count + 1, jnp.exp(part) * (flow + rest), change

    start = jnp.where(possible, vector, jnp.nan)
    state = (jnp.zeros((), jnp.int32), start, start * 0)
    _, flow, change = loop(lambda state: state[0] < stages, stage, state, None)
    return flow, change


def _taylor(
    product: Product,
    shift: Inexact[Array, ""],
    parts: Inexact[Array, ""],
    degree: Int[Array, ""],
    vector: Float[Array, " size"],
    loop: Loop,
) -> Float[Array, " size"]:
    """``T_m((A - mu I)/s) v - v``, ended where two terms in a row are too small."""
    unit = jnp.finfo(vector.dtype).eps / 2
    shift = shift.astype(vector.dtype)

    def is_needed(state: Any) -> Any:
        count, *_, is_done = state
        return (count < degree) & ~is_done

    def add(state: Any) -> Any:
        count, term, total, before, _ = state
        term = (product(term) - shift * term) / (parts * (count + 1))
        total = total + term
        size = _largest(term)
        return (
            count + 1,
            term,
            total,
            size,
            before + size <= unit * _largest(vector + total),
        )

    start = (
        jnp.zeros((), jnp.int32),
        vector,
        vector * 0,
        _largest(vector),
        jnp.zeros((), bool),
    )
    return loop(is_needed, add, start, DEGREES[-1])[2]


def _largest(vector: Float[Array, " size"]) -> Float[Array, ""]:
    return jax.lax.stop_gradient(jnp.abs(vector).max())
