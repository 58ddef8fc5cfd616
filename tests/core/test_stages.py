"""The stages of a run: inference, pretraining, windows, noise, consistency."""

import numpy as np
import pytest

import spnode_core as sp
from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.spec import (
    LipschitzSpec,
    ModalSpec,
    OperatorInferenceSpec,
    PODSpec,
    PretrainingSpec,
    QuadraticSpec,
    RatesSpec,
    RelaxationSpec,
    SurrogateSpec,
    TrainingSpec,
    UniformStepsSpec,
)

RATES = RatesSpec(minimum=0.1, maximum=10.0)


def oscillators(count=16, samples=13, seed=0, curved=0.0):
    """Damped oscillators seen through four states, on equal times."""
    random = np.random.default_rng(seed)
    times = np.arange(samples) * 0.2
    matrix = random.normal(size=(4, 2))
    states = []
    for _ in range(count):
        size, phase = random.uniform(0.5, 1.0), random.uniform(0, 6)
        angle = 2 * times + phase
        decay = size * np.exp(-0.3 * times)
        pair = (decay * np.stack([np.cos(angle), np.sin(angle)])).T
        bent = np.concatenate([pair, pair**2], axis=1)
        states.append(pair @ matrix.T + curved * bent)
    return sp.check_arrays({"states": np.stack(states), "times": times})


def relaxation(**fields):
    return SurrogateSpec(
        latent=4,
        linear=ModalSpec(rates=RATES),
        nonlinear=RelaxationSpec(width=8),
        steps=UniformStepsSpec(step=0.2),
        **fields,
    )


def quick(**fields):
    defaults = {
        "iterations": 12,
        "batch": 8,
        "polish": "none",
        "refine": 1,
        "loss": "uniform",
    }
    return TrainingSpec(**{**defaults, **fields})


def leaves(run):
    import equinox as eqx
    import jax

    return jax.tree.leaves(eqx.filter(run.surrogate, eqx.is_array))


def same(one, two):
    return all(
        np.array_equal(a, b) for a, b in zip(leaves(one), leaves(two), strict=True)
    )


# --- Windows -----------------------------------------------------------------------


def test_windows_begin_at_every_sample_that_has_enough_behind_it():
    dataset = oscillators(count=3, samples=7)
    windows = dataset.windows(2, 1000, seed=0)
    assert windows.states.shape == (15, 3, 4)
    np.testing.assert_array_equal(windows.states[6], dataset.states[1, 1:4])
    np.testing.assert_allclose(windows.elapsed[6], [0.0, 0.2, 0.4])


def test_windows_keep_to_the_length_and_the_gaps_of_a_trajectory():
    states = np.ones((2, 6, 1)) * np.arange(6)[:, None]
    mask = np.ones((2, 6), bool)
    mask[0, 4:] = False
    mask[1, 2] = False
    states = np.where(mask[:, :, None], states, np.nan)
    dataset = sp.check_arrays({"states": states, "times": np.arange(6.0), "mask": mask})
    windows = dataset.windows(2, 1000, seed=0)
    starts = windows.states[:, 0, 0].tolist()
    assert starts == [0.0, 1.0, 0.0, 1.0, 3.0]
    assert not windows.mask[2, 2, 0]


def test_more_windows_than_wanted_are_chosen_by_the_seed():
    dataset = oscillators()
    one, two = (dataset.windows(3, 20, seed=s) for s in (0, 0))
    assert one.trajectories == 20
    np.testing.assert_array_equal(one.states, two.states)
    assert not np.array_equal(one.states, dataset.windows(3, 20, seed=1).states)


def test_a_horizon_beyond_the_data_names_the_longest():
    with pytest.raises(InvalidInput, match=r"training.horizon.*13 samples.*at most 12"):
        sp.fit(oscillators(), relaxation(), quick(horizon=(13,)))


CURRICULUM = quick(horizon=(1, 4), polish="lbfgs", polish_iterations=5)


@pytest.fixture(scope="module")
def curriculum():
    return sp.fit(oscillators(), relaxation(), CURRICULUM)


def test_a_curriculum_trains_a_stage_for_each_horizon_on_one_schedule(curriculum):
    descents = [e for e in curriculum.history if e["stage"] == "optimise"]
    rates = [entry["learning_rate"] for entry in descents]
    ends = [entry["iteration"] for entry in descents]
    assert [k for k in range(1, len(ends)) if ends[k] == 0] == [7]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-3 * CURRICULUM.learning_rate)


def test_an_interrupted_curriculum_goes_on_to_the_same_bits(curriculum, tmp_path):
    path, asked = tmp_path / "checkpoint", iter(range(1000))
    with pytest.raises(sp.Stopped):
        sp.fit(
            oscillators(),
            relaxation(),
            CURRICULUM,
            checkpoint=path,
            should_stop=lambda: "stop" if next(asked) == 8 else None,
        )
    resumed = sp.fit(oscillators(), relaxation(), CURRICULUM, checkpoint=path)
    assert same(curriculum, resumed)
    assert len(curriculum.history) == len(resumed.history)


# --- Noise and consistency ---------------------------------------------------------


def test_noise_moves_the_starts_by_its_standard_deviation():
    from jax import random

    from spnode_core.samples import build_problem
    from spnode_core.training.initialise import create_surrogate
    from spnode_core.training.objectives import RolloutObjective
    from spnode_core.training.presets import resolve

    dataset, training = oscillators(count=200), quick(noise=0.1, batch=1000)
    spec, training, _ = resolve(dataset, relaxation(), training)
    surrogate = create_surrogate(dataset, spec, seed=0)
    problem = build_problem(dataset, surrogate, loss="uniform", refine=1)
    scaling = surrogate.normaliser.states
    objective = RolloutObjective(problem, problem, training, scaling)
    drawn = [objective.batch(objective.data, random.key(k)).problem for k in (0, 0, 1)]
    before, scale = np.asarray(problem.samples.x0), np.asarray(scaling.scale)
    moved = [(np.asarray(d.samples.x0) - before) / scale for d in drawn]
    assert moved[0].std() == pytest.approx(0.1, rel=0.1)
    assert np.array_equal(moved[0], moved[1])
    assert not np.array_equal(moved[0], moved[2])
    assert np.array_equal(drawn[0].samples.target, problem.samples.target)


def test_consistency_ties_rollouts_to_the_encoder():
    def gap(consistency):
        training = quick(
            iterations=150,
            learning_rate=0.02,
            horizon=(3,),
            consistency=consistency,
        )
        run = sp.fit(oscillators(), relaxation(), training)
        import jax
        import jax.numpy as jnp

        from spnode_core.rollout import rollout

        surrogate, x = run.surrogate, jnp.asarray(oscillators(seed=9).states)
        plan = surrogate.grid.plan([0.6])
        z = rollout(surrogate, x[:, 0], plan, latent=True)[:, 0]
        none = jnp.zeros(0)
        encoded = jax.vmap(lambda v: surrogate.encode(v, none))(x[:, 3])
        return float(jnp.mean((z - encoded) ** 2))

    assert gap(1.0) < gap(0.0) / 2


# --- Operator inference and pretraining --------------------------------------------


def test_operator_inference_alone_learns_a_linear_oscillator():
    spec = SurrogateSpec(latent=2)
    run = sp.fit(oscillators(), spec, preset="smooth")
    assert run.report["metrics"]["test"]["scaled_mse"] < 1e-8
    assert len(run.report["inference"]["residuals"]) == 4
    assert run.surrogate.spec.integrator == "krogstad"
    chosen = {choice["what"] for choice in run.report["choices"]}
    assert {"surrogate.autoencoder", "training.initial", "surrogate.steps"} <= chosen


def manifold_spec():
    return SurrogateSpec(
        latent=2,
        linear=ModalSpec(shift=0.1, rates=RATES),
        nonlinear=QuadraticSpec(width=8),
        autoencoder=PODSpec(modes=4, width=8),
        integrator="krogstad",
        steps=UniformStepsSpec(step=0.2),
    )


def test_pretraining_lowers_its_loss_and_hands_over_to_rollouts(tmp_path):
    training = quick(
        pretraining=PretrainingSpec(iterations=300, batch=64),
        manifold=0.3,
        horizon=(2,),
    )
    dataset, spec = oscillators(curved=0.4), manifold_spec()
    run = sp.fit(dataset, spec, training)
    first = [e["validation_loss"] for e in run.history if e["stage"] == "pretrain"]
    assert first[-1] < first[0] / 4
    assert [e["stage"] for e in run.history][-1] == "optimise"
    asked, path = iter(range(1000)), tmp_path / "checkpoint"
    stop = lambda: "stop" if next(asked) == 20 else None  # noqa: E731
    with pytest.raises(sp.Stopped):
        sp.fit(dataset, spec, training, checkpoint=path, should_stop=stop)
    assert same(run, sp.fit(dataset, spec, training, checkpoint=path))


@pytest.mark.parametrize(
    ("surrogate", "training", "message"),
    [
        (
            relaxation(),
            quick(initial=OperatorInferenceSpec()),
            r"training.initial.*'relaxation'.*'polynomial', or 'quadratic'",
        ),
        (
            manifold_spec().model_copy(
                update={"nonlinear": QuadraticSpec(energy_preserving=True)}
            ),
            quick(initial=OperatorInferenceSpec()),
            r"training.initial.*not energy_preserving",
        ),
        (
            relaxation(),
            quick(pretraining=PretrainingSpec()),
            r"training.pretraining.*'residual'.*kind 'pod' with a width",
        ),
        (
            relaxation(),
            quick(manifold=0.3),
            r"training.manifold.*'residual'",
        ),
    ],
)
def test_stages_without_their_parts_are_refused_before_anything_is_done(
    surrogate, training, message
):
    with pytest.raises(InvalidInput, match=message):
        sp.fit(oscillators(), surrogate, training)


def test_a_model_that_blows_up_beyond_its_horizon_is_no_result():
    spec = SurrogateSpec(
        latent=4,
        linear=ModalSpec(shift=40.0, rates=RATES),
        nonlinear=LipschitzSpec(width=4, bound=0.1),
        steps=UniformStepsSpec(step=0.2),
    )
    dataset = oscillators(samples=200)
    with pytest.raises(TrainingError, match="leave the finite range"):
        sp.fit(dataset, spec, quick(horizon=(1,), iterations=0))
