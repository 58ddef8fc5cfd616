"""Linear latent dynamics, learned from pairs of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, random_states, small_surrogate

from spnode_core import SurrogateSpec, TrainingSpec, check_arrays, fit, load, save
from spnode_core.errors import InvalidInput
from spnode_core.normaliser import fit_logarithms, logarithm_floor
from spnode_core.rollout import rollout
from spnode_core.spec import NoNonlinearSpec, ResidualSpec
from spnode_core.surrogate import Surrogate
from spnode_core.training.candidates import candidates
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.pairs import PairObjective
from spnode_core.training.presets import resolve

NONE = NoNonlinearSpec()
TIMES = np.append(0.0, np.geomspace(1e-3, 10.0, 30))
SPEC = SurrogateSpec(
    latent=6,
    nonlinear=NONE,
    autoencoder=ResidualSpec(width=24, logarithms=("seed",)),
)
TRAINING = TrainingSpec(
    pairs=True, iterations=1500, batch=256, learning_rate=0.003, refine=1
)


def _outbreaks(rows: int = 24, seed: int = 0, **more) -> dict:
    """``seed`` grows by decades unseen, until it uses ``fuel`` up and all stands still.

    Of the logistic equation, ``s' = r s (1 - s / c)``, with ``fuel = c - s``.
    """
    draw = np.random.default_rng(seed)
    capacity = draw.uniform(0.6, 1.0, rows)[:, None]
    rate = 12.0
    first = 10 ** draw.uniform(-7, -5, rows)[:, None]
    grown = first * np.exp(np.minimum(rate * TIMES, 60.0))
    infected = grown / (1 + grown / capacity)
    states = np.stack([capacity - infected, infected], axis=-1)
    names = np.array(["fuel", "seed"])
    return {"states": states, "times": TIMES, "names": names, **more}


@pytest.fixture(scope="module")
def learned():
    return fit(check_arrays(_outbreaks(80)), SPEC, TRAINING, seed=0)


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
    whole = np.asarray(normalise(jnp.asarray(_outbreaks(40, seed=9)["states"])))
    squares = np.mean((ours - theirs) ** 2, axis=(0, 1))
    return float(np.max(np.sqrt(squares) / whole.std(axis=(0, 1))))


def test_pairs_teach_starts_of_every_age(learned) -> None:
    surrogate, truth = learned.surrogate, _outbreaks(40, seed=9)["states"]
    found = surrogate.rollout(truth[:, 0], TIMES)
    assert _worst(surrogate, found, truth) < 0.05
    # Long before anything is seen of it: only the logarithm tells how far it is.
    assert truth[:, 18, 1].max() < 1e-2
    later = surrogate.rollout(truth[:, 18], TIMES[18:] - TIMES[18])
    assert _worst(surrogate, later, truth[:, 18:]) < 0.05


def test_what_has_come_to_rest_stays(learned) -> None:
    surrogate, truth = learned.surrogate, _outbreaks(40, seed=9)["states"]
    far = surrogate.rollout(truth[:, 0], [100.0, 1e3, 5e3])
    rest = np.repeat(truth[:, -1:], 3, axis=1)
    assert _worst(surrogate, far, rest) < 0.05


def test_only_trajectories_that_rest_are_held_beyond_their_ends() -> None:
    arrays = _outbreaks(4)
    arrays["states"][1] += 0.01 * TIMES[:, None]
    arrays["states"][2, :, 0] += 2e-6 * TIMES
    reach = np.asarray(_objective(arrays).data.reach)
    assert reach[0] == 1000.0
    assert reach[1] == 1.0
    assert 10.0 < reach[2] < 1000.0


def test_pairs_are_samples_of_one_trajectory_in_their_order() -> None:
    arrays = _outbreaks(5)
    arrays["states"][:, :, 0] = np.arange(5)[:, None] * 100 + np.arange(31)
    arrays["states"][:, :, 1] = 1.0
    mask = np.ones((5, 31, 2), bool)
    mask[3, 4:9, 1] = False
    mask[4, 20:] = False
    arrays["mask"] = mask
    objective = _objective(arrays, batch=4000)
    problem = objective.batch(objective.data, jax.random.key(1))
    scaling = objective.surrogate.normaliser.states
    start = np.asarray(problem.samples.x0)[:, 0]
    ends = jax.vmap(scaling.restore)(problem.samples.target[:, 0])
    end = np.asarray(ends)[:, 0].round(6)
    row, first = np.divmod(start, 100)
    np.testing.assert_array_equal(row, end // 100)
    last = end % 100
    assert (last >= first).all()
    steps = np.asarray(problem.plans[0].output_step)[:, 0]
    apart = TIMES[last.astype(int)] - TIMES[first.astype(int)]
    np.testing.assert_allclose(steps, apart, atol=1e-12)
    # No sample with a gap is a start, and what is missing weighs nothing.
    assert not ((row == 3) & (first >= 4) & (first < 9)).any()
    assert last[row == 4].max() == 19
    weight = np.asarray(problem.samples.weight)[:, 0]
    gap = (row == 3) & (last >= 4) & (last < 9)
    assert gap.any()
    assert (weight[gap, 1] == 0).all()
    assert (weight[gap, 0] > 0).all()
    assert 0.3 < (first == 0).mean() < 0.45


class _Objective(PairObjective):
    surrogate: Surrogate


def _objective(arrays: dict, batch: int = 64) -> _Objective:
    dataset = check_arrays(arrays)
    fields = SPEC.replaced(autoencoder=ResidualSpec(), precision="float64")
    training = TrainingSpec(pairs=True, batch=batch, loss="uniform")
    spec, training, _ = resolve(dataset, fields, training)
    surrogate = create_surrogate(dataset, spec, 0)
    found = _Objective(dataset, dataset, surrogate, training, 0)
    found.surrogate = surrogate
    return found


def test_the_same_seed_gives_the_same_bits_and_members_differ() -> None:
    dataset = check_arrays(_outbreaks())
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
    x0 = _outbreaks(3)["states"][:, 0]
    np.testing.assert_array_equal(
        again.rollout(x0, TIMES), learned.surrogate.rollout(x0, TIMES)
    )


def test_it_contracts_and_stays_in_its_box(learned) -> None:
    found = learned.surrogate.certificate()
    for name in ("contraction", "step_contraction", "invariant_box", "lipschitz"):
        assert found[name]["holds"], name
    assert found["lipschitz"]["euclid"] == 0
    box = np.array(list(found["invariant_box"]["states"].values())).T
    x = np.asarray(learned.surrogate.rollout(_outbreaks(9)["states"][:, 0], TIMES))
    assert (x >= box[0]).all()
    assert (x <= box[1]).all()


def test_it_may_be_certified() -> None:
    decays = np.exp(-TIMES * np.linspace(0.5, 2.0, 24)[:, None])[:, :, None]
    dataset = check_arrays({"states": decays, "times": TIMES})
    spec = SPEC.replaced(autoencoder=ResidualSpec())
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
    assert jnp.isfinite(jax.grad(lambda x: scaling.normalise(x)[0])(jnp.zeros(1))).all()


@pytest.mark.parametrize(
    ("surrogate", "training", "field"),
    [
        ({}, {"pairs": True}, "training.pairs"),
        ({"nonlinear": NONE}, {"pairs": True, "horizon": (4,)}, "training.horizon"),
        (
            {"nonlinear": NONE},
            {"pairs": True, "polish": "lbfgs"},
            "training.polish",
        ),
        (
            {"nonlinear": NONE, "autoencoder": ResidualSpec(logarithms=("smoke",))},
            {"pairs": True},
            "surrogate.autoencoder.logarithms",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(surrogate, training, field) -> None:
    with pytest.raises(InvalidInput) as caught:
        fit(
            check_arrays(_outbreaks()),
            SurrogateSpec(**surrogate),
            TrainingSpec(iterations=5, **training),
        )
    assert caught.value.field == field


def test_controls_have_no_way_in() -> None:
    held = np.zeros((24, len(TIMES), 1))
    dataset = check_arrays(_outbreaks(controls=held, control_names=np.array(["valve"])))
    with pytest.raises(InvalidInput, match="which controls do not act on"):
        fit(dataset, SPEC, TRAINING)
    assert all(
        each.spec.nonlinear.kind != "none" for each in candidates(dataset, None, None)
    )


def test_auto_sees_which_states_span_decades() -> None:
    dataset = check_arrays(_outbreaks())
    (found,) = (
        each
        for each in candidates(dataset, None, None)
        if each.spec.nonlinear.kind == "none"
    )
    assert "seed" in found.spec.logarithms
    assert found.training.pairs
    assert not found.may_divide
    limited = TrainingSpec(max_seconds=100.0)
    (short,) = (
        each
        for each in candidates(dataset, None, limited)
        if each.spec.nonlinear.kind == "none"
    )
    assert short.training.iterations == 6000


def test_what_old_workers_do_not_know_is_left_out_unless_asked_for() -> None:
    assert "pairs" not in TrainingSpec().model_dump(mode="json")
    assert "logarithms" not in ResidualSpec().model_dump(mode="json")
    assert TRAINING.model_dump(mode="json")["pairs"] is True


def test_a_plan_of_one_step_needs_no_grid() -> None:
    """The loss of pairs is that of rollouts: the same function, one step each."""
    objective = _objective(_outbreaks(), batch=8)
    problem = objective.batch(objective.data, jax.random.key(2))
    one = rollout(
        objective.surrogate,
        problem.samples.x0,
        problem.plans[0],
        problem.samples.parameters,
    )
    steps = np.asarray(problem.plans[0].output_step)
    for row, x0 in enumerate(problem.samples.x0):
        expected = objective.surrogate.rollout(np.asarray(x0), steps[row])
        np.testing.assert_allclose(one[row], expected, atol=1e-12)
