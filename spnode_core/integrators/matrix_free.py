r"""Sums of phi functions of a large ``A``, by products with vectors alone.

.. math:: \sum_{k=0}^p \varphi_k(A)\, v_k = [I\; 0]\, \exp
   \begin{bmatrix} A & W \\ 0 & J \end{bmatrix}
   \begin{bmatrix} v_0 \\ e_p \end{bmatrix}, \quad W = [v_p \cdots v_1],

J the upper shift. Forward and reverse derivatives are both there; the reverse one with
respect to the vectors is the same sum with ``A^T``, that with respect to ``A`` goes
back through the stages with online checkpoints.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.integrators.expmv import (
    Loop,
    checkpointed_loop,
    plain_loop,
    taylor_flow,
)
from spnode_core.linear.action import AbstractAction, Interval
from spnode_core.linear.base import AbstractPropagator

Vectors = tuple[Float[Array, " latent"], ...]


class MatrixFreePropagator(AbstractPropagator):
    """``phi_k(h A) v`` without any matrix function formed.

    Args:
        action: ``v -> A v``, the same for all steps.
        step: h.
    """

    action: AbstractAction
    step: Float[Array, ""]

    def apply(
        self, order: int, vector: Float[Array, " latent"]
    ) -> Float[Array, " latent"]:
        """``phi_order(h A) v``."""
        return self.combine(*[None] * order, vector)

    def combine(
        self, *vectors: Float[Array, " latent"] | None
    ) -> Float[Array, " latent"]:
        """``sum_k phi_k(h A) v_k`` from one augmented exponential."""
        zeros = next(jnp.zeros_like(v) for v in vectors if v is not None)
        filled = tuple(zeros if vector is None else vector for vector in vectors)
        return phi_sum(self._scaled, filled)

    def relax(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``(I - e^{h A}) v``, without cancellation; exactly 0 at ``h = 0``."""
        return -phi_sum(self._scaled, (vector,), is_change=True)

    @property
    def _scaled(self) -> "ScaledAction":
        return ScaledAction(self.action, self.step)


class ScaledAction(AbstractAction):
    """``v -> h A v``.

    Args:
        action: ``v -> A v``.
        step: h, at least 0.
    """

    action: AbstractAction
    step: Float[Array, ""]

    def apply(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``h A v``."""
        return self.step.astype(vector.dtype) * self.action.apply(vector)

    @property
    def transposed(self) -> "ScaledAction":
        """``v -> h A^T v``."""
        return ScaledAction(self.action.transposed, self.step)

    def discs(self) -> Interval:
        """The interval that the discs of the columns cover."""
        low, high = self.action.discs()
        return self.step * low, self.step * high


def phi_sum(
    action: AbstractAction, vectors: Vectors, *, is_change: bool = False
) -> Float[Array, " latent"]:
    """``sum_k phi_k(A) v_k``; with ``is_change`` less ``v_0``.

    Differentiable once, forwards or backwards, in ``A`` and the vectors; maps over
    batches.

    Args:
        action: ``v -> A v``, dimensionless: h is in it.
        vectors: ``v_0 .. v_p``.
        is_change: Whether ``v_0`` is taken off, without cancellation.

    Source:
        Al-Mohy & Higham (2011), SIAM J. Sci. Comput. 33(2), 488-511, theorem 2.1,
        doi:10.1137/100788860; arXiv 2503.01775, (15)-(17).
    """
    return _phi_sum(action, vectors, is_change=is_change)


@eqx.filter_custom_jvp
def _phi_sum(
    action: AbstractAction, vectors: Vectors, *, is_change: bool
) -> Float[Array, " latent"]:
    return _evaluate(action, vectors, is_change, plain_loop)


@_phi_sum.def_jvp
def _phi_sum_jvp(
    primals: tuple[AbstractAction, Vectors], tangents: Any, *, is_change: bool
) -> tuple[Float[Array, " latent"], Float[Array, " latent"]]:
    action, vectors = primals
    value = _phi_sum(action, vectors, is_change=is_change)
    if not jax.tree.leaves(tangents):
        return value, jnp.zeros_like(value)
    if jax.tree.leaves(tangents[0]):
        maps = _maps_of_all(primals, tangents, is_change)
        return value, _linear_map(*maps, primals, tangents, value)
    maps = _maps_of_vectors(action, vectors, tangents, is_change)
    return value, _linear_map(*maps, action, tangents, value)


def _evaluate(
    action: AbstractAction, vectors: Vectors, is_change: bool, loop: Loop
) -> Float[Array, " latent"]:
    size, order = vectors[0].shape[0], len(vectors) - 1
    which = 1 if is_change else 0
    if order == 0:
        return taylor_flow(action.apply, action.discs(), vectors[0], loop=loop)[which]
    # Columns of the size of the discs would cost stages: a power of two is exact.
    columns = jnp.stack(vectors[:0:-1], axis=1)
    largest = jax.lax.stop_gradient(jnp.abs(columns).sum(axis=0).max())
    exponent = jnp.ceil(jnp.log2(jnp.maximum(largest, jnp.finfo(columns.dtype).tiny)))
    factor = jnp.exp2(-jnp.clip(exponent, -500, 500))
    columns = columns * factor

    def product(vector: Float[Array, " size"]) -> Float[Array, " size"]:
        z, rest = vector[:size], vector[size:]
        shifted = jnp.append(rest[1:], jnp.zeros(1, rest.dtype))
        return jnp.concatenate([action.apply(z) + columns @ rest, shifted])

    low, high = action.discs()
    reach = 1.0 + 1.0 * (order > 1)
    discs = jnp.minimum(low, -reach), jnp.maximum(high, reach)
    unit = jnp.zeros(order, columns.dtype).at[-1].set(1.0) / factor
    start = jnp.concatenate([vectors[0], unit])
    return taylor_flow(product, discs, start, loop=loop)[which][:size]


def _maps_of_vectors(
    action: AbstractAction, vectors: Vectors, tangents: Any, is_change: bool
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Where ``A`` does not change: the sum is linear in the vectors."""
    are_there = [tangent is not None for tangent in tangents[1]]

    def forward(changes: Any) -> Float[Array, " latent"]:
        pairs = zip(changes[1], vectors, strict=True)
        filled = tuple(jnp.zeros_like(v) if t is None else t for t, v in pairs)
        return _phi_sum(action, filled, is_change=is_change)

    def back(slope: Float[Array, " latent"]) -> Any:
        transposed, zeros = action.transposed, jnp.zeros_like(slope)
        slopes = [
            _phi_sum(
                transposed, (zeros,) * k + (slope,), is_change=is_change and k == 0
            )
            if is_there
            else None
            for k, is_there in enumerate(are_there)
        ]
        return tangents[0], tuple(slopes)

    return forward, back


def _maps_of_all(
    primals: Any, tangents: Any, is_change: bool
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Where ``A`` changes too: through the stages themselves."""
    is_moved = jax.tree.map(lambda t: t is not None, tangents, is_leaf=_is_none)
    moved, still = eqx.partition(primals, is_moved)

    def value(moved: Any, loop: Loop) -> Float[Array, " latent"]:
        action, vectors = eqx.combine(moved, still)
        return _evaluate(action, vectors, is_change, loop)

    def forward(changes: Any) -> Float[Array, " latent"]:
        return jax.jvp(lambda m: value(m, plain_loop), (moved,), (changes,))[1]

    def back(slope: Float[Array, " latent"]) -> Any:
        _, pull = jax.vjp(lambda m: value(m, checkpointed_loop), moved)
        return pull(slope)[0]

    return forward, back


def _linear_map(
    forward: Callable[[Any], Any],
    back: Callable[[Any], Any],
    point: Any,
    operand: Any,
    like: Float[Array, " latent"],
) -> Float[Array, " latent"]:
    """``forward(operand)`` at a point; it transposes to ``back`` and maps over batches.

    JAX's rules for a linear solve do exactly that with the two functions they are given
    as solvers, so the map is given as one, padded to a square one.
    """
    arrays = eqx.filter(point, eqx.is_inexact_array)

    def solve(_: Any, padded: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, padded[0]), forward(padded[0])

    def solve_back(_: Any, padded: Any) -> Any:
        return back(padded[1]), jnp.zeros_like(padded[1])

    def matvec(padded: Any) -> Any:
        one = _once_differentiable(arrays)
        return jax.tree.map(lambda leaf: one.astype(leaf.dtype) * leaf, padded)

    # The rule wants all parts of the operand to be linear in what is differentiated.
    first = [leaf.reshape(-1)[:1].sum() for leaf in jax.tree.leaves(operand)]
    tie = 0 * jnp.stack(first).sum()
    padded = operand, jnp.zeros_like(like)
    padded = jax.tree.map(lambda leaf: leaf + tie.astype(leaf.dtype), padded)
    return jax.lax.custom_linear_solve(matvec, padded, solve, solve_back)[1]


@jax.custom_jvp
def _once_differentiable(arrays: Any) -> Float[Array, ""]:
    """1, which refuses to be differentiated: a second derivative would be wrong."""
    del arrays
    return jnp.ones(())


@_once_differentiable.defjvp
def _no_second_derivative(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(
        "matrix-free propagators have first derivatives only; for second derivatives "
        "use propagators 'precomputed'"
    )


def _is_none(node: object) -> bool:
    return node is None
