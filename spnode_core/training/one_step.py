"""What a polynomial makes of single samples: the ends of intervals, and their slopes.

An interval starts at a sample and ends at the next; the residual there is the one-step
error. Intervals go through compiled code in chunks of one size.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import NDArray

from spnode_core.integrators.rodas import rational_flow, rodas_step
from spnode_core.nonlinear.polynomial import terms
from spnode_core.training.operator_inference import Snapshots

Values = NDArray[np.float64]

MOST_COEFFICIENTS = 1500
"""Normal equations of all coefficients at once have so many unknowns at most."""
CHUNK = 1000
# Residuals above this many of their units (standard deviations, mostly) count linearly.
_ROBUST = 0.1
# An interval that ends this many of them from its sample is lost.
_FARTHEST = 10.0


class Pairs(NamedTuple):
    """Intervals between neighbouring samples."""

    start: Values
    """``(pair, latent)``."""
    end: Values
    """``(pair, latent)``."""
    others: Values
    """Held controls and parameters, ``(pair, other)``."""
    width: Values
    """``(pair,)``, time."""

    def take(self, index: NDArray[np.int64]) -> "Pairs":
        """Some of them."""
        return Pairs(*(each[index] for each in self))


def interval_pairs(snapshots: list[Snapshots]) -> Pairs:
    """All intervals, the shortest first."""
    pairs = Pairs(
        np.concatenate([each.z[:-1] for each in snapshots]),
        np.concatenate([each.z[1:] for each in snapshots]),
        np.concatenate([each.others[:-1] for each in snapshots]),
        np.concatenate([np.diff(each.times) for each in snapshots]),
    )
    return pairs.take(np.argsort(pairs.width, kind="stable"))


class Normal(NamedTuple):
    """Normal equations of a round.

    Of all coefficients at once, ``right`` being a vector; or, where they are too many,
    of the products alone, ``right`` having a column for each latent variable.
    """

    gram: Values
    right: Values
    loss: float
    residual: float
    good: float


def equations(
    coefficients: Values, pairs: Pairs, degree: int, substeps: int, unit: Values
) -> Normal:
    """Normal equations of the residuals at the ends of intervals, whole chunks.

    Args:
        coefficients: ``(latent, term)``, 1/time.
        pairs: Intervals.
        degree: Of the polynomial.
        substeps: Steps of the integrator in an interval.
        unit: What residuals are measured in, ``(pair, latent)``.
    """
    gram: Values | float = 0.0
    right: Values | float = 0.0
    ends, good = [], []
    for first in range(0, len(pairs.width), CHUNK):
        index = np.arange(first, first + CHUNK)
        part = pairs.take(index)
        chunk = _chunk_slopes if is_decoupled(coefficients) else _chunk_equations
        found = chunk(
            jnp.asarray(coefficients),
            *map(jnp.asarray, part),
            unit=jnp.asarray(unit[index]),
            degree=degree,
            substeps=substeps,
        )
        gram, right = gram + np.asarray(found[0]), right + np.asarray(found[1])
        ends.append(np.asarray(found[2]))
        good.append(np.asarray(found[3]))
    end, is_good = np.concatenate(ends), np.concatenate(good)
    errors = (pairs.end - end) / unit
    near = errors[is_good]
    residual = float(np.sqrt(np.mean(near**2))) if is_good.any() else np.inf
    loss = robust_loss(errors)
    return Normal(
        np.asarray(gram), np.asarray(right), loss, residual, float(is_good.mean())
    )


def is_decoupled(coefficients: Values) -> bool:
    """Whether there are too many coefficients for equations of all of them at once."""
    return coefficients.size > MOST_COEFFICIENTS


def is_near(errors: Values) -> NDArray[np.bool_]:
    """Which intervals end near the data, errors being in standard deviations."""
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(errors) < _FARTHEST).all(axis=1))


def residual_of(errors: Values) -> tuple[float, float]:
    """Root mean square of the errors near the data, and the part that is near."""
    near = is_near(errors)
    rms = float(np.sqrt(np.mean(errors[near] ** 2))) if near.any() else np.inf
    return rms, float(near.mean())


def robust_loss(errors: Values) -> float:
    """Mean robust loss; what ends far from the data costs as much as anything may."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = is_near(errors)
        size = np.sum(errors**2, axis=1)
        robust = 2 * _ROBUST**2 * (np.sqrt(1 + size / _ROBUST**2) - 1)
    return float(np.mean(np.where(near, robust, 20 * _ROBUST)))


def ends_of(coefficients: Values, pairs: Pairs, degree: int, substeps: int) -> Values:
    """Where the model is at the end of each interval."""
    parts = []
    for first in range(0, len(pairs.width), CHUNK):
        part = pairs.take(np.arange(first, first + CHUNK))
        ends = _chunk_ends(
            jnp.asarray(coefficients),
            *map(jnp.asarray, (part.start, part.others, part.width)),
            degree=degree,
            substeps=substeps,
        )
        parts.append(np.asarray(ends))
    return np.concatenate(parts)


@eqx.filter_jit
def _chunk_ends(
    coefficients: Float[Array, "latent term"],
    start: Float[Array, "pair latent"],
    others: Float[Array, "pair other"],
    width: Float[Array, " pair"],
    degree: int,
    substeps: int,
) -> Float[Array, "pair latent"]:
    def end(
        z: Float[Array, " latent"], held: Float[Array, " other"], h: Float[Array, ""]
    ) -> Float[Array, " latent"]:
        model = _Model(coefficients, held, degree, h / substeps)
        return jax.lax.fori_loop(0, substeps, lambda _, v: model.step(v), z)

    return jax.vmap(end)(start, others, width)


@eqx.filter_jit
def _chunk_equations(
    coefficients: Float[Array, "latent term"],
    start: Float[Array, "pair latent"],
    end: Float[Array, "pair latent"],
    others: Float[Array, "pair other"],
    width: Float[Array, " pair"],
    unit: Float[Array, "pair latent"],
    degree: int,
    substeps: int,
) -> tuple[Array, Array, Array, Array]:
    """Gram matrix, right-hand side, ends, and which of them are near the data."""
    latent, count = coefficients.shape

    def along(
        z: Float[Array, " latent"], held: Float[Array, " other"], h: Float[Array, ""]
    ) -> tuple[Array, Array]:
        model = _Model(coefficients, held, degree, h / substeps)
        sensitivity = jnp.zeros((latent, latent, count))

        def body(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            v, s = state
            after = model.step(v)
            return after, model.sensitivity((v + after) / 2, s)

        return jax.lax.fori_loop(0, substeps, body, (z, sensitivity))

    ends, sensitivity = jax.vmap(along)(start, others, width)
    slopes = sensitivity.reshape(-1, latent, latent * count) / unit[:, :, None]
    errors = (end - ends) / unit
    near, weight = weighed(errors, jnp.isfinite(slopes).all(axis=(1, 2)))
    errors = jnp.where(near[:, None], errors, 0.0)
    slopes = jnp.where(near[:, None, None], slopes, 0.0)
    rows = slopes.reshape(-1, latent * count)
    weighted = (slopes * weight[:, None, None]).reshape(-1, latent * count)
    return weighted.T @ rows, weighted.T @ errors.ravel(), ends, near


@eqx.filter_jit
def _chunk_slopes(
    coefficients: Float[Array, "latent term"],
    start: Float[Array, "pair latent"],
    end: Float[Array, "pair latent"],
    others: Float[Array, "pair other"],
    width: Float[Array, " pair"],
    unit: Float[Array, "pair latent"],
    degree: int,
    substeps: int,
) -> tuple[Array, Array, Array, Array]:
    r"""The same with residuals turned into slopes, one regression for all variables.

    With ``J`` in the middle of an interval, :math:`\delta C \bar w^\alpha =
    (\Delta \varphi_1(\Delta J))^{-1} r`, the products averaged along the path.
    """
    latent = coefficients.shape[0]

    def along(
        z: Float[Array, " latent"], held: Float[Array, " other"], h: Float[Array, ""]
    ) -> tuple[Array, Array, Array]:
        model = _Model(coefficients, held, degree, h / substeps)

        def body(v: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
            after = model.step(v)
            middle = (v + after) / 2
            return after, (middle, model.products(middle))

        last, (middles, products) = jax.lax.scan(body, z, length=substeps)
        jacobian = jax.jacfwd(model.derivative)(middles.mean(axis=0))
        response = h * rational_flow(h * jacobian)[1]
        return last, products.mean(axis=0), response

    ends, products, response = jax.vmap(along)(start, others, width)
    errors = end - ends
    usable = jnp.isfinite(response).all(axis=(1, 2))
    near, weight = weighed(errors / unit, usable)
    identity = jnp.eye(latent)[None]
    response = jnp.where(near[:, None, None], response, identity)
    errors = jnp.where(near[:, None], errors, 0.0)
    slopes = jnp.linalg.solve(response, errors[..., None])[..., 0]
    products = jnp.where(near[:, None], products, 0.0)
    weighted = products * weight[:, None]
    return weighted.T @ products, weighted.T @ slopes, ends, near


def weighed(
    errors: Float[Array, "pair latent"], usable: Bool[Array, " pair"]
) -> tuple[Bool[Array, " pair"], Float[Array, " pair"]]:
    """Which intervals end near the data, and their weights in a robust regression."""
    near = (jnp.abs(errors) < _FARTHEST).all(axis=1) & usable
    size = jnp.sum(errors**2, axis=1)
    return near, jnp.where(near, (1 + size / _ROBUST**2) ** -0.5, 0.0)


class _Model(NamedTuple):
    """Steps of the polynomial between two samples."""

    coefficients: Float[Array, "latent term"]
    others: Float[Array, " other"]
    degree: int
    width: Float[Array, ""]
    """Of one step, time."""

    def products(self, z: Float[Array, " latent"]) -> Float[Array, " term"]:
        return terms(jnp.concatenate([z, self.others]), self.degree)

    def derivative(self, z: Float[Array, " latent"]) -> Float[Array, " latent"]:
        return self.coefficients @ self.products(z)

    def step(self, z: Float[Array, " latent"]) -> Float[Array, " latent"]:
        return rodas_step(self.derivative, self.width, z)

    def sensitivity(
        self, z: Float[Array, " latent"], before: Float[Array, "latent latent term"]
    ) -> Float[Array, "latent latent term"]:
        """Of the state by the coefficients, after a step whose middle is ``z``."""
        flow, mean = rational_flow(self.width * jax.jacfwd(self.derivative)(z))
        carried = before + jnp.einsum("ij,jkt->ikt", flow, before)
        added = jnp.einsum("ij,t->ijt", mean, self.products(z))
        return carried + self.width * added
