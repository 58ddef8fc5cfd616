"""What a small trained model says of itself, against trajectories nobody has seen."""

import pytest

from spnode_core import systems
from spnode_core.metrics import evaluate, with_intervals
from spnode_core.spec import (
    RelaxationSpec,
    ResidualSpec,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.training.execution import Execution, Parts
from spnode_core.training.presets import resolve
from spnode_core.training.progress import Reporter

SMALL = SurrogateSpec(
    latent=4,
    nonlinear=RelaxationSpec(width=8, depth=1),
    autoencoder=ResidualSpec(width=8, depth=1),
)
BRIEF = TrainingSpec(iterations=60, batch=32, polish="none", refine=1)


@pytest.fixture(scope="module")
def parts():
    dataset = systems.generate("robertson", 200, seed=0, points=20)
    return Parts(*dataset.split(SplitSpec(validation=0.4, test=0.1), seed=0))


@pytest.fixture(scope="module")
def trained(parts):
    """Trained as ``fit`` does, without a report, which takes as long again."""
    spec, training, _ = resolve(parts.train, SMALL, BRIEF)
    reporter = Reporter(None, None, None)
    return Execution(parts, spec, training, 0, reporter, {}, None, 10.0).run()[0]


@pytest.fixture(scope="module")
def unseen():
    return systems.generate("robertson", 200, seed=1, points=20)


def test_intervals_hold_nine_tenths_of_the_truth(parts, trained, unseen):
    surrogate = with_intervals(trained, parts.validation)
    measured = evaluate(surrogate, unseen)["intervals"]["measured"]
    by_coverage = {row["coverage"]: row["measured"] for row in measured}
    # From 80 trajectories the coverage has a standard deviation of 3 % in one bin, and
    # less over all of them.
    assert by_coverage[0.9] == pytest.approx(0.9, abs=0.04)
    assert by_coverage[0.5] == pytest.approx(0.5, abs=0.1)
