"""Find the initial condition behind noisy observations, through tesseract_jax.

The model is a Tesseract at an address; ``apply_tesseract`` makes it a function that JAX
differentiates and compiles. Under ``vmap`` many starts are one request; the best one is
taken. Each step of Levenberg and Marquardt then asks for the residuals and their
Jacobian: two requests, whatever the number of unknowns. In the end the gradient tells
that nothing is left to gain. Needs tesseract-jax, a model and a running service:

    ./spnode demo
    ./spnode up
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/optimise_tesseract.py robertson
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from tesseract_core import Tesseract
from tesseract_jax import apply_tesseract

jax.config.update("jax_enable_x64", True)

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
URL = os.environ.get("SPNODE_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("SPNODE_KEY", "")
TIMES = np.geomspace(1e-2, 1e4, 25)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-3
TRUTH = np.array([0.96, 5e-7, 0.04])

# The client sends no headers of its own: the key goes as a password.
tesseract = Tesseract.from_url(
    URL.replace("://", f"://key:{KEY}@") + f"/tesseract/{MODEL}"
)


def rollout(x0):
    inputs = {"x0": x0, "times": TIMES, "precision": "float64"}
    return apply_tesseract(tesseract, inputs, vmap_method="auto_experimental")["x"]


noise = np.random.default_rng(0).normal(size=(TIMES.size, 3)) * NOISE * SCALE
observed = rollout(jnp.asarray(TRUTH)) + noise


def residuals(y):
    """Of ``x0 = (y1, 5e-7, y3)``, in units of the noise."""
    x0 = jnp.stack([y[0], TRUTH[1], y[1]])
    return ((rollout(x0) - observed) / (NOISE * SCALE)).ravel()


def misfit(y):
    """The sum of their squares."""
    return (residuals(y) ** 2).sum()


value = jax.jit(residuals)
jacobian = jax.jit(jax.jacfwd(residuals))
gradient = jax.jit(jax.grad(misfit))

axes = jnp.linspace(0.91, 0.97, 5), jnp.linspace(0.02, 0.08, 5)
starts = jnp.stack([axis.ravel() for axis in jnp.meshgrid(*axes)], axis=1)
y, damping = starts[jnp.argmin(jax.vmap(misfit)(starts))], 1e-3
steepest = jnp.linalg.norm(gradient(y))
r = value(y)
first = last = float(r @ r)
for _ in range(15):
    J = jacobian(y)
    normal = J.T @ J
    damped = normal + damping * jnp.diag(jnp.diag(normal))
    tried = y - jnp.linalg.solve(damped, J.T @ r)
    r_tried = value(tried)
    if r_tried @ r_tried < last:
        y, r, damping = tried, r_tried, damping / 10
        before, last = last, float(r @ r)
        if before - last < 1e-6 * before:
            break
    else:
        damping *= 10
deviations = jnp.sqrt(jnp.diag(jnp.linalg.inv(normal)))
print(f"misfit {first:.4g} -> {last:.4g} of {observed.size} numbers")
for name, found, deviation, true in zip(
    ("y1", "y3"), y, deviations, TRUTH[[0, 2]], strict=True
):
    print(f"{name} at the start: {found:.4f} +- {deviation:.4f}, true {true}")
flattest = jnp.linalg.norm(gradient(y))
print(f"norm of the gradient {steepest:.3g} -> {flattest:.3g}")
assert flattest < 0.1 * steepest, "a minimum"
assert last < 2 * observed.size, "the minimum explains the data to the noise"
