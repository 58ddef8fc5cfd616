"""Going on from a surrogate: what is kept, that it is never worse, what is refused."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest

from spnode_core.dataset import check_arrays
from spnode_core.errors import InvalidInput
from spnode_core.spec import (
    NoAutoencoderSpec,
    OperatorInferenceSpec,
    PolynomialSpec,
    PretrainingSpec,
    RelaxationSpec,
    ResidualSpec,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.training.fit import Stopped, fit

SMALL = SurrogateSpec(
    latent=3,
    nonlinear=RelaxationSpec(width=6, depth=1),
    autoencoder=ResidualSpec(width=6, depth=1),
    normalisation={"x1": "linear", "x2": "linear"},
)
BRIEF = TrainingSpec(iterations=800, batch=16, refine=1, later_starts=1)
# Steps so long that no iteration is of use.
WILD = TrainingSpec(
    iterations=20, batch=16, refine=1, optimiser="adam", learning_rate=50.0
)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(tmp_path_factory):
    """Equal programs are compiled once."""
    defaults = {
        "jax_compilation_cache_dir": (str(tmp_path_factory.mktemp("compiled")), None),
        "jax_persistent_cache_min_compile_time_secs": (0.0, 1.0),
    }
    for name, (here, _) in defaults.items():
        jax.config.update(name, here)
    yield
    for name, (_, elsewhere) in defaults.items():
        jax.config.update(name, elsewhere)


def decay(trajectories=24, *, rate=1.0, end=2.0, seed=0, **more):
    """Two decaying states, one of which feeds the other; exact."""
    random = np.random.default_rng(seed)
    times = np.arange(0.0, end * 1.01, 1 / 3)
    a, b = random.uniform(0.2, 1.0, (2, trajectories, 1))
    fast, slow = np.exp(-4 * times), np.exp(-rate * times)
    fed = 4 * a / (4 * (4 - rate)) * (slow - fast)
    states = np.stack([a * fast, b * slow + fed], axis=-1)
    return check_arrays({"states": states, "times": times, **more})


@pytest.fixture(scope="module")
def base():
    return fit(decay(), SMALL, BRIEF, seed=3).surrogate


@pytest.fixture(scope="module")
def tuned(base):
    """The same system with another rate, and trajectories longer than before."""
    data = decay(30, rate=1.5, end=4.0, seed=5)
    return fit(data, None, BRIEF, seed=1, warm_start=base)


def trained(surrogate):
    parts = eqx.filter((surrogate.autoencoder, surrogate.dynamics), eqx.is_array)
    return jax.tree.leaves(parts)


def assert_same(left, right):
    for one, other in zip(trained(left), trained(right), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fine_tuning_keeps_the_description_and_follows_the_new_data(base, tuned):
    surrogate = tuned.surrogate
    assert surrogate.spec.model_dump() == base.spec.model_dump()
    for one, other in zip(
        jax.tree.leaves(base.normaliser),
        jax.tree.leaves(surrogate.normaliser),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert base.signature.domain.end == pytest.approx(2.0)
    assert surrogate.signature.domain.end == pytest.approx(4.0)
    assert np.isfinite(surrogate.rollout([0.5, 0.5], [0.5, 4.0])).all()
    assert "candidate" not in {choice["what"] for choice in tuned.report["choices"]}


def test_the_report_compares_both_on_the_same_held_out_trajectories(tuned):
    report = json.loads(json.dumps(tuned.report, allow_nan=False))
    warm = report["warm_start"]
    found = warm["comparison"]
    assert (warm["kept"], warm["part"]) == (False, "test")
    assert found["trajectories"] == report["split_sizes"]["test"] == 3
    old, new = (found["surrogates"][name] for name in ("reference", "fine_tuned"))
    # Measured 0.33 and 0.0023: a rate changed by half.
    assert new["error"] < 0.1 * old["error"]
    assert set(new["states"]) == set(new["mid_trajectory"]["states"]) == {"x1", "x2"}
    assert set(found["baselines"]) >= {"constant", "linear_dmd"}
    paired = found["paired"]["fine_tuned"]
    assert (paired["better"], paired["is_worse"]) == (3, False)
    assert "better on 3 of 3 trajectories" in paired["verdict"]


@pytest.mark.parametrize("horizon", [(), (2, 4)])
def test_where_nothing_is_gained_the_start_is_kept_and_said_so(base, horizon):
    training = WILD.replaced(horizon=horizon)
    run = fit(decay(30, rate=1.5, seed=5), None, training, warm_start=base)
    assert_same(run.surrogate, base)
    assert run.report["warm_start"]["kept"] is True
    (said,) = run.report["warm_start"]["warnings"]
    assert "did not improve" in said
    assert said in run.report["metrics"]["test"]["warnings"]
    assert said in run.report["warnings"]


def test_without_held_out_trajectories_nothing_is_compared(base):
    split = SplitSpec(validation=0, test=0)
    run = fit(decay(), None, WILD, split=split, warm_start=base)
    assert run.report["warm_start"]["comparison"] is None


def test_a_stopped_run_goes_on_bit_for_bit(base, tmp_path):
    data, path = decay(30, rate=1.5, seed=5), tmp_path / "run.ckpt"
    whole = fit(data, None, BRIEF, warm_start=base)
    asked = iter(range(100))
    with pytest.raises(Stopped):
        fit(
            data,
            None,
            BRIEF,
            warm_start=base,
            checkpoint=path,
            should_stop=lambda: "enough" if next(asked) > 1 else None,
        )
    again = fit(data, None, BRIEF, warm_start=base, checkpoint=path)
    assert_same(again.surrogate, whole.surrogate)
    assert again.history == whole.history


def test_a_checkpoint_of_another_start_is_refused(base, tuned, tmp_path):
    data, path = decay(30, rate=1.5, seed=5), tmp_path / "run.ckpt"
    fit(data, None, WILD, warm_start=base, checkpoint=path)
    with pytest.raises(InvalidInput, match="a run with another warm_start"):
        fit(data, None, WILD, warm_start=tuned.surrogate, checkpoint=path)


def test_a_polynomial_is_fitted_again_from_its_own_coefficients():
    spec = SurrogateSpec(
        autoencoder=NoAutoencoderSpec(),
        nonlinear=PolynomialSpec(degree=2),
        integrator="rodas4",
        normalisation={"x1": "max", "x2": "max"},
    )
    first = TrainingSpec(
        initial=OperatorInferenceSpec(), iterations=0, refine=1, loss="uniform"
    )
    base = fit(decay(12), spec, first).surrogate
    told = []
    run = fit(
        decay(12, rate=1.5, seed=5),
        warm_start=base,
        on_progress=lambda progress: told.append(progress.message),
    )
    assert not any("least squares" in each for each in told)
    found = run.report["warm_start"]["comparison"]["surrogates"]
    # What is left is the error of its steps, a third of the slow time scale long.
    assert found["fine_tuned"]["error"] < 3e-3 < 0.1 < found["reference"]["error"]
    assert "- 1.5 x2" in run.report["equations"][1]


@pytest.mark.parametrize(
    ("data", "asked", "field"),
    [
        (decay(names=np.array(["a", "b"])), {}, "dataset.states"),
        (
            decay(parameters=np.ones((24, 1)), parameter_names=np.array(["k"])),
            {},
            "dataset.parameters",
        ),
        (decay(), {"surrogate": SurrogateSpec(latent=4)}, "surrogate.latent"),
        (
            decay(),
            {"surrogate": SurrogateSpec(nonlinear=RelaxationSpec(width=7))},
            "surrogate.nonlinear.width",
        ),
        (decay(), {"preset": "smooth"}, "preset"),
        (
            decay(),
            {"training": TrainingSpec(initial=OperatorInferenceSpec())},
            "training.initial",
        ),
        (
            decay(),
            {"training": TrainingSpec(pretraining=PretrainingSpec())},
            "training.pretraining",
        ),
        (decay(), {"training": TrainingSpec(iterations=0)}, "training.iterations"),
        (decay(), {"certified": True}, "certified"),
    ],
)
def test_what_contradicts_the_start_is_refused_with_its_field(base, data, asked, field):
    with pytest.raises(InvalidInput) as caught:
        fit(data, warm_start=base, **asked)
    assert caught.value.field == field


def test_what_the_start_has_already_may_be_said_again(base):
    run = fit(decay(), SMALL, WILD, warm_start=base)
    assert run.surrogate.spec.latent == 3


def test_only_a_surrogate_can_be_gone_on_from():
    with pytest.raises(InvalidInput, match="warm_start"):
        fit(decay(), warm_start="mine.spnode")  # type: ignore[arg-type]
