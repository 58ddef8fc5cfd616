import numpy as np

from spnode_core.spec import TrainingSpec
from spnode_core.training.optimisers import learning_rate


def test_exponential_schedule_falls_by_its_factor_after_its_iterations():
    spec = TrainingSpec(schedule="exponential", decay=0.9, decay_iterations=50)
    rates = [float(np.asarray(learning_rate(spec)(i))) for i in (0, 50, 100)]
    np.testing.assert_allclose(rates, [0.01, 0.009, 0.0081], rtol=1e-6)
