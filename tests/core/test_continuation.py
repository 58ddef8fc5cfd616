"""Inferred operators run on from the ends of trajectories."""

import numpy as np

import spnode_core as sp
from spnode_core.spec import (
    OperatorInferenceSpec,
    PODSpec,
    PretrainingSpec,
    QuadraticSpec,
    SurrogateSpec,
    TrainingSpec,
    UniformStepsSpec,
)
from spnode_core.training.continuation import continuations
from spnode_core.training.operator_inference import Operators, Snapshots

WIDTH = 0.25


def turning(growth, count=6, samples=9):
    """Trajectories of a rotation that grows or decays, and its operators."""
    matrix = np.array([[growth, -1.0], [1.0, growth]])
    phases = np.linspace(0.0, 6.0, count)
    times = np.arange(samples) * WIDTH
    none = np.zeros((samples, 0))
    snapshots = [
        Snapshots(circle(growth, phase, times), times, none) for phase in phases
    ]
    affine = np.concatenate([matrix, np.zeros((2, 1))], axis=1)
    return Operators(affine, np.zeros((2, 3))), snapshots, phases


def circle(growth, phase, times):
    angle = times + phase
    return np.exp(growth * times)[:, None] * np.stack([np.cos(angle), np.sin(angle)]).T


def test_samples_go_on_where_the_trajectories_would():
    operators, snapshots, phases = turning(growth=-0.05)
    more = continuations(operators, snapshots, 2.0)
    assert [len(each.z) for each in more] == [18] * len(snapshots)
    for each, phase in zip(more, phases, strict=True):
        truth = circle(-0.05, phase, snapshots[0].times[-1] + each.times)
        # Krogstad with eight steps in an interval of a quarter.
        assert np.abs(each.z - truth).max() < 1e-7


def test_a_path_ends_where_it_leaves_the_range_of_the_data():
    operators, snapshots, _ = turning(growth=0.5)
    more = continuations(operators, snapshots, 10.0)
    seen = np.concatenate([each.z for each in snapshots])
    width = np.ptp(seen, axis=0)
    made = np.concatenate([each.z for each in more])
    assert 0 < len(made) < len(seen)
    assert (made >= seen.min(axis=0) - 0.1 * width).all()
    assert (made <= seen.max(axis=0) + 0.1 * width).all()


def test_pretraining_learns_from_the_samples_that_were_added():
    random = np.random.default_rng(0)
    times, matrix = np.arange(9) * WIDTH, random.normal(size=(4, 2))
    paths = [circle(-0.1, phase, times) for phase in random.uniform(0, 6, 12)]
    states = np.stack(
        [p @ matrix.T + 0.3 * np.concatenate([p, p**2], axis=1) for p in paths]
    )
    dataset = sp.check_arrays({"states": states, "times": times})
    spec = SurrogateSpec(
        latent=2,
        autoencoder=PODSpec(modes=4, width=8),
        nonlinear=QuadraticSpec(width=8),
        integrator="krogstad",
        steps=UniformStepsSpec(step=WIDTH),
    )

    def pretrained(continued):
        training = TrainingSpec(
            initial=OperatorInferenceSpec(),
            pretraining=PretrainingSpec(
                iterations=20, batch=10_000, continued=continued
            ),
            iterations=0,
            refine=1,
        )
        return sp.fit(dataset, spec, training)

    plain, more = (
        [e["loss"] for e in pretrained(c).history if e["stage"] == "pretrain"]
        for c in (0.0, 2.0)
    )
    assert plain[-1] != more[-1]
    assert more[-1] < more[1]
