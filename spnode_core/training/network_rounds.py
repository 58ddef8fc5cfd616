r"""Levenberg-Marquardt rounds that follow the curve of their steps.

Parameters ``theta`` that little depends on lie in long curved valleys, along which
straight steps are short. Each step takes the curve of its own direction with it:

.. math:: \theta + \delta + a / 2, \quad
    (J^T W J + \lambda D) \delta = J^T W e, \quad
    (J^T W J + \lambda D) a = -J^T W \, \partial^2_\delta y

for the model's ends ``y`` of intervals, their errors ``e``, robust weights ``W``.

Source:
    Transtrum & Sethna, arXiv 1201.5885.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.errors import TrainingError
from spnode_core.integrators.rodas import rodas_step
from spnode_core.nonlinear.polynomial import PolynomialOperator
from spnode_core.training.one_step import CHUNK, Pairs, robust_loss, weighed

Values = NDArray[np.float64]

SUBSTEPS = 4
"""Steps of the integrator in an interval."""
_TRIALS = 8
_DAMPING, _RELAXED, _TIGHTENED, _LEAST_DAMPING = 1e-3, 5.0, 5.0, 1e-12
_STALLED = 1 - 1e-5
# Of twice the acceleration, over the step: where it is larger, it tells nothing.
_MOST_BENDING = 0.75


class Chunk(NamedTuple):
    """Intervals as compiled code takes them."""

    start: Float[Array, "pair latent"]
    end: Float[Array, "pair latent"]
    others: Float[Array, "pair other"]
    width: Float[Array, " pair"]


def chunks_of(pairs: Pairs, most: int, rng: np.random.Generator) -> list[Chunk]:
    """Some of the intervals, in whole chunks.

    Args:
        pairs: Intervals.
        most: How many at most.
        rng: Source of the choice.
    """
    index = rng.permutation(len(pairs.width))[:most]
    index = np.resize(index, -(-len(index) // CHUNK) * CHUNK)
    parts = map(pairs.take, index.reshape(-1, CHUNK))
    return [Chunk(*map(jnp.asarray, part)) for part in parts]


@dataclasses.dataclass(frozen=True)
class Rounds:
    """The rounds.

    Args:
        spread: What errors are measured in, ``(latent,)``.
        report: Is told which round is being done, and may raise to stop.
    """

    spread: Values
    report: Callable[[str], None]

    def run(
        self,
        operator: PolynomialOperator,
        chunks: list[Chunk],
        most: int,
        said: str,
        *,
        bends: bool = False,
        keeps: bool = False,
    ) -> PolynomialOperator:
        """Rounds until nothing is gained.

        Args:
            operator: Where they begin.
            chunks: Intervals.
            most: How many rounds at most.
            said: What is being done, for the report.
            bends: Whether steps follow the curve of their direction. They do not where
                what is learned from is only about right, and is soon learned too well.
            keeps: Whether what was found until ``report`` raised a ``TrainingError`` is
                returned.
        """
        damping = _DAMPING
        for number in range(most):
            try:
                self.report(f"{said}, round {number + 1} of at most {most}")
            except TrainingError:
                if keeps and number > 0:
                    break
                raise
            moved, damping = self._round(operator, chunks, damping, bends)
            if moved is None:
                break
            operator = moved
        return operator

    def loss(self, operator: PolynomialOperator, chunks: list[Chunk]) -> float:
        """Mean robust loss of the ends of intervals."""
        return robust_loss(self.errors(operator, chunks))

    def errors(self, operator: PolynomialOperator, chunks: list[Chunk]) -> Values:
        """Of the ends of intervals, in standard deviations."""
        errors = [chunk.end - _chunk_ends(operator, chunk) for chunk in chunks]
        return np.concatenate(errors) / self.spread

    def _round(
        self,
        operator: PolynomialOperator,
        chunks: list[Chunk],
        damping: float,
        bends: bool,
    ) -> tuple[PolynomialOperator | None, float]:
        """The least damped step that lowers the loss, if any, and the next damping."""
        gram, right, loss = self._normal(operator, chunks)
        scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        scaled = gram / scale[:, None] / scale
        for trial in range(_TRIALS):
            damped = scaled + damping * np.eye(len(scale))

            def solved(right: Values, damped: Values = damped) -> Values:
                return np.linalg.solve(damped, right / scale) / scale

            ways = [solved(right)]
            if bends:
                bend = solved(self._bending(operator, chunks, ways[0]))
                step, turn = (np.linalg.norm(scale * v) for v in (ways[0], bend))
                ways += [ways[0] + bend / 2] if 2 * turn <= _MOST_BENDING * step else []
            tried = [_moved(operator, way) for way in ways]
            after = [self.loss(each, chunks) for each in tried]
            if min(after) < _STALLED * loss:
                relaxed = damping / _RELAXED if trial == 0 else damping
                return tried[int(np.argmin(after))], max(relaxed, _LEAST_DAMPING)
            damping *= _TIGHTENED
        return None, damping

    def _normal(
        self, operator: PolynomialOperator, chunks: list[Chunk]
    ) -> tuple[Values, Values, float]:
        """Normal equations of the errors at the ends of intervals, and the loss."""
        spread = jnp.asarray(self.spread)
        found = [_chunk_equations(operator, chunk, spread) for chunk in chunks]
        gram, right = (_total(each[i] for each in found) for i in (0, 1))
        errors = np.concatenate([np.asarray(each[2]) for each in found])
        return gram, right, robust_loss(errors)

    def _bending(
        self, operator: PolynomialOperator, chunks: list[Chunk], step: Values
    ) -> Values:
        """Right-hand side of the acceleration; zero where it is not finite."""
        given = jnp.asarray(self.spread), jnp.asarray(step)
        found = _total(_chunk_bending(operator, chunk, *given) for chunk in chunks)
        return found if np.isfinite(found).all() else np.zeros_like(found)


def _total(parts: Any) -> Values:
    return np.sum([np.asarray(part) for part in parts], axis=0)


def _trained(operator: PolynomialOperator) -> tuple[PolynomialOperator, ...]:
    """What descends, and the rest: the floors stay."""
    network = operator.network
    assert network is not None
    is_trained = jax.tree.map(eqx.is_array, operator)
    is_trained = eqx.tree_at(lambda f: f.network.floors, is_trained, replace=False)
    return eqx.partition(operator, is_trained)


def _moved(operator: PolynomialOperator, step: Values) -> PolynomialOperator:
    trained, fixed = _trained(operator)
    flat, restore = ravel_pytree(trained)
    return eqx.combine(restore(flat + jnp.asarray(step)), fixed)


def _end(
    operator: PolynomialOperator,
    z: Float[Array, " latent"],
    held: Float[Array, " other"],
    h: Float[Array, ""],
) -> Float[Array, " latent"]:
    """Where the model is at the end of an interval."""

    def derivative(v: Float[Array, " latent"]) -> Float[Array, " latent"]:
        return operator(jnp.concatenate([v, held]))

    def body(v: Float[Array, " latent"], _: None) -> tuple[Array, None]:
        return rodas_step(derivative, h / SUBSTEPS, v), None

    return jax.lax.scan(body, z, length=SUBSTEPS)[0]


def _ends(operator: PolynomialOperator, chunk: Chunk) -> Float[Array, "pair latent"]:
    ends = jax.vmap(_end, in_axes=(None, 0, 0, 0))
    return ends(operator, chunk.start, chunk.others, chunk.width)


_chunk_ends = eqx.filter_jit(_ends)


@eqx.filter_jit
def _chunk_equations(
    operator: PolynomialOperator, chunk: Chunk, spread: Float[Array, " latent"]
) -> tuple[Array, Array, Array]:
    """Gram matrix, right-hand side, errors in standard deviations."""
    trained, fixed = _trained(operator)
    flat, restore = ravel_pytree(trained)

    def along(theta: Array, *interval: Array) -> tuple[Array, Array]:
        end = _end(eqx.combine(restore(theta), fixed), *interval)
        return end, end

    # Of the steps themselves: approximate ones lead away where rates are wrong.
    sensitivities = jax.vmap(jax.jacrev(along, has_aux=True), in_axes=(None, 0, 0, 0))
    sensitivity, ends = sensitivities(flat, chunk.start, chunk.others, chunk.width)
    slopes: Array = sensitivity / spread[None, :, None]
    errors: Array = (chunk.end - ends) / spread[None, :]
    near, weight = weighed(errors, jnp.isfinite(slopes).all(axis=(1, 2)))
    kept = jnp.where(near[:, None], errors, 0.0)
    slopes = jnp.where(near[:, None, None], slopes, 0.0)
    rows = slopes.reshape(-1, flat.shape[0])
    weighted = (slopes * weight[:, None, None]).reshape(-1, flat.shape[0])
    return weighted.T @ rows, weighted.T @ kept.ravel(), errors


@eqx.filter_jit
def _chunk_bending(
    operator: PolynomialOperator,
    chunk: Chunk,
    spread: Float[Array, " latent"],
    step: Float[Array, " parameter"],
) -> Float[Array, " parameter"]:
    """``-J^T W`` times the second derivative of the ends along a step."""
    trained, fixed = _trained(operator)
    flat, restore = ravel_pytree(trained)

    def ends(theta: Array) -> Array:
        return _ends(eqx.combine(restore(theta), fixed), chunk) / spread[None, :]

    def slope(theta: Array) -> tuple[Array, Array]:
        return jax.jvp(ends, (theta,), (step,))

    (found, _), (_, second) = jax.jvp(slope, (flat,), (step,))
    errors = chunk.end / spread[None, :] - found
    near, weight = weighed(errors, jnp.isfinite(second).all(axis=1))
    pulled = jnp.where(near[:, None], -second, 0.0) * weight[:, None]
    return jax.vjp(ends, flat)[1](pulled)[0]
