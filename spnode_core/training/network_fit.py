r"""A polynomial and a network from samples, for stiff systems that no polynomial is.

All parameters of ``F = C w^alpha + N(w)`` descend together, by Levenberg-Marquardt
rounds on what single steps of the model make of each sample. Long intervals of a stiff
system lead nowhere while the model is wrong, so the rounds begin with parts of the
sampling intervals, between points of splines through the samples, and end with the
samples themselves: every region that the data visit is learned from the start.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from spnode_core.errors import TrainingError
from spnode_core.integrators.rodas import rodas_step
from spnode_core.nonlinear.polynomial import PolynomialOperator
from spnode_core.training.one_step import (
    CHUNK,
    Pairs,
    interval_pairs,
    is_near,
    robust_loss,
    weighed,
)
from spnode_core.training.operator_inference import Snapshots
from spnode_core.training.polynomial_fit import MOST_PAIRS, regress, spread_of

Values = NDArray[np.float64]

SUBSTEPS = 4
"""Steps of the integrator in an interval."""
# Rounds from some starts end in far worse minima than from others.
_STARTS = 3


class _Stage(NamedTuple):
    """A part of each sampling interval, and the most rounds on it."""

    part: float
    rounds: int
    keeps: bool = False
    """Whether what it has found when its time is up is used."""


_STAGES = (
    _Stage(1 / 32, 20),
    _Stage(1 / 8, 6),
    _Stage(1 / 3, 6),
    _Stage(1.0, 100, keeps=True),
)
_TRIALS = 8
_DAMPING, _RELAXED, _TIGHTENED, _LEAST_DAMPING = 1e-3, 5.0, 5.0, 1e-12
_STALLED = 1 - 1e-5
_FLOOR_QUANTILE = 0.02
_NOT_GOOD = 0.02
_WRONG = 0.05


@dataclasses.dataclass(frozen=True)
class NetworkFit:
    """A fitted operator.

    Args:
        operator: The polynomial and the network.
        residual: Root mean square of the one-step errors, in standard deviations.
        substeps: Steps of RODAS4 between two samples that it was fitted with.
    """

    operator: PolynomialOperator
    residual: float
    substeps: int


def fit_network(
    snapshots: list[Snapshots],
    operator: PolynomialOperator,
    seed: int,
    report: Callable[[str], None] = lambda _: None,
    *,
    goes_on: bool = False,
) -> NetworkFit:
    """The operator whose steps from sample to sample err least.

    Args:
        snapshots: Latent samples of each trajectory.
        operator: Gives degree and width.
        seed: Source of the choice among many intervals.
        report: Is told what is being done, and may raise to stop; what the last stage
            has found until a ``TrainingError`` is kept.
        goes_on: Whether the rounds begin with the operator itself, and not with least
            squares and random weights.

    Raises:
        TrainingError: The steps do not end near the data.
    """
    snapshots = [each for each in snapshots if len(each.times) > 1]
    if not snapshots:
        raise TrainingError("no two samples of a trajectory lie beside each other")
    descent = _Descent(spread_of(snapshots), report)
    rng = np.random.default_rng([seed, 26])
    try:
        operator = _found(operator, snapshots, descent, rng, goes_on=goes_on)
    except np.linalg.LinAlgError as error:
        raise TrainingError("its equations leave the finite range") from error
    errors = descent.errors(operator, _chosen(interval_pairs(snapshots), rng))
    near = is_near(errors)
    residual = float(np.sqrt(np.mean(errors[near] ** 2))) if near.any() else np.inf
    if near.mean() < 1 - _NOT_GOOD or residual > _WRONG:
        raise TrainingError(
            f"its steps err by {residual:.2g} standard deviations, and "
            f"{1 - near.mean():.0%} of them leave the data"
        )
    return NetworkFit(operator, residual, SUBSTEPS)


def _found(
    operator: PolynomialOperator,
    snapshots: list[Snapshots],
    descent: "_Descent",
    rng: np.random.Generator,
    *,
    goes_on: bool,
) -> PolynomialOperator:
    """All stages, the first from several starts."""
    first, *later = _STAGES
    chunks = _chosen(_parts_of_intervals(snapshots, first.part, rng), rng)
    starts = [operator]
    if not goes_on:
        starts = [_started(operator, snapshots, rng) for _ in range(_STARTS)]
    tried = [descent.rounds(start, chunks, first) for start in starts]
    operator = min(tried, key=lambda each: descent.loss(each, chunks))
    for stage in later:
        chunks = _chosen(_parts_of_intervals(snapshots, stage.part, rng), rng)
        operator = descent.rounds(operator, chunks, stage)
    return operator


def _started(
    operator: PolynomialOperator,
    snapshots: list[Snapshots],
    rng: np.random.Generator,
) -> PolynomialOperator:
    """Least squares of the affine part, and a network of standardised features."""
    affine = regress(snapshots, 1)
    coefficients = np.zeros(operator.coefficients.shape)
    # The empty product, then the inputs: the first terms of every degree.
    coefficients[:, : affine.shape[1]] = affine
    inputs = np.concatenate(
        [np.concatenate([each.z, each.others], axis=1) for each in snapshots]
    )
    network = operator.network
    assert network is not None
    network = eqx.tree_at(lambda n: n.floors, network, jnp.asarray(_floors(inputs)))
    features = np.asarray(jax.vmap(network.features)(jnp.asarray(inputs)))
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    scaled = rng.normal(size=network.weights.shape) / np.sqrt(len(mean)) / deviation
    bias = rng.uniform(-1, 1, len(scaled)) - scaled @ mean
    network = eqx.tree_at(
        lambda n: (n.weights, n.bias, n.last),
        network,
        (jnp.asarray(scaled), jnp.asarray(bias), jnp.zeros_like(network.last)),
    )
    return eqx.tree_at(
        lambda f: (f.coefficients, f.network),
        operator,
        (jnp.asarray(coefficients), network),
    )


def _floors(inputs: Values) -> Values:
    """Where the logarithm of each input begins: near its small positive values."""
    floors = np.ones(inputs.shape[1])
    for i, column in enumerate(inputs.T):
        positive = column[column > 0]
        if (column >= 0).all() and len(positive):
            floors[i] = min(float(np.quantile(positive, _FLOOR_QUANTILE)), 1.0)
    return floors


def _parts_of_intervals(
    snapshots: list[Snapshots], part: float, rng: np.random.Generator
) -> Pairs:
    """Between two points inside each sampling interval, by splines over its number."""
    if part == 1.0:
        return interval_pairs(snapshots)
    starts, ends, others, widths = [], [], [], []
    for each in snapshots:
        number = np.arange(len(each.times))
        first = number[:-1] + rng.uniform(0, 1 - part, len(number) - 1)
        z, times = (PchipInterpolator(number, v) for v in (each.z, each.times))
        starts.append(z(first))
        ends.append(z(first + part))
        others.append(each.others[:-1])
        widths.append(times(first + part) - times(first))
    return Pairs(*map(np.concatenate, (starts, ends, others, widths)))


class _Chunk(NamedTuple):
    """Intervals as compiled code takes them."""

    start: Float[Array, "pair latent"]
    end: Float[Array, "pair latent"]
    others: Float[Array, "pair other"]
    width: Float[Array, " pair"]


def _chosen(pairs: Pairs, rng: np.random.Generator) -> list[_Chunk]:
    """Some of them, in whole chunks."""
    index = rng.permutation(len(pairs.width))[:MOST_PAIRS]
    index = np.resize(index, -(-len(index) // CHUNK) * CHUNK)
    parts = map(pairs.take, index.reshape(-1, CHUNK))
    return [_Chunk(*map(jnp.asarray, part)) for part in parts]


@dataclasses.dataclass(frozen=True)
class _Descent:
    """Levenberg-Marquardt rounds."""

    spread: Values
    report: Callable[[str], None]

    def rounds(
        self, operator: PolynomialOperator, chunks: list[_Chunk], stage: _Stage
    ) -> PolynomialOperator:
        """Rounds until nothing is gained."""
        damping = _DAMPING
        for number in range(stage.rounds):
            said = f"network, {stage.part:.2g} of each interval, round {number + 1}"
            try:
                self.report(said)
            except TrainingError:
                if stage.keeps and number > 0:
                    break
                raise
            moved, damping = self._round(operator, chunks, damping)
            if moved is None:
                break
            operator = moved
        return operator

    def loss(self, operator: PolynomialOperator, chunks: list[_Chunk]) -> float:
        """Mean robust loss of the ends of intervals."""
        return robust_loss(self.errors(operator, chunks))

    def errors(self, operator: PolynomialOperator, chunks: list[_Chunk]) -> Values:
        """Of the ends of intervals, in standard deviations."""
        errors = [chunk.end - _chunk_ends(operator, chunk) for chunk in chunks]
        return np.concatenate(errors) / self.spread

    def _round(
        self, operator: PolynomialOperator, chunks: list[_Chunk], damping: float
    ) -> tuple[PolynomialOperator | None, float]:
        """The least damped step that lowers the loss, if any, and the next damping."""
        gram, right, loss = _normal(operator, chunks, self.spread)
        scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        scaled = gram / scale[:, None] / scale
        for trial in range(_TRIALS):
            damped = scaled + damping * np.eye(len(scale))
            step = np.linalg.solve(damped, right / scale) / scale
            moved = _moved(operator, step)
            after = self.loss(moved, chunks)
            if after < _STALLED * loss:
                relaxed = damping / _RELAXED if trial == 0 else damping
                return moved, max(relaxed, _LEAST_DAMPING)
            damping *= _TIGHTENED
        return None, damping


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


def _normal(
    operator: PolynomialOperator, chunks: list[_Chunk], spread: Values
) -> tuple[Values, Values, float]:
    """Normal equations of the residuals at the ends of intervals, and the loss."""
    gram: Values | float = 0.0
    right: Values | float = 0.0
    errors = []
    for chunk in chunks:
        found = _chunk_equations(operator, chunk, jnp.asarray(spread))
        gram, right = gram + np.asarray(found[0]), right + np.asarray(found[1])
        errors.append(np.asarray(found[2]))
    return np.asarray(gram), np.asarray(right), robust_loss(np.concatenate(errors))


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


@eqx.filter_jit
def _chunk_ends(
    operator: PolynomialOperator, chunk: _Chunk
) -> Float[Array, "pair latent"]:
    ends = jax.vmap(_end, in_axes=(None, 0, 0, 0))
    return ends(operator, chunk.start, chunk.others, chunk.width)


@eqx.filter_jit
def _chunk_equations(
    operator: PolynomialOperator, chunk: _Chunk, spread: Float[Array, " latent"]
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
    slopes = sensitivity / spread[None, :, None]
    errors = (chunk.end - ends) / spread[None, :]
    near, weight = weighed(errors, jnp.isfinite(slopes).all(axis=(1, 2)))
    kept = jnp.where(near[:, None], errors, 0.0)
    slopes = jnp.where(near[:, None, None], slopes, 0.0)
    rows = slopes.reshape(-1, flat.shape[0])
    weighted = (slopes * weight[:, None, None]).reshape(-1, flat.shape[0])
    return weighted.T @ rows, weighted.T @ kept.ravel(), errors
