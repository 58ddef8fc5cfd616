"""Presets: what the data decides, that explicit fields win, and the reasons given."""

import numpy as np
import pytest

from spnode_core import systems
from spnode_core.dataset import check_arrays
from spnode_core.errors import InvalidInput
from spnode_core.spec import (
    FixedSpec,
    GridStepsSpec,
    MLPSpec,
    ModalSpec,
    NoAutoencoderSpec,
    RatesSpec,
    SurrogateSpec,
    TrainingSpec,
    UniformStepsSpec,
)
from spnode_core.training.initialise import signature_of
from spnode_core.training.presets import resolve
from spnode_core.training.step_grids import step_grid


@pytest.fixture(scope="module")
def robertson():
    return systems.generate("robertson", 4)


def dataset(states, times, **more):
    return check_arrays({"states": states, "times": times, **more})


def test_robertson_gets_its_own_times_rates_over_its_decades_and_its_mass(robertson):
    spec, training, choices = resolve(robertson)
    assert spec.latent == 8
    assert isinstance(spec.steps, GridStepsSpec)
    assert spec.steps.times == tuple(robertson.times[0])
    assert isinstance(spec.linear, ModalSpec)
    assert spec.linear.rates == RatesSpec(
        minimum=1e-6, maximum=1 / np.diff(robertson.times[0]).min()
    )
    assert spec.conserved == {"mass": {"y1": 1.0, "y2": 1.0, "y3": 1.0}}
    assert set(spec.normalisation.values()) == {"linear"}
    assert training == TrainingSpec()
    assert all(set(c) == {"what", "value", "why"} for c in choices)


def test_resolving_twice_changes_nothing(robertson):
    once = resolve(robertson)
    twice = resolve(robertson, once[0], once[1])
    assert twice[:2] == once[:2]


def test_explicit_fields_always_win(robertson):
    given = SurrogateSpec(
        latent=5,
        linear=ModalSpec(rates=RatesSpec(minimum=1, maximum=2)),
        conserved={},
        steps=UniformStepsSpec(step=3.0),
        normalisation={"y2": "log"},
    )
    for preset in ("auto", "paper"):
        spec, training, _ = resolve(
            robertson, given, TrainingSpec(iterations=7, loss="dt"), preset
        )
        assert (spec.latent, spec.conserved) == (5, {})
        assert spec.linear == given.linear
        assert spec.steps == given.steps
        assert spec.normalisation == {"y1": "linear", "y2": "log", "y3": "linear"}
        assert (training.iterations, training.loss) == (7, "dt")


def test_paper_preset_is_hurwitz_lipschitz_and_adam(robertson):
    spec, training, _ = resolve(robertson, preset="paper")
    assert (spec.linear.kind, spec.nonlinear.kind) == ("hurwitz", "lipschitz")
    assert spec.integrator == "etd1"
    assert (training.optimiser, training.learning_rate) == ("adam", 0.01)
    assert (training.refine, training.polish) == (1, "none")
    assert (training.schedule, training.batch) == ("exponential", 100)
    kept, _, _ = resolve(robertson, SurrogateSpec(nonlinear=MLPSpec()), preset="paper")
    assert kept.nonlinear == MLPSpec()


def test_many_states_get_as_many_latents_as_carry_their_variance():
    random = np.random.default_rng(0)
    basis = random.normal(size=(5, 40))
    states = random.normal(size=(30, 6, 5)) @ basis
    spec, training, _ = resolve(dataset(states, np.arange(6.0)))
    assert spec.latent == 5
    assert training.loss == "uniform"


def test_scaling_follows_the_spread_of_each_state_unless_it_is_in_a_sum():
    random = np.random.default_rng(0)
    wide = 10 ** random.uniform(-9, 0, (20, 5))
    peaked = random.normal(size=(20, 5)) * np.where(
        random.uniform(size=(20, 5)) < 0.05, 1e5, 1.0
    )
    states = np.stack([wide, random.normal(size=(20, 5)), peaked, wide], axis=2)
    data = dataset(
        states,
        np.arange(5.0),
        names=["a", "b", "c", "d"],
        conserved=[[0.0, 1.0, 0.0, 1.0]],
        parameters=10 ** random.uniform(-3, 3, (20, 1)),
    )
    spec, _, _ = resolve(data)
    assert spec.normalisation == {
        "a": "log",
        "b": "linear",
        "c": "asinh",
        "d": "linear",
        "p1": "log",
    }


def test_misfits_between_description_and_data_are_named(robertson):
    for spec, field in (
        (SurrogateSpec(conserved={"m": {"y9": 1.0}}), "surrogate.conserved.m.y9"),
        (SurrogateSpec(normalisation={"q": "log"}), "surrogate.normalisation.q"),
        (
            SurrogateSpec(autoencoder=NoAutoencoderSpec(), latent=7),
            "surrogate.latent",
        ),
    ):
        with pytest.raises(InvalidInput) as caught:
            resolve(robertson, spec)
        assert caught.value.field == field


def test_an_unknown_preset_is_not_taken_for_auto(robertson):
    with pytest.raises(InvalidInput, match=r"preset: found 'fast'; .*auto, paper"):
        resolve(robertson, preset="fast")  # type: ignore[arg-type]


def test_fixed_matrix_sets_the_number_of_latents(robertson):
    given = SurrogateSpec(
        linear=FixedSpec(matrix=((-1.0, 0.0), (0.0, -2.0))), nonlinear=MLPSpec()
    )
    assert resolve(robertson, given)[0].latent == 2


def test_trajectories_on_different_logarithmic_times_get_logarithmic_steps():
    random = np.random.default_rng(0)
    times = np.sort(10 ** random.uniform(-4, 2, (40, 30)), axis=1)
    times[:, 0] = 0.0
    steps, why = step_grid(dataset(np.ones((40, 30, 1)), times))
    assert isinstance(steps, GridStepsSpec)
    ratios = np.array(steps.times[2:]) / np.array(steps.times[1:-1])
    assert np.ptp(ratios) < 1e-9
    assert steps.times[-1] == pytest.approx(times.max())
    assert "logarithmic" in why


def test_trajectories_on_different_uniform_times_get_uniform_steps():
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0, 10, (40, 30)), axis=1)
    steps, _ = step_grid(dataset(np.ones((40, 30, 1)), times))
    assert isinstance(steps, UniformStepsSpec)
    assert 0.05 < steps.step < 0.5


def test_ragged_trajectories_of_one_clock_step_on_that_clock():
    times = np.tile(np.array([0.0, 1, 3, 7, 15]), (6, 1)) + np.arange(6.0)[:, None]
    data = dataset(np.ones((6, 5, 1)), times, lengths=np.array([5, 3, 4, 5, 2, 5]))
    steps, _ = step_grid(data)
    assert isinstance(steps, GridStepsSpec)
    assert steps.times == (0, 1, 3, 7, 15)


def test_padding_behind_the_last_samples_is_no_part_of_rates_or_domain():
    states = np.random.default_rng(0).uniform(1, 2, (2, 4, 2))
    times = np.array([[0.0, 1.0, 2.0, 1e6], [0.0, 1.0, 2.0, 3.0]])
    ragged = dataset(states, times, lengths=np.array([3, 4]))
    spec = resolve(ragged)[0]
    assert isinstance(spec.linear, ModalSpec)
    assert spec.linear.rates == RatesSpec(minimum=0.1 / 3.0, maximum=1.0)
    assert signature_of(ragged, spec).domain.end == 3.0


def test_positivity_of_negative_data_is_refused():
    states = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2))
    with pytest.raises(
        InvalidInput, match=r"surrogate\.positive: found true.*down to -"
    ):
        resolve(dataset(states, np.arange(4.0)), SurrogateSpec(positive=True))


def test_smooth_preset_infers_a_quadratic_operator_on_principal_directions():
    random = np.random.default_rng(0)
    states = random.normal(size=(30, 6, 2)) @ random.normal(size=(2, 40))
    field = dataset(states, np.arange(6.0))
    spec, training, _ = resolve(field, preset="smooth")
    assert (spec.autoencoder.kind, spec.autoencoder.modes, spec.latent) == ("pod", 2, 2)
    assert (spec.nonlinear.kind, spec.integrator) == ("quadratic", "krogstad")
    assert spec.steps == UniformStepsSpec(step=0.25)
    assert training.initial is not None
    assert (training.iterations, training.polish) == (0, "none")
    given = SurrogateSpec(steps=UniformStepsSpec(step=0.5))
    kept, _, _ = resolve(field, given, preset="smooth")
    assert kept.steps == given.steps


def test_smooth_preset_refuses_what_no_principal_direction_keeps(robertson):
    with pytest.raises(InvalidInput, match=r"preset.*positive states.*'auto'"):
        resolve(robertson, SurrogateSpec(positive=True), preset="smooth")


def test_declared_sums_hold_beside_those_that_are_asked_for():
    rng = np.random.default_rng(0)
    states = rng.uniform(0.1, 1.0, (4, 6, 4))
    states[:, :, 3] = 3.0 - states[:, :, :3].sum(axis=2)
    states[:, 1:] = states[:, :1]
    declared = {
        "conserved": np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]),
        "conserved_names": np.array(["all", "pair"]),
    }
    data = dataset(states, np.arange(6.0), **declared)
    first, pair = {"x1": 1.0, "x3": 1.0}, {"x1": 1.0, "x2": 1.0}
    every = dict.fromkeys(("x1", "x2", "x3", "x4"), 1.0)

    def kept(**fields):
        return resolve(data, SurrogateSpec(**fields))[0].conserved

    assert kept() == {"all": every, "pair": pair}
    assert kept(conserved={"own": first}) == {"own": first, "all": every, "pair": pair}
    # What follows from others is held already, and none is none.
    rest = {"x3": 1.0, "x4": 1.0}
    assert kept(conserved={"rest": rest}) == {"rest": rest, "all": every}
    assert kept(conserved={}) == {}
    assert kept(conserved={"own": first}, positive=True) == {"own": first}
