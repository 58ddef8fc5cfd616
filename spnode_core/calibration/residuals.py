r"""Residuals of a surrogate beside observations, and their Jacobian, for many points.

.. math:: r_i = (x(t_i; \theta) - y_i) / \sigma_i, \quad
          \sigma_i^2 = \mathrm{noise}_i^2 + n\, \mathrm{model\ error}^2, \quad
          r_j = (\theta_j - \mathrm{mean}_j) / \mathrm{sd}_j

the last ones for unknowns with a prior. A model errs alike at neighbouring times, so
its error counts ``n`` times, the observations of a state: however many there are,
together they tell no more than one without noise would.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.calibration.box import Box
from spnode_core.calibration.problem import Problem
from spnode_core.fixed_times import FixedTimes
from spnode_core.rollout import rollout
from spnode_core.surrogate import Surrogate, cast_networks

Floats = NDArray[np.float64]


class _Data(NamedTuple):
    """A problem as arrays; only their shapes are compiled."""

    known: Floats
    places: NDArray[np.int32]
    low: Floats
    width: Floats
    is_log: NDArray[np.bool_]
    at: NDArray[np.int32]
    observed: Floats
    sd: Floats
    has_prior: NDArray[np.int32]
    mean: Floats
    prior_sd: Floats


class Residuals:
    """What a search minimises the squares of.

    Args:
        surrogate: The model; its networks compute in float64 here.
        problem: What was observed and what is to be found.
        scale: Standard deviations of the observations where the noise is unknown, up
            to a factor, ``(observed,)``.
    """

    def __init__(self, surrogate: Surrogate, problem: Problem, scale: Floats) -> None:
        double = cast_networks(surrogate, np.float64)
        self._at = double.at(problem.times, problem.control_times)
        self._sizes = (*problem.sizes, len(problem.signature.controls))
        box = Box.of(problem.unknowns)
        seen = problem.seen
        sd = standard_deviations(problem, scale)
        time, column = np.nonzero(seen)
        priors = [each.spec.prior for each in problem.unknowns]
        known = [each for each in priors if each is not None]
        self._data = _Data(
            known=np.nan_to_num(problem.known),
            places=problem.places,
            low=box.low,
            width=box.width,
            is_log=box.is_log,
            at=np.stack([time, np.array(problem.states)[column]]).astype(np.int32),
            observed=problem.observations[seen],
            sd=sd[seen],
            has_prior=np.flatnonzero([each is not None for each in priors]).astype(
                np.int32
            ),
            mean=np.array([each.mean for each in known], np.float64),
            prior_sd=np.array([each.sd for each in known], np.float64),
        )

    def __call__(self, v: Floats) -> tuple[Floats, Floats]:
        """Residuals ``(point, residual)`` and Jacobians ``(point, residual, unknown)``.

        Observations first, in the order of ``problem.seen``, then priors.
        """
        points = jnp.asarray(v)
        found = _with_jacobian(self._at, self._data, self._sizes, points)
        residuals, jacobians = map(np.asarray, found)
        return residuals, jacobians

    def predict(self, v: Floats) -> Floats:
        """States at one point of the box, ``(time, state)``."""
        one = jnp.asarray(v)[None]
        states = _states(self._at, self._data, self._sizes, one)
        return np.asarray(states[0])


def standard_deviations(problem: Problem, scale: Floats) -> Floats:
    """Those of the observations, noise and model error together."""
    if problem.noise is None:
        return np.broadcast_to(scale, problem.observations.shape)
    count = problem.seen.sum(axis=0)
    return np.hypot(problem.noise, np.sqrt(count) * problem.model_error)


@eqx.filter_jit
def _with_jacobian(
    at: FixedTimes,
    data: _Data,
    sizes: tuple[int, int, int, int],
    v: Float[Array, "point unknown"],
) -> tuple[Float[Array, "point residual"], Float[Array, "point residual unknown"]]:
    def residuals(v: Float[Array, "point unknown"]) -> Float[Array, "point residual"]:
        x = _trajectories(at, data, sizes, v)
        misfit = (x[:, data.at[0], data.at[1]] - data.observed[None]) / data.sd[None]
        values = _values(data, v)[:, data.has_prior]
        prior = (values - data.mean[None]) / data.prior_sd[None]
        return jnp.concatenate([misfit, prior], axis=1)

    found, push = jax.linearize(residuals, v)
    # Points do not touch each other, so one direction serves all of them.
    directions = jnp.eye(v.shape[1], dtype=jnp.float64)
    along = jax.vmap(lambda d: push(jnp.broadcast_to(d, v.shape)))(directions)
    return found, jnp.moveaxis(along, 0, 2)


@eqx.filter_jit
def _states(*args: object) -> Float[Array, "point time state"]:
    return _trajectories(*args)  # type: ignore[arg-type]


def _values(
    data: _Data, v: Float[Array, "point unknown"]
) -> Float[Array, "point unknown"]:
    t = data.low[None] + data.width[None] * v
    return jnp.where(data.is_log, jnp.exp(jnp.where(data.is_log, t, 0.0)), t)


def _trajectories(
    at: FixedTimes,
    data: _Data,
    sizes: tuple[int, int, int, int],
    v: Float[Array, "point unknown"],
) -> Float[Array, "point time state"]:
    states, parameters, intervals, controls = sizes
    rows = jnp.broadcast_to(data.known, (v.shape[0], data.known.shape[0]))
    rows = rows.at[:, data.places].set(_values(data, v))
    x0, p, u = jnp.split(rows, [states, states + parameters], axis=1)
    u = u.reshape(v.shape[0], intervals, controls)
    return rollout(at.surrogate, x0, at.plan, p, u, shared=at.shared)
