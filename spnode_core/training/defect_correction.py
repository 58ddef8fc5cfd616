r"""Defect correction of inferred operators, where samples are far apart.

The model is integrated from every sample to the next; with residual ``r`` and the path
``zh`` between them, the change of the coefficients of mode ``i`` is regressed on

.. math:: r_i = \delta C_i \int_0^{\Delta} e^{(\Delta - s)\, a_{ii}}\,
   \theta(\hat z(s))\, ds,

the response of the mode's own decay: a Gauss-Newton round without the coupling of the
modes, which repeats until the bias of coarse sampling is gone.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.errors import TrainingError
from spnode_core.integrators.etd import Krogstad
from spnode_core.linear.modal import real_propagator
from spnode_core.nonlinear.quadratic import monomials
from spnode_core.training.operator_inference import (
    Operators,
    Snapshots,
    as_operators,
    feature_count,
    ridge_solution,
)

Values = NDArray[np.float64]

MOST_PAIRS = 20_000
_SUBSTEPS = 8
_CHUNK = 2000
_MOST_WIDTHS = 32
_SAME = 1e-9
# A pair whose path leaves this many standard deviations tells nothing.
_FARTHEST = 1e3


def correct(
    operators: Operators, snapshots: list[Snapshots], *, ridge: float, seed: int
) -> tuple[Operators, float]:
    """One round.

    Args:
        operators: What was inferred so far.
        snapshots: Trajectories.
        ridge: Weight of squared coefficients of features of unit mean square.
        seed: Source of the choice among more than ``MOST_PAIRS`` pairs.

    Returns:
        The corrected operators and the root mean square of the residuals before.

    Raises:
        TrainingError: The model leaves the finite range between samples.
    """
    start, end, others, width = _pairs(snapshots, seed)
    latent = start.shape[1]
    features = feature_count(latent, others.shape[1])
    gram = np.zeros((latent, features, features))
    right = np.zeros((latent, features))
    squares, rows = 0.0, 0
    for chunk in np.array_split(np.arange(len(start)), -(-len(start) // _CHUNK)):
        for step in np.unique(width[chunk]):
            those = chunk[width[chunk] == step]
            path = integrate(operators, start[those], others[those], float(step))
            good = (np.abs(path) < _FARTHEST).all(axis=(1, 2))
            path, kept = path[good], those[good]
            residual = end[kept] - path[:, -1]
            squares += float(np.sum(residual**2))
            rows += len(kept)
            values = _features(path, others[kept])
            weights = response_weights(operators.diagonal * step) * step
            for i in range(latent):
                response = np.einsum("j,kjf->kf", weights[i], values)
                gram[i] += response.T @ response
                right[i] += response.T @ residual[:, i]
    if rows < len(start) / 2:
        raise TrainingError(
            "the operators that least squares found leave the finite range between "
            "samples: sample more densely, or raise training.initial.ridge"
        )
    change = np.concatenate(
        [
            ridge_solution(gram[i] / rows, right[i][:, None] / rows, ridge)
            for i in range(latent)
        ]
    )
    delta = as_operators(change, latent)
    corrected = Operators(*(a + b for a, b in zip(operators, delta, strict=True)))
    return corrected, float(np.sqrt(squares / (rows * latent)))


def is_possible(snapshots: list[Snapshots]) -> bool:
    """Whether samples lie at few enough different distances."""
    widths = np.concatenate([np.diff(each.times) for each in snapshots])
    return len(np.unique(_rounded(widths))) <= _MOST_WIDTHS


def response_weights(rates: Values) -> Values:
    r"""Weights for ``\int_0^1 e^{(1-s) r} g(s) ds`` from values of g at equal points.

    Exact for polynomials g of degree 8, for every rate.

    Args:
        rates: ``r``, dimensionless, ``(mode,)``.

    Returns:
        ``(mode, 9)``.
    """
    # Panels that halve towards s = 1, where fast modes remember anything at all.
    ends = 1 - np.append(2.0 ** -np.arange(40), 0.0)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(ends) / 2
    points = (ends[:-1] + half)[:, None] + half[:, None] * nodes
    factors = (half[:, None] * weights).ravel()
    points = points.ravel()
    grid = np.linspace(0.0, 1.0, _SUBSTEPS + 1)
    differences = points[:, None, None] - grid[None, None, :]
    gaps = grid[:, None] - grid[None, :]
    same = np.eye(len(grid), dtype=bool)
    ratio = np.where(same, 1.0, differences / np.where(same, 1.0, gaps))
    lagrange = ratio.prod(axis=2)
    growth = np.exp(np.minimum(rates[:, None] * (1 - points), 700.0))
    return (growth * factors) @ lagrange


def _pairs(
    snapshots: list[Snapshots], seed: int
) -> tuple[Values, Values, Values, Values]:
    """Neighbouring samples: start, end, what is held between, and the interval."""
    start = np.concatenate([each.z[:-1] for each in snapshots])
    end = np.concatenate([each.z[1:] for each in snapshots])
    others = np.concatenate([each.others[:-1] for each in snapshots])
    width = _rounded(np.concatenate([np.diff(each.times) for each in snapshots]))
    if len(start) > MOST_PAIRS:
        order = np.random.default_rng([seed, 22]).permutation(len(start))
        chosen = np.sort(order[:MOST_PAIRS])
        start, end, others, width = (a[chosen] for a in (start, end, others, width))
    return start, end, others, width


def _rounded(widths: Values) -> Values:
    """Intervals that differ by rounding only, made equal."""
    ordered, inverse = np.unique(widths, return_inverse=True)
    new = np.diff(ordered, prepend=-np.inf) > _SAME * ordered
    return ordered[np.flatnonzero(new)][np.cumsum(new) - 1][inverse]


def _features(path: Values, others: Values) -> Values:
    held = np.broadcast_to(others[:, None], (*path.shape[:2], others.shape[1]))
    ones = np.ones((*path.shape[:2], 1))
    return np.concatenate([path, held, ones, monomials(path)], axis=2)


def integrate(
    operators: Operators, start: Values, others: Values, width: float
) -> Values:
    """Paths of the operators over one interval, at equal points of it.

    Args:
        operators: What moves them.
        start: Where they begin, ``(pair, latent)``.
        others: What is held over the interval, ``(pair, other)``.
        width: The interval, time.

    Returns:
        ``(pair, point, latent)``, the starts among the points.
    """
    # Rows repeat up to a power of two, so that few shapes are compiled.
    rows = np.arange(1 << (len(start) - 1).bit_length()) % len(start)
    arrays = (*operators, start[rows], others[rows], width)
    return np.asarray(_paths(*map(jnp.asarray, arrays)))[: len(start)]


@eqx.filter_jit
def _paths(
    affine: Float[Array, "latent term"],
    products: Float[Array, "latent product"],
    start: Float[Array, "pair latent"],
    others: Float[Array, "pair other"],
    width: Float[Array, ""],
) -> Float[Array, "pair point latent"]:
    latent = affine.shape[0]
    diagonal = jnp.diag(affine[:, :latent])
    rest = affine.at[jnp.arange(latent), jnp.arange(latent)].set(0.0)
    step = width / _SUBSTEPS
    integrator = Krogstad()
    propagators = tuple(
        real_propagator(fraction * step * diagonal, order)
        for fraction, order in zip(
            integrator.fractions, integrator.phi_orders, strict=True
        )
    )

    def path(
        z: Float[Array, " latent"], held: Float[Array, " other"]
    ) -> Float[Array, "point latent"]:
        constant = rest[:, latent:] @ jnp.append(held, 1.0)

        def forcing(v: Float[Array, " latent"]) -> Float[Array, " latent"]:
            return rest[:, :latent] @ v + products @ monomials(v) + constant

        def body(
            v: Float[Array, " latent"], _: None
        ) -> tuple[Float[Array, " latent"], Float[Array, " latent"]]:
            v = integrator.step(forcing, propagators, step, v)
            return v, v

        _, later = jax.lax.scan(body, z, None, length=_SUBSTEPS)
        return jnp.concatenate([z[None], later])

    return jax.vmap(path)(start, others)
