"""Find the initial condition behind noisy observations in a JAX loop.

A version is a function that JAX differentiates and compiles, though the surrogate runs
in the service. Needs a model and a running service:

    ./spnode demo
    ./spnode up
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        .venv/bin/python docs/examples/optimise_jax.py robertson
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spnode_client import Client

jax.config.update("jax_enable_x64", True)

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
TIMES = np.geomspace(1e-2, 1e4, 25)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-3
TRUTH = np.array([0.96, 5e-7, 0.04])

client = Client(
    os.environ.get("SPNODE_URL", "http://127.0.0.1:8000"), os.environ.get("SPNODE_KEY")
)
rollout = client.model(MODEL).as_jax(precision="float64")
noise = np.random.default_rng(0).normal(size=(TIMES.size, 3)) * NOISE * SCALE
observed = rollout(TRUTH, TIMES) + noise


def loss(y):
    """The misfit of ``x0 = (y1, 5e-7, y3)``; ``y`` is in units of about one step."""
    x0 = jnp.stack([0.92 + 0.01 * y[0], TRUTH[1], 0.08 + 0.01 * y[1]])
    return 0.5 * (((rollout(x0, TIMES) - observed) / (NOISE * SCALE)) ** 2).sum()


optimiser = optax.lbfgs()


@jax.jit
def step(y, state):
    value, gradient = optax.value_and_grad_from_state(loss)(y, state=state)
    updates, state = optimiser.update(
        gradient, state, y, value=value, grad=gradient, value_fn=loss
    )
    return optax.apply_updates(y, updates), state, value


y = jnp.zeros(2)
state = optimiser.init(y)
first = float(loss(y))
for _ in range(15):
    y, state, value = step(y, state)
found = np.array([0.92, 0.08]) + 0.01 * np.asarray(y)
print(f"misfit {first:.4g} -> {float(value):.4g}")
print(f"y1, y3 at the start: found {found.round(4)}, true {TRUTH[[0, 2]]}")
assert value < 2 * observed.size, "the minimum explains the data to the noise"
assert np.abs(found - TRUTH[[0, 2]]).max() < 0.01
