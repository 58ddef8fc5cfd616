import jax
import numpy as np
import optax

from spnode_core.spec import TrainingSpec
from spnode_core.training.optimisers import create_optimiser, learning_rate


def test_exponential_schedule_falls_by_its_factor_after_its_iterations():
    spec = TrainingSpec(
        learning_rate=0.01, schedule="exponential", decay=0.9, decay_iterations=50
    )
    rates = [float(np.asarray(learning_rate(spec)(i))) for i in (0, 50, 100)]
    np.testing.assert_allclose(rates, [0.01, 0.009, 0.0081], rtol=1e-6)


def test_muon_takes_longer_steps_where_a_layer_widens_and_not_where_it_narrows():
    widening, narrowing = (32, 2), (2, 32)
    weights = [
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate((widening, narrowing))
    ]
    rate = optax.constant_schedule(0.01)
    optimiser = create_optimiser(TrainingSpec(), [True, True], rate)
    steps, _ = optimiser.update(weights, optimiser.init(weights), weights)
    sizes = [
        np.linalg.norm(np.asarray(step), 2) / 0.01 for step in jax.tree.leaves(steps)
    ]
    # Orthogonalised steps have singular values of about one, times sqrt(32 / 2) = 4.
    np.testing.assert_allclose(sizes, [4.0, 1.0], rtol=0.25)
