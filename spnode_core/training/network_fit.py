r"""A polynomial and a network from samples, for stiff systems that no polynomial is.

All parameters of ``F = C w^alpha + N(w)`` descend together, by Levenberg-Marquardt
rounds (``network_rounds``) on what single steps of the model make of each sample. Long
intervals of a stiff system lead nowhere while the model is wrong, so the rounds begin
with parts of the sampling intervals, between points of splines through the samples, and
end with the samples themselves: every region that the data visit is learned from the
start.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from spnode_core.errors import TrainingError
from spnode_core.nonlinear.polynomial import PolynomialOperator
from spnode_core.training.error_units import spread_of
from spnode_core.training.network_rounds import SUBSTEPS, Chunk, Rounds, chunks_of
from spnode_core.training.one_step import Pairs, interval_pairs, residual_of
from spnode_core.training.operator_inference import Snapshots
from spnode_core.training.polynomial_fit import MOST_PAIRS, regress

Values = NDArray[np.float64]

# Rounds from some starts end in far worse minima than from others.
_STARTS = 3


class _Stage(NamedTuple):
    """A part of each sampling interval, and the most rounds on it."""

    part: float
    rounds: int
    is_last: bool = False
    """Steps follow their curves, and what is found until time is up is used."""

    @property
    def said(self) -> str:
        """What it is, for reports of progress."""
        return f"network, {self.part:.2g} of each interval"


_STAGES = (
    _Stage(1 / 32, 20),
    _Stage(1 / 8, 6),
    _Stage(1 / 3, 6),
    _Stage(1.0, 150, is_last=True),
)
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
    rounds = Rounds(spread_of(snapshots), report)
    rng = np.random.default_rng([seed, 26])
    try:
        operator = _found(operator, snapshots, rounds, rng, goes_on=goes_on)
    except np.linalg.LinAlgError as error:
        raise TrainingError("its equations leave the finite range") from error
    chunks = chunks_of(interval_pairs(snapshots), MOST_PAIRS, rng)
    errors = rounds.errors(operator, chunks)
    residual, good = residual_of(errors)
    if good < 1 - _NOT_GOOD or residual > _WRONG:
        raise TrainingError(
            f"its steps err by {residual:.2g} standard deviations, and "
            f"{1 - good:.0%} of them leave the data"
        )
    return NetworkFit(operator, residual, SUBSTEPS)


def _found(
    operator: PolynomialOperator,
    snapshots: list[Snapshots],
    rounds: Rounds,
    rng: np.random.Generator,
    *,
    goes_on: bool,
) -> PolynomialOperator:
    """All stages, the first from several starts."""
    first, *later = _STAGES
    chunks = _chunks(snapshots, first, rng)
    starts = [operator]
    if not goes_on:
        starts = [_started(operator, snapshots, rng) for _ in range(_STARTS)]
    tried = [
        rounds.run(each, chunks, first.rounds, f"{first.said}, start {number}")
        for number, each in enumerate(starts, start=1)
    ]
    operator = min(tried, key=lambda each: rounds.loss(each, chunks))
    for stage in later:
        chunks = _chunks(snapshots, stage, rng)
        operator = rounds.run(
            operator,
            chunks,
            stage.rounds,
            stage.said,
            bends=stage.is_last,
            keeps=stage.is_last,
        )
    return operator


def _chunks(
    snapshots: list[Snapshots], stage: _Stage, rng: np.random.Generator
) -> list[Chunk]:
    pairs = _parts_of_intervals(snapshots, stage.part, rng)
    return chunks_of(pairs, MOST_PAIRS, rng)


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
