"""Fitting: it learns, it repeats its bits, it stops when asked, it says what it did."""

import io
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core import systems
from spnode_core.dataset import check_arrays
from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.spec import (
    MLPSpec,
    RelaxationSpec,
    ResidualSpec,
    SplitSpec,
    StopSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.training import stages
from spnode_core.training.fit import Stopped, fit
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.presets import resolve

SMALL = SurrogateSpec(
    latent=3,
    nonlinear=RelaxationSpec(width=6, depth=1),
    autoencoder=ResidualSpec(width=6, depth=1),
)
BRIEF = TrainingSpec(
    iterations=30,
    batch=8,
    optimiser="adam",
    polish="lbfgs",
    polish_iterations=10,
    loss="uniform",
)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(tmp_path_factory):
    """Equal programs are compiled once."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    defaults = {
        "jax_compilation_cache_dir": (folder, None),
        "jax_persistent_cache_min_compile_time_secs": (0.0, 1.0),
    }
    for name, (here, _) in defaults.items():
        jax.config.update(name, here)
    yield
    for name, (_, elsewhere) in defaults.items():
        jax.config.update(name, elsewhere)


def decay(trajectories=24, **more):
    """Two decaying states, one of which feeds the other; exact."""
    random = np.random.default_rng(0)
    times = np.linspace(0.0, 2.0, 7)
    a, b = random.uniform(0.2, 1.0, (2, trajectories, 1))
    fast, slow = np.exp(-4 * times), np.exp(-times)
    states = np.stack([a * fast, b * slow + a / 3 * (slow - fast)], axis=-1)
    return check_arrays({"states": states, "times": times, **more})


def leaves(run):
    return [
        np.asarray(x) for x in jax.tree.leaves(eqx.filter(run.surrogate, eqx.is_array))
    ]


def assert_same_bits(one, other):
    for left, right in zip(leaves(one), leaves(other), strict=True):
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()


@pytest.fixture(scope="module")
def plain_run():
    return fit(decay(), SMALL, BRIEF, seed=3)


def test_muon_and_polish_learn_a_linear_system():
    training = TrainingSpec(
        iterations=400, batch=16, polish="lbfgs", polish_iterations=100
    )
    reports = []
    run = fit(decay(60), SMALL, training, on_progress=reports.append)
    metrics = run.report["metrics"]
    # Measured 4e-5; untrained surrogates start near 0.3.
    assert metrics["test"]["scaled_mse"] < 1e-4
    assert metrics["test"]["refined_scaled_mse"] < 1e-4
    order = ["data", "compile", "optimise", "polish", "evaluate"]
    assert list(dict.fromkeys(r.stage for r in reports)) == order
    assert all(r.remaining_s is None or r.remaining_s >= 0 for r in reports)


def test_report_is_plain_json_and_says_what_was_done(plain_run):
    report = json.loads(json.dumps(plain_run.report, allow_nan=False))
    assert report["outcome"] == "all iterations done"
    assert report["split_sizes"] == {"train": 20, "validation": 2, "test": 2}
    assert report["surrogate"]["steps"]["kind"] == "uniform"
    assert {c["what"] for c in report["choices"]} >= {"surrogate.steps"}
    assert report["certificate"]["invariant_box"]["holds"]
    assert report["seed"] == 3
    assert report["versions"]["jax"] == jax.__version__
    losses = [h["validation_loss"] for h in plain_run.history]
    assert losses[-1] < losses[0]
    assert SurrogateSpec.model_validate(report["surrogate"])


def test_report_compares_with_trivial_models_on_what_was_held_out(plain_run):
    metrics = plain_run.report["metrics"]
    linear = metrics["test"]["baselines"]["linear_dmd"]
    # The logarithm of a state that decays alone is linear in time.
    assert linear["states"]["x1"] < 1e-9
    warned = plain_run.report["warnings"]
    assert warned == metrics["test"]["warnings"]
    assert [w for w in warned if w.startswith("no better than linear dmd on x1")]
    assert metrics["validation"]["baselines"].keys() == {
        "constant",
        "linear_dmd",
        "nearest_trajectory",
    }
    assert "baselines" not in metrics["train"]
    # Two trajectories for validation promise two thirds at most.
    assert plain_run.surrogate.signature.intervals.coverages == (0.5,)
    assert metrics["test"]["intervals"]["largest_coverage"] == pytest.approx(2 / 3)
    kept = plain_run.surrogate.neighbours
    # All samples of 20 trajectories, of which a quarter of 512 starts were there.
    assert kept.points.shape == (3, 20 * 7)
    assert plain_run.surrogate.signature.domain.neighbours == 20 * 7
    restarted = metrics["test"]["mid_trajectory"]
    assert restarted["trajectories"] == 2
    # Briefly trained: errors are large from anywhere.
    assert 0.01 < restarted["normalised_rmse"] < 10


def test_learning_rate_falls_along_a_cosine(plain_run):
    rates = [h["learning_rate"] for h in plain_run.history if h["stage"] == "optimise"]
    first = TrainingSpec().learning_rate
    assert rates[0] == pytest.approx(first)
    assert rates[-1] == pytest.approx(1e-3 * first)
    assert rates == sorted(rates, reverse=True)


def test_scalings_are_never_trained(plain_run):
    dataset = decay()
    train = dataset.split(SplitSpec(), 3)[0]
    fresh = create_surrogate(train, plain_run.surrogate.spec, 3)
    before = jax.tree.leaves(fresh.normaliser)
    after = jax.tree.leaves(plain_run.surrogate.normaliser)
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert not (
        np.asarray(fresh.dynamics.linear.log_rates)
        == np.asarray(plain_run.surrogate.dynamics.linear.log_rates)
    ).all()


def test_chunks_do_not_change_a_bit(plain_run, monkeypatch):
    monkeypatch.setattr(stages, "CHUNK_S", 0.0)
    assert_same_bits(plain_run, fit(decay(), SMALL, BRIEF, seed=3))


def test_interrupted_run_goes_on_to_the_same_bits(plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "CHUNK_S", 0.0)
    path = tmp_path / "run.ckpt"
    seen = []

    def stop_at(stage, iteration):
        def should_stop():
            at = seen[-1]
            return "maintenance" if at == (stage, iteration) else None

        return should_stop

    monkeypatch.setattr("spnode_core.training.progress._SHORTEST_INTERVAL_S", 0.0)

    def watch(p):
        seen.append((p.stage, p.iteration))

    for stage, iteration in (("optimise", 7), ("optimise", 21), ("polish", 3)):
        with pytest.raises(Stopped, match="maintenance"):
            fit(
                decay(),
                SMALL,
                BRIEF,
                seed=3,
                on_progress=watch,
                should_stop=stop_at(stage, iteration),
                checkpoint=path,
            )
    run = fit(decay(), SMALL, BRIEF, seed=3, on_progress=watch, checkpoint=path)
    assert_same_bits(plain_run, run)
    assert run.history == plain_run.history
    # No iteration ran twice.
    assert (
        len(seen) == len(set(seen)) + sum(s in ("data", "compile") for s, _ in seen) - 2
    )
    with pytest.raises(InvalidInput, match="another seed"):
        fit(decay(), SMALL, BRIEF, seed=4, checkpoint=path)
    with pytest.raises(InvalidInput, match="another dataset"):
        fit(decay(25), SMALL, BRIEF, seed=3, checkpoint=path)


def test_run_out_of_time_keeps_its_best_parameters():
    training = BRIEF.model_copy(update={"max_seconds": 0.001, "iterations": 5000})
    run = fit(decay(), SMALL, training, seed=3)
    assert "max_seconds reached in stage 'optimise'" in run.report["outcome"]
    assert run.report["metrics"]["test"]["scaled_mse"] < 1


def test_patience_ends_a_run_that_no_longer_improves():
    training = BRIEF.model_copy(
        update={
            "iterations": 3000,
            "learning_rate": 1e-12,
            "schedule": "constant",
            "stop_when": StopSpec(patience=100),
            "polish": "none",
        }
    )
    run = fit(decay(), SMALL, training, seed=3)
    assert "no better validation loss" in run.report["outcome"]
    assert run.history[-1]["iteration"] < 3000


def test_overflowing_model_is_an_error_that_says_what_to_change():
    wild = SMALL.model_copy(
        update={"nonlinear": MLPSpec(width=6, depth=1, initial_scale=1e38)}
    )
    training = BRIEF.model_copy(update={"iterations": 100})
    with pytest.raises(TrainingError, match=r"not finite in \d+ iterations.*clip"):
        fit(decay(), wild, training)


def test_ragged_missing_parameters_and_controls_train_together():
    random = np.random.default_rng(1)
    batch, samples = 12, 6
    rate = random.uniform(0.5, 2.0, (batch, 1))
    control = random.uniform(-1, 1, (batch, samples, 1))
    times = np.linspace(0, 1.5, samples)
    states = np.empty((batch, samples, 1))
    states[:, 0, 0] = random.uniform(0.5, 1, batch)
    for k in range(samples - 1):
        fade = np.exp(-rate[:, 0] * (times[k + 1] - times[k]))
        rest = control[:, k, 0] / rate[:, 0]
        states[:, k + 1, 0] = fade * states[:, k, 0] + (1 - fade) * rest
    mask = np.ones((batch, samples), bool)
    mask[0, 3] = False
    dataset = check_arrays(
        {
            "states": states,
            "times": times,
            "parameters": rate,
            "controls": control,
            "mask": mask,
            "lengths": np.array([6] * 10 + [4, 5]),
        }
    )
    training = TrainingSpec(iterations=150, optimiser="adam", polish="none")
    run = fit(dataset, SMALL, training)
    history = run.history
    assert history[-1]["validation_loss"] < 0.1 * history[0]["validation_loss"]
    assert run.surrogate.signature.controls == ("u1",)
    assert run.surrogate.signature.parameters == ("p1",)


@pytest.mark.slow
def test_robertson_is_learned_to_a_scaled_error_of_a_thousandth():
    dataset = systems.generate("robertson", 400, seed=0)
    training = TrainingSpec(
        iterations=3000, batch=32, polish="lbfgs", polish_iterations=100
    )
    run = fit(dataset, SurrogateSpec(latent=8), training)
    metrics = run.report["metrics"]["test"]
    # Measured 2.0e-7 with 1000 trajectories; the paper's best is 2.01e-4.
    assert metrics["scaled_mse"] < 1e-6
    assert metrics["refined_scaled_mse"] < 1e-6


def test_too_small_dataset_is_refused_before_anything_runs():
    with pytest.raises(InvalidInput, match="split"):
        fit(decay(2), SMALL, BRIEF)


def test_sums_that_never_change_are_no_signal_blown_up():
    states = np.random.default_rng(0).uniform(0, 0.5, (4, 6, 2))
    states = np.append(states, 1 - states.sum(axis=2, keepdims=True), axis=2)
    states *= 1 + 1e-7 * np.random.default_rng(1).normal(size=(4, 6, 1))
    dataset = check_arrays({"states": states, "times": np.arange(6.0)})
    spec = SurrogateSpec(conserved={"mass": {"x1": 1, "x2": 1, "x3": 1}})
    resolved, _, _ = resolve(dataset, spec)
    sums = create_surrogate(dataset, resolved, 0).normaliser.sums
    typed = np.asarray(sums.normalise(jnp.array([1.000001])))
    assert np.abs(typed).max() < 1e-5


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_one_line_on_a_terminal_and_silent_elsewhere(
    monkeypatch, is_terminal
):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    fit(decay(), SMALL, BRIEF, seed=3)
    shown = stream.getvalue()
    if is_terminal:
        assert shown.count("\n") == 1
        assert shown.endswith("evaluating\n")
        assert "validation loss" in shown
    else:
        assert shown == ""


def test_fitting_a_path_says_that_a_dataset_is_wanted():
    with pytest.raises(InvalidInput, match=r"dataset: found str.*load_dataset"):
        fit("trajectories.npz")


def test_one_long_trajectory_is_learned_in_pieces():
    times = np.linspace(0.0, 20.0, 201)
    swing = np.stack([np.cos(times), np.sin(times)], axis=1)
    states = np.exp(-0.05 * times)[:, None] * swing
    data = check_arrays({"states": states[None], "times": times})
    run = fit(data, split=SplitSpec(pieces=10), on_progress=lambda _: None)
    assert run.report["split_sizes"] == {"train": 8, "validation": 1, "test": 1}
    assert any("cut into 10 pieces" in each for each in run.report["warnings"])
    rolled = run.surrogate.rollout(states[:1], times)
    np.testing.assert_allclose(rolled[0], states, atol=1e-4)
