r"""The loss of training: the squared error of rollouts in normalised states.

.. math:: J = \frac1B \sum_i \sum_k w_k \| x_i(t_k) - D(z_i(t_k)) \|^2, \quad
   z_i(0) = E(x_i(0))

on the step grid and, as the mean of both, on its refinement: trained on one grid only,
ETD1 is a discrete map of that grid and errs tenfold and more off it. What is predicted
below the floor of a logarithm is pulled up to a target above it (``Scaling.errors``).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.rollout import decoded, rollout
from spnode_core.samples import Problem, Samples
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan


def training_loss(
    surrogate: Surrogate,
    problem: Problem,
    *,
    reconstruction: float = 0.0,
    consistency: float = 0.0,
) -> Float[Array, ""]:
    """Mean rollout loss over the plans, and parts for the autoencoder alone.

    Args:
        surrogate: The model.
        problem: Trajectories and plans.
        reconstruction: Weight of ``||D(E(x)) - x||^2`` over the samples.
        consistency: Weight of ``||E(x(t_k)) - z(t_k)||^2 / latent``.

    Source:
        arXiv 2503.01775, (20).
    """
    losses = [
        _rollout_loss(surrogate, problem.samples, plan, consistency)
        for plan in problem.plans
    ]
    loss = sum(losses[1:], losses[0]) / len(losses)
    if reconstruction > 0:
        loss = loss + reconstruction * _reconstruction_loss(surrogate, problem.samples)
    return loss


def _rollout_loss(
    surrogate: Surrogate, samples: Samples, plan: Plan, consistency: float
) -> Float[Array, ""]:
    inputs = (samples.x0, plan, samples.parameters, samples.controls)
    if consistency == 0:
        return _error(surrogate, rollout(surrogate, *inputs), samples)
    z = rollout(surrogate, *inputs, latent=True)
    states = decoded(surrogate, z, samples.x0, samples.parameters)
    loss = _error(surrogate, states, samples)
    return loss + consistency * _inconsistency(surrogate, z, samples)


def _inconsistency(
    surrogate: Surrogate, z: Float[Array, "batch time latent"], samples: Samples
) -> Float[Array, ""]:
    """How far rollouts are from the encoded samples, by the weights of the times."""

    def encode(
        v: Float[Array, " state"], p: Float[Array, " parameter"]
    ) -> Float[Array, " latent"]:
        return surrogate.encode(surrogate.normaliser.states.restore(v), p)

    over_times = jax.vmap(encode, in_axes=(0, None))
    encoded = jax.vmap(over_times)(samples.target, samples.parameters)
    weight = samples.weight.sum(axis=2)
    return jnp.sum(weight * jnp.mean((encoded - z) ** 2, axis=2)) / z.shape[0]


def _error(
    surrogate: Surrogate, states: Float[Array, "batch time state"], samples: Samples
) -> Float[Array, ""]:
    errors = jax.vmap(jax.vmap(surrogate.normaliser.states.errors))
    error = errors(states, samples.target)
    return jnp.sum(samples.weight * error**2) / states.shape[0]


def _reconstruction_loss(surrogate: Surrogate, samples: Samples) -> Float[Array, ""]:
    def reconstruct(
        v: Float[Array, " state"], p: Float[Array, " parameter"]
    ) -> Float[Array, " state"]:
        x = surrogate.normaliser.states.restore(v)
        z = surrogate.encode(x, p)
        return surrogate.decode(z, surrogate.conserved_sums(x), p)

    over_times = jax.vmap(reconstruct, in_axes=(0, None))
    states = jax.vmap(over_times)(samples.target, samples.parameters)
    return _error(surrogate, states, samples)
