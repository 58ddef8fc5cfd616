"""Surrogates of every kind of dynamics, and their steps, for tests of certificates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from models import RATES

from spnode_core.rollout import restarted
from spnode_core.spec import (
    BilinearSpec,
    ContractingSpec,
    HurwitzSpec,
    LipschitzSpec,
    MLPSpec,
    ModalSpec,
    QuadraticSpec,
    RatesSpec,
)

MILD = RatesSpec(minimum=0.5, maximum=5.0)
MODELS = {
    "relaxation": {},
    "pairs": {"linear": ModalSpec(rates=RATES, oscillating=2)},
    "relaxation hurwitz": {"linear": HurwitzSpec(rates=MILD)},
    "mlp": {"linear": HurwitzSpec(rates=MILD), "nonlinear": MLPSpec(initial_scale=1)},
    "lipschitz": {"linear": ModalSpec(rates=MILD), "nonlinear": LipschitzSpec()},
    "contracting": {
        "linear": HurwitzSpec(rates=MILD),
        "nonlinear": ContractingSpec(),
    },
    "bilinear": {
        "linear": ModalSpec(rates=MILD),
        "nonlinear": BilinearSpec(initial_scale=1),
    },
    "quadratic": {
        "linear": HurwitzSpec(rates=MILD),
        "nonlinear": QuadraticSpec(width=8, initial_scale=0.3),
    },
    "turning": {
        "linear": HurwitzSpec(rates=MILD),
        "nonlinear": QuadraticSpec(energy_preserving=True, initial_scale=0.3),
    },
}


def shaken(surrogate, seed=0, size=0.3):
    """The surrogate with every trained number of its dynamics moved at random."""
    leaves, tree = jax.tree.flatten(surrogate.dynamics)
    rng = np.random.default_rng(seed)
    moved = [
        leaf + size * rng.normal(size=leaf.shape)
        if eqx.is_inexact_array(leaf)
        else leaf
        for leaf in leaves
    ]
    return eqx.tree_at(lambda s: s.dynamics, surrogate, jax.tree.unflatten(tree, moved))


def after(surrogate, z, steps):
    """Latent states on the grid from given ones, ``(batch, step, latent)``."""
    times = surrogate.grid.extended(float(surrogate.grid.times[-1]))
    plan = surrogate.grid.plan(times[: steps + 1])
    samples = jnp.zeros((len(z), plan.steps + 1, z.shape[1])).at[:, 0].set(z)
    present = jnp.zeros(samples.shape[:2], bool).at[:, 0].set(True)
    rows = len(z)
    return np.asarray(
        restarted(
            surrogate,
            samples,
            present,
            plan,
            jnp.zeros((rows, 0)),
            jnp.zeros((rows, 1, 0)),
        )
    )
