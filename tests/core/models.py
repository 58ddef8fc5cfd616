"""Small untrained surrogates of a three-state system, for tests of the library."""

import jax
import numpy as np

from spnode_core.normaliser import Normaliser, fit_scaling
from spnode_core.spec import (
    DomainSpec,
    GridStepsSpec,
    ModalSpec,
    RatesSpec,
    Signature,
    SurrogateSpec,
)
from spnode_core.surrogate import Surrogate

STATES = ("a", "b", "c")
GRID = np.concatenate([[0.0], np.logspace(-3, 3, 13)])
RATES = RatesSpec(minimum=1e-4, maximum=1e4)
MASS = {"mass": {"a": 1.0, "b": 1.0, "c": 1.0}}
LOWER, UPPER = np.array([0.0, 0.0, 0.0]), np.array([1.0, 4e-5, 1.1])


def small_spec(**fields):
    defaults = {
        "latent": 5,
        "linear": ModalSpec(rates=RATES),
        "steps": GridStepsSpec(times=tuple(GRID)),
        "precision": "float64",
    }
    return SurrogateSpec(**{**defaults, **fields})


def small_surrogate(
    *, parameters=0, controls=0, seed=0, states=STATES, named=(), **fields
):
    """An untrained surrogate of three states on a logarithmic grid."""
    spec = small_spec(**fields)
    sums = len(spec.conserved)
    domain = DomainSpec(
        lower=tuple(LOWER),
        upper=tuple(UPPER),
        parameters_lower=(0.5,) * parameters,
        parameters_upper=(2.0,) * parameters,
        controls_lower=(-1.0,) * controls,
        controls_upper=(1.0,) * controls,
        conserved_lower=(0.9,) * sums,
        conserved_upper=(1.1,) * sums,
        end=1e3,
    )
    signature = Signature(
        states=states,
        parameters=named or tuple(f"p{i}" for i in range(parameters)),
        controls=tuple(f"u{i}" for i in range(controls)),
        latent=spec.latent,
        domain=domain,
    )
    normaliser = Normaliser(
        states=fit_scaling(np.stack([LOWER, UPPER]), ["linear"] * 3),
        sums=fit_scaling(np.array([[0.9] * sums, [1.1] * sums])),
        parameters=fit_scaling(np.array([[0.5] * parameters, [2.0] * parameters])),
        controls=fit_scaling(np.array([[-1.0] * controls, [1.0] * controls])),
    )
    return Surrogate.create(spec, signature, normaliser, key=jax.random.key(seed))


def random_states(rows, seed=0):
    """Initial states inside the training box whose sum is near 1."""
    draws = np.random.default_rng(seed).uniform(size=(rows, 3))
    x = LOWER + (UPPER - LOWER) * draws
    x[:, 2] = 1.0 - x[:, 0] - x[:, 1] + 0.05 * draws[:, 2]
    return x
