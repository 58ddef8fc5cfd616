"""What an iteration of training costs, with and without autoencoder, in two ways.

The paper's way makes a matrix exponential for each trajectory and step, with the value
of f inside it (its formula 17). Since A depends on no trajectory, ours makes e^{hA} and
phi_1(hA) once for each distinct step and shares them with the whole batch.
"""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks.paper.rows import Bar, Numbers, Record, Row, table
from benchmarks.paper.trained import Tell
from spnode_core import Surrogate, SurrogateSpec, TrainingSpec, generate
from spnode_core.samples import Problem, build_problem
from spnode_core.spec import (
    HurwitzSpec,
    LipschitzSpec,
    NoAutoencoderSpec,
    RatesSpec,
    ResidualSpec,
    UniformStepsSpec,
)
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.losses import training_loss
from spnode_core.training.presets import resolve

KIND = "cost"
LATENTS = (None, 20, 7)
PAPER_SPEEDUP = {20: 12, 7: 24}
STEPS, BATCH, REPEATS = 8, 100, 5

ABOUT = f"""
## Cost of training

Loss and gradient over windows of {STEPS} steps of 1.0, {BATCH} of them, Hurwitz A with
shift 1/4, Lipschitz network of 2 layers with 200 units, ETD1; autoencoder of networks
with 200 units. Median of {REPEATS} calls after compilation, all in one run; the paper
reports "factors of 12 and 24 speedup" against the model without autoencoder.
"""


def rows() -> list[Row]:
    """One row, so that all times are of one run."""
    settings = {"kind": KIND, "batch": BATCH, "steps": STEPS, "repeats": REPEATS}
    settings["surrogates"] = [_spec(n).model_dump(mode="json") for n in LATENTS]
    return [Row("cost of training", settings, _measure)]


def tables(record: Record) -> str:
    """The times and their ratios."""
    found = record.numbers["seconds"]
    without = found["none"]
    lines = [
        (
            "none" if name == "none" else f"latent {name}",
            f"{1e3 * times['per_trajectory']:.3g} ms",
            f"{without['per_trajectory'] / times['per_trajectory']:.1f}",
            f"{1e3 * times['shared']:.3g} ms",
            f"{without['shared'] / times['shared']:.1f}",
            f"{times['per_trajectory'] / times['shared']:.1f}",
        )
        for name, times in found.items()
    ]
    columns = (
        "autoencoder",
        "exponential per trajectory",
        "speedup against none",
        "shared propagators",
        "speedup against none",
        "shared over per trajectory",
    )
    return ABOUT + "\n" + table(columns, lines)


def bars(record: Record | None) -> list[Bar]:
    """That it is reported."""
    if record is None:
        return []
    found = record.numbers["seconds"]
    told = []
    for way, words in (("per_trajectory", "per trajectory"), ("shared", "shared")):
        ratios = (f"{found['none'][way] / found[str(n)][way]:.1f}" for n in (20, 7))
        told.append(f"{words}: {', '.join(ratios)}")
    told = "; ".join(told)
    return [
        Bar("speedup of latent 20 and 7 over none", "12, 24", "reported", told, True)
    ]


def _measure(tell: Tell) -> Numbers:
    dataset = generate("kuramoto_sivashinsky", BATCH, 0, end=float(STEPS))
    seconds = {}
    for latent in LATENTS:
        spec, _, _ = resolve(dataset, _spec(latent), TrainingSpec(loss="uniform"))
        surrogate = create_surrogate(dataset, spec, 0)
        problem = build_problem(dataset, surrogate, loss="uniform", refine=1)
        seconds[str(latent or "none")] = {
            "per_trajectory": _timed(_loss_per_trajectory, surrogate, problem),
            "shared": _timed(training_loss, surrogate, problem),
        }
    return {"seconds": seconds}


def _spec(latent: int | None) -> SurrogateSpec:
    rates = RatesSpec(minimum=0.1, maximum=100.0)
    return SurrogateSpec(
        latent=latent,
        linear=HurwitzSpec(rates=rates, shift=0.25),
        nonlinear=LipschitzSpec(width=200, bound=1.0),
        autoencoder=ResidualSpec(width=200) if latent else NoAutoencoderSpec(),
        steps=UniformStepsSpec(step=1.0),
    )


def _timed(loss: Callable[..., Any], surrogate: Surrogate, problem: Problem) -> float:
    evaluate = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    jax.block_until_ready(evaluate(surrogate, problem))
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(evaluate(surrogate, problem))
        took.append(time.perf_counter() - began)
    return float(np.median(took))


def _loss_per_trajectory(surrogate: Surrogate, problem: Problem) -> Float[Array, ""]:
    """The same loss, each step by its own exponential of (n + 1) x (n + 1)."""
    surrogate = surrogate.prepared()
    samples, none = problem.samples, jnp.zeros(0)
    dynamics = surrogate.dynamics
    matrix = dynamics.linear.matrix()
    size = matrix.shape[0]

    def step(z: Float[Array, " latent"]) -> Float[Array, " latent"]:
        augmented = jnp.zeros((size + 1, size + 1)).at[:size, :size].set(matrix)
        augmented = augmented.at[:size, size].set(dynamics.forcing(z, none, none))
        flow = jax.scipy.linalg.expm(augmented, max_squarings=64)
        return (flow @ jnp.append(z, 1.0))[:size]

    def advance(
        z: Float[Array, " latent"], _: None
    ) -> tuple[Float[Array, " latent"], Float[Array, " latent"]]:
        z = step(z)
        return z, z

    def trajectory(x0: Float[Array, " state"]) -> Float[Array, "time state"]:
        z0 = surrogate.encode(x0, none)
        _, later = jax.lax.scan(advance, z0, length=STEPS)
        z = jnp.concatenate([z0[None], later])
        sums = surrogate.conserved_sums(x0)
        return jax.vmap(lambda v: surrogate.decode(v, sums, none))(z)

    states = jax.vmap(trajectory)(samples.x0)
    normalise = jax.vmap(jax.vmap(surrogate.normaliser.states.normalise))
    error = normalise(states) - samples.target
    return jnp.sum(samples.weight * error**2) / len(states)
