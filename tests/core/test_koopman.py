"""Linear latent dynamics, and what their encoder sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, random_states, small_surrogate
from outbreaks import NONE, SPEC, TIMES, TRAINING, outbreaks

from spnode_core import SurrogateSpec, TrainingSpec, check_arrays, fit, load, save
from spnode_core.errors import InvalidInput
from spnode_core.normaliser import fit_logarithms, logarithm_floor
from spnode_core.spec import (
    ResidualSpec,
)
from spnode_core.surrogate import Surrogate
from spnode_core.training.candidates import candidates
from spnode_core.training.fit import plan
from spnode_core.training.presets import resolve
from spnode_core.training.warm_start import warm_candidate


@pytest.fixture(scope="module")
def learned():
    return fit(check_arrays(outbreaks(80)), SPEC, TRAINING, seed=0)


def test_a_rollout_is_one_step_of_any_length() -> None:
    surrogate = small_surrogate(nonlinear=NONE)
    x0 = random_states(3)
    times = np.append(GRID, [0.037, 2.0, 5e3])
    times.sort()
    found = surrogate.rollout(x0, times)
    rates = surrogate.dynamics.linear.rates()
    for row, x in enumerate(x0):
        z = surrogate.encode(jnp.asarray(x), jnp.zeros(0))
        later = np.exp(-times[:, None] * np.asarray(rates)) * np.asarray(z)
        sums, none = surrogate.conserved_sums(jnp.asarray(x)), jnp.zeros(0)
        expected = jax.vmap(surrogate.decode, (0, None, None))(later, sums, none)
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-12)


def _worst(surrogate: Surrogate, found: object, truth: np.ndarray) -> float:
    """RMSE over the spread of the worst state, each in what it was learned in."""
    normalise = jax.vmap(jax.vmap(surrogate.normaliser.states.normalise))
    ours, theirs = (np.asarray(normalise(jnp.asarray(x))) for x in (found, truth))
    whole = np.asarray(normalise(jnp.asarray(outbreaks(40, seed=9)["states"])))
    squares = np.mean((ours - theirs) ** 2, axis=(0, 1))
    return float(np.max(np.sqrt(squares) / whole.std(axis=(0, 1))))


def test_pairs_teach_starts_of_every_age(learned) -> None:
    surrogate, truth = learned.surrogate, outbreaks(40, seed=9)["states"]
    found = surrogate.rollout(truth[:, 0], TIMES)
    assert _worst(surrogate, found, truth) < 0.05
    # Long before anything is seen of it: only the logarithm tells how far it is.
    assert truth[:, 18, 1].max() < 1e-2
    later = surrogate.rollout(truth[:, 18], TIMES[18:] - TIMES[18])
    assert _worst(surrogate, later, truth[:, 18:]) < 0.05


def test_without_its_logarithm_nothing_is_seen_of_what_grows_by_decades(
    learned,
) -> None:
    truth = outbreaks(40, seed=9)["states"]
    blind_spec = SPEC.replaced(autoencoder=ResidualSpec(width=24))
    blind = fit(check_arrays(outbreaks(80)), blind_spec, TRAINING, seed=0).surrogate
    errors = [
        _worst(each, each.rollout(truth[:, 18], TIMES[18:] - TIMES[18]), truth[:, 18:])
        for each in (learned.surrogate, blind)
    ]
    assert errors[1] > 4 * errors[0]


def test_what_has_come_to_rest_stays(learned) -> None:
    surrogate, truth = learned.surrogate, outbreaks(40, seed=9)["states"]
    far = surrogate.rollout(truth[:, 0], [100.0, 1e3, 5e3])
    rest = np.repeat(truth[:, -1:], 3, axis=1)
    assert _worst(surrogate, far, rest) < 0.2


def test_the_same_seed_gives_the_same_bits_and_members_differ() -> None:
    dataset = check_arrays(outbreaks())
    short = TRAINING.replaced(iterations=20)
    first, second = (fit(dataset, SPEC, short, seed=3) for _ in range(2))
    leaves = (jax.tree.leaves(run.surrogate) for run in (first, second))
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    both = fit(dataset, SPEC, short, seed=3, members=2).surrogate
    assert both.signature.members == 2
    weights = jax.tree.leaves(both.dynamics.linear)[0]
    assert (weights[0] != weights[1]).any()


def test_an_artifact_keeps_the_logarithms(learned, tmp_path) -> None:
    path = tmp_path / "model.spnode"
    save(learned.surrogate, path)
    again = load(path)
    assert again.spec.logarithms == ("seed",)
    x0 = outbreaks(3)["states"][:, 0]
    np.testing.assert_array_equal(
        again.rollout(x0, TIMES), learned.surrogate.rollout(x0, TIMES)
    )


def test_it_contracts_and_stays_in_its_box(learned) -> None:
    found = learned.surrogate.certificate()
    for name in ("contraction", "step_contraction", "invariant_box", "lipschitz"):
        assert found[name]["holds"], name
        assert not found[name]["is_vacuous"], name
    assert found["lipschitz"]["euclid"] == 0
    box = np.array(list(found["invariant_box"]["states"].values())).T
    x = np.asarray(learned.surrogate.rollout(outbreaks(9)["states"][:, 0], TIMES))
    assert (x >= box[0]).all()
    assert (x <= box[1]).all()
    assert (box[1] - box[0] < 100 * np.ptp(x, axis=(0, 1))).all()


def test_it_may_be_certified() -> None:
    decays = np.exp(-TIMES * np.linspace(0.5, 2.0, 24)[:, None])[:, :, None]
    dataset = check_arrays({"states": decays, "times": TIMES})
    spec = SurrogateSpec(latent=4, nonlinear=NONE, autoencoder=ResidualSpec())
    (asked,) = plan(
        dataset, SurrogateSpec(nonlinear=NONE), None, "auto", certified=True
    )
    assert asked.training.pairs
    run = fit(dataset, spec, TRAINING.replaced(iterations=20), certified=True)
    assert run.surrogate.spec.nonlinear == NONE


def test_derivatives_agree_with_differences(learned) -> None:
    x0 = jnp.asarray([0.7, 1e-3])

    def end(x):
        return learned.surrogate.rollout(x, [0.3])[0, 0]

    # Of float32 networks, whose differences need steps they can see.
    slope = jax.grad(end)(x0)
    for column, h in enumerate((1e-2, 1e-4)):
        move = jnp.zeros(2).at[column].set(h)
        expected = float(end(x0 + move) - end(x0 - move)) / (2 * h)
        assert float(slope[column]) == pytest.approx(expected, rel=0.05, abs=1e-3)


@pytest.mark.parametrize(
    ("column", "floor"),
    [
        (np.geomspace(1e-9, 1.0, 50), 0.3e-9),
        (np.append(0.0, np.geomspace(1e-9, 1.0, 50)), 0.3e-9),
        (np.append(-1e-12, np.geomspace(1e-9, 1.0, 50)), 0.3e-9),
        (np.append(-1e-6, np.geomspace(1e-9, 1.0, 50)), 1e-5),
        (np.linspace(1.0, 5.0, 50), None),
        (np.append(-0.5, np.geomspace(1e-9, 1.0, 50)), None),
        (np.zeros(50), None),
        (np.full(50, np.nan), None),
    ],
    ids=["positive", "0", "rounding", "noise", "few", "signed", "none", "missing"],
)
def test_a_logarithm_tells_something_from_its_floor_on(column, floor) -> None:
    found = logarithm_floor(column)
    assert found is None if floor is None else found == pytest.approx(floor)


def test_zero_is_told_from_the_least_that_is_there() -> None:
    column = np.append(0.0, np.geomspace(1e-9, 1.0, 50))
    scaling = fit_logarithms(column[:, None])
    values = jax.vmap(scaling.normalise)(jnp.asarray(column[:, None]))[:, 0]
    assert values[0] == -1
    assert values[0] < values[1] < values[2]
    assert values[-1] == 1
    # One that is named though it spans no decades: what matters is not squeezed away.
    near = np.append(0.0, np.linspace(1.0, 5.0, 50))
    scaled = jax.vmap(fit_logarithms(near[:, None]).normalise)(
        jnp.asarray(near[:, None])
    )
    assert np.ptp(scaled[1:]) > 1
    assert jnp.isfinite(jax.grad(lambda x: scaling.normalise(x)[0])(jnp.zeros(1))).all()


def test_a_state_is_named_once() -> None:
    with pytest.raises(ValueError, match="a state is named twice"):
        ResidualSpec(logarithms=("seed", "fuel", "seed"))


def test_what_is_left_open_is_pairs_and_logarithms() -> None:
    arrays = outbreaks()
    arrays["states"][:, 0, 1] = 0.0
    dataset = check_arrays(arrays)
    open_spec = SurrogateSpec(nonlinear=NONE)
    spec, training, choices = resolve(dataset, open_spec)
    assert spec.logarithms == ("fuel", "seed")
    assert (training.pairs, training.batch, training.iterations) == (True, 1024, 30_000)
    assert "surrogate.autoencoder.logarithms" in {each["what"] for each in choices}
    limited = resolve(dataset, open_spec, TrainingSpec(max_seconds=100.0, batch=64))[1]
    assert (limited.iterations, limited.batch) == (7500, 64)
    # What is asked for decides: parts of the loss of rollouts, or the word itself.
    for asked in ({"later_starts": 1}, {"polish": "lbfgs"}, {"pairs": False}):
        assert not resolve(dataset, open_spec, TrainingSpec(**asked))[1].pairs
    assert not resolve(dataset, SurrogateSpec(), None)[1].pairs
    noisy, training, _ = resolve(dataset, open_spec, TrainingSpec(noise=0.01))
    assert training.pairs
    assert noisy.logarithms == ()


def test_a_warm_start_goes_on_with_pairs(learned) -> None:
    candidate = warm_candidate(
        learned.surrogate,
        check_arrays(outbreaks()),
        None,
        None,
        "auto",
        certified=False,
    )
    assert candidate.training.pairs
    assert candidate.training.iterations == 3000


def test_small_values_that_the_encoder_never_saw_are_told(learned) -> None:
    arrays = outbreaks()
    arrays["states"][:, 0, 1] = 1e-12
    run = fit(
        check_arrays(arrays),
        training=TrainingSpec(iterations=2),
        warm_start=learned.surrogate,
    )
    said = " ".join(run.report["warnings"])
    assert "seed goes down to 1e-12, but the encoder" in said


def test_controls_have_no_way_in() -> None:
    held = np.zeros((24, len(TIMES), 1))
    dataset = check_arrays(outbreaks(controls=held, control_names=np.array(["valve"])))
    with pytest.raises(InvalidInput, match="which controls do not act on"):
        fit(dataset, SPEC, TRAINING)
    assert all(
        each.spec.nonlinear.kind != "none" for each in candidates(dataset, None, None)
    )


def test_auto_tries_it_and_divides_no_steps_of_it() -> None:
    dataset = check_arrays(outbreaks())
    (found,) = (
        each
        for each in candidates(dataset, None, None)
        if each.spec.nonlinear.kind == "none"
    )
    # Scaled by its logarithm already, it is not seen twice.
    assert found.spec.normalisation["seed"] == "log"
    assert found.spec.logarithms == ("fuel",)
    assert found.training.pairs
    assert not found.may_divide


def test_what_old_workers_do_not_know_is_left_out_unless_asked_for() -> None:
    assert "pairs" not in TrainingSpec().model_dump(mode="json")
    assert "logarithms" not in ResidualSpec().model_dump(mode="json")
    assert TRAINING.model_dump(mode="json")["pairs"] is True
    # Else a job that declines them would train on them.
    assert TrainingSpec(pairs=False).model_dump(mode="json")["pairs"] is False
