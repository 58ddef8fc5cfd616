import equinox as eqx
import jax
import numpy as np
import pytest

from benchmarks.paper import cost
from spnode_core import TrainingSpec, generate
from spnode_core.samples import build_problem
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.losses import training_loss
from spnode_core.training.presets import resolve


@pytest.mark.parametrize("latent", [None, 7])
def test_an_exponential_for_each_trajectory_gives_the_same_loss(latent):
    jax.config.update("jax_enable_x64", True)
    dataset = generate(
        "kuramoto_sivashinsky", 3, 0, end=float(cost.STEPS), transient=0.0
    )
    spec, _, _ = resolve(dataset, cost._spec(latent), TrainingSpec(loss="uniform"))
    surrogate = create_surrogate(dataset, spec, 0)
    problem = build_problem(dataset, surrogate, loss="uniform", refine=1)
    ours = eqx.filter_jit(training_loss)(surrogate, problem)
    theirs = eqx.filter_jit(cost._loss_per_trajectory)(surrogate, problem)
    # Networks are single precision and are summed in another order.
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
