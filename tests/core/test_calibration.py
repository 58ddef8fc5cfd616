"""Calibration of untrained surrogates: what made the observations is known."""

import dataclasses
import threading

import numpy as np
import pytest

from spnode_core.calibration.calibrate import _grouped, _unfinished, calibrate
from spnode_core.calibration.together import Optimum, search
from spnode_core.errors import InvalidInput
from tests.core.models import MASS, random_states, small_surrogate

LINEAR = dict.fromkeys(("a", "b", "c", "p0", "p1", "p2", "u0"), "linear")
TIMES = np.array([0.01, 0.3, 2.0, 20.0, 500.0])
NOISE = np.array([1e-3, 1e-3])
BOUNDS = {"lower": 0.5, "upper": 2.0}
UNKNOWNS = {"parameters": {f"p{i}": BOUNDS for i in range(3)}}
TRUTH = np.array([0.8, 1.2, 1.5])
X0 = random_states(1)[0]


def names(*kept):
    return {name: LINEAR[name] for name in ("a", "b", "c", *kept)}


@pytest.fixture(scope="module")
def family():
    """A model with three parameters."""
    return small_surrogate(parameters=3, normalisation=names("p0", "p1", "p2"))


def observed(surrogate, parameters, noise=NOISE, seed=0, times=TIMES):
    """Two of the three states, with noise."""
    x = np.asarray(surrogate.rollout(X0, times, parameters=parameters))[:, [0, 2]]
    return x + noise * np.random.default_rng(seed).normal(size=x.shape)


def find(surrogate, y, unknowns=UNKNOWNS, **options):
    given = {"states": ["a", "c"], "noise": NOISE, "x0": X0, "starts": 8, **options}
    return calibrate(surrogate, given.pop("times", TIMES), y, unknowns, **given)


def covers(intervals, truth):
    return [
        low <= value <= high
        for (low, high), value in zip(intervals, truth, strict=True)
    ]


def test_intervals_hold_three_parameters_in_90_of_100_seeded_cases(family):
    alone, at_once = np.zeros(3), 0
    for seed in range(100):
        truth = np.random.default_rng([seed, 1]).uniform(0.6, 1.9, 3)
        y = observed(family, truth, seed=seed)
        found = find(family, y, seed=seed, starts=4)
        alone += covers([each.interval for each in found.estimates], truth)
        at_once += all(covers([e.simultaneous for e in found.estimates], truth))
    assert at_once >= 90
    # 95 are expected; fewer than 88 have a probability of 0.4 %.
    assert alone.min() >= 88


def test_equal_seeds_give_equal_bits_and_all_starts_are_told_of(family):
    y = observed(family, TRUTH)
    first, second = (find(family, y, seed=3) for _ in range(2))
    assert first.as_record()["estimates"] == second.as_record()["estimates"]
    assert sum(optimum.starts for optimum in first.optima) == first.converged == 8
    costs = [optimum.cost for optimum in first.optima]
    assert costs == sorted(costs)
    np.testing.assert_allclose(
        np.diag(first.covariance),
        [each.standard_error**2 for each in first.estimates],
    )
    np.testing.assert_allclose(np.diag(first.correlation), 1.0)


def test_residuals_are_those_of_the_predicted_trajectory(family):
    y = observed(family, TRUTH)
    y[2, 0] = np.nan
    found = find(family, y, model_error=[2e-3, 0.0])
    values = [each.value for each in found.estimates]
    x = np.asarray(family.rollout(X0, TIMES, parameters=values))[:, [0, 2]]
    np.testing.assert_allclose(found.predicted, x, rtol=1e-9)
    sd = np.hypot(NOISE, [2e-3 * np.sqrt(4), 0.0])
    np.testing.assert_allclose(found.residuals, (y - x) / sd, rtol=1e-6, atol=1e-9)
    assert found.misfit.observations == 9
    assert found.misfit.chi_squared == pytest.approx(np.nansum(found.residuals**2))
    assert found.misfit.reduced == pytest.approx(found.misfit.chi_squared / 6)


def test_no_number_of_observations_outdoes_the_models_own_error(family):
    errors = []
    for count in (5, 500):
        times = np.repeat(TIMES, count // 5)
        y = observed(family, TRUTH, times=times)
        found = find(family, y, times=times, noise=NOISE / 10, model_error=NOISE)
        errors.append([each.standard_error for each in found.estimates])
    np.testing.assert_allclose(errors[0], errors[1], rtol=0.02)


def test_unknown_noise_is_estimated(family):
    times = np.geomspace(0.01, 500, 40)
    y = observed(family, TRUTH, 1e-3 * np.array([1.0, 1.1]), times=times)
    found = find(family, y, noise=None, times=times)
    # 77 degrees of freedom: 8 % standard deviation.
    assert found.noise["a"] == pytest.approx(1e-3, rel=0.3)
    assert found.noise["c"] == pytest.approx(1.1e-3, rel=0.3)
    assert all(covers([each.simultaneous for each in found.estimates], TRUTH))
    assert np.isnan(found.misfit.p_value)


def test_initial_states_are_found():
    surrogate = small_surrogate(conserved=MASS, normalisation=names())
    y = np.asarray(surrogate.rollout(X0, TIMES))
    unknowns = {"x0": {"a": {"lower": 0, "upper": 1}, "c": {"lower": 0, "upper": 1.1}}}
    found = calibrate(
        surrogate, TIMES, y, unknowns, noise=[1e-4, 1e-8, 1e-4], x0=[None, X0[1], None]
    )
    assert found["a"].value == pytest.approx(X0[0], abs=1e-6)
    assert found["x0.c"].value == pytest.approx(X0[2], abs=1e-6)
    assert found.misfit.chi_squared < 1e-6


def test_controls_have_a_value_for_each_interval():
    surrogate = small_surrogate(controls=1, normalisation=names("u0"))
    truth, switches = np.array([[0.5], [-0.4]]), np.array([0.0, 1.0])
    y = np.asarray(surrogate.rollout(X0, TIMES, controls=truth, control_times=switches))
    found = calibrate(
        surrogate,
        TIMES,
        y,
        {"controls": {"u0": {"lower": -1, "upper": 1}}},
        noise=[1e-4, 1e-8, 1e-4],
        x0=X0,
        control_times=switches,
    )
    assert [each.label for each in found.estimates] == [
        "controls.u0[0]",
        "controls.u0[1]",
    ]
    np.testing.assert_allclose(
        [each.value for each in found.estimates], truth.ravel(), atol=1e-4
    )


def test_a_constant_control_needs_no_times():
    surrogate = small_surrogate(controls=1, normalisation=names("u0"))
    zero, truth = np.zeros(1), np.array([[0.5]])
    y = np.asarray(surrogate.rollout(X0, TIMES, controls=truth, control_times=zero))
    unknowns = {"controls": {"u0": {"lower": -1, "upper": 1}}}
    noise = [1e-4, 1e-8, 1e-4]
    found = calibrate(surrogate, TIMES, y, unknowns, noise=noise, x0=X0)
    assert found["u0"].value == pytest.approx(0.5, abs=1e-4)


def test_what_the_observations_do_not_tell_is_said_and_a_prior_tells_it(family):
    y = observed(family, TRUTH)
    y[1:] = np.nan
    found = find(family, y)
    assert len(found.unidentified) >= 1
    assert any("do not tell" in warning for warning in found.warnings)
    vague = [each for each in found.estimates if not each.is_identifiable]
    assert vague
    assert any(each.interval == pytest.approx((0.5, 2.0)) for each in vague)

    priors = {
        f"p{i}": {**BOUNDS, "prior": {"mean": TRUTH[i], "sd": 0.01}} for i in range(3)
    }
    told = find(family, y, {"parameters": priors})
    assert told.unidentified == ()
    for each in told.estimates:
        assert each.standard_error <= 0.01 + 1e-9


def test_an_estimate_on_its_bound_says_so(family):
    y = observed(family, [1.8, 1.2, 1.5])
    bounds = {**BOUNDS, "upper": 1.2}
    found = find(family, y, {"parameters": {"p0": bounds}}, parameters=[0, 1.2, 1.5])
    assert found["p0"].at_bound == "upper"
    assert found["p0"].value == pytest.approx(1.2, abs=1e-3)
    assert any("upper bound" in warning for warning in found.warnings)
    assert any("improbable" in warning for warning in found.warnings)


def test_wide_positive_bounds_are_searched_in_decades(family):
    wide = {"lower": 0.01, "upper": 100.0, "start": 1.0}
    y = observed(family, TRUTH)
    found = find(family, y, {"parameters": {"p0": wide}}, parameters=[0, 1.2, 1.5])
    low, high = found["p0"].interval
    assert low < TRUTH[0] < high
    # Equal factors on both sides, not equal distances.
    assert high / found["p0"].value == pytest.approx(found["p0"].value / low)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("unknowns.parameters.k", {"unknowns": {"parameters": {"k": BOUNDS}}}),
        ("unknowns.parameters.p0.lower", {"unknowns": {"parameters": {"p0": {}}}}),
        ("unknowns.parameters.p0", {"unknowns": {"parameters": {"p0": {**BOUNDS, "lower": 3}}}}),
        ("unknowns", {"unknowns": {}}),
        ("parameters[1]", {"unknowns": {"parameters": {"p0": BOUNDS}}}),
        ("x0[0]", {"x0": None}),
        ("x0", {"x0": [1.0]}),
        ("states[1]", {"states": ["a", "a"]}),
        ("states[0]", {"states": ["x", "a"]}),
        ("observations", {"y": np.zeros((4, 2))}),
        ("observations", {"y": np.full((5, 2), np.nan)}),
        ("observations[0, 1]", {"y": np.full((5, 2), [0.0, np.inf])}),
        ("noise[1]", {"noise": [1e-3, 0.0]}),
        ("noise", {"noise": [1e-3]}),
        ("noise", {"noise": None, "y": np.full((5, 2), [[0.5, np.nan]] * 3 + [[np.nan] * 2] * 2)}),
        ("model_error", {"model_error": [-1.0, 0.0]}),
        ("model_error", {"noise": None, "model_error": [1.0, 0.0]}),
        ("control_times", {"control_times": [0.0]}),
        ("times[1]", {"times": [1.0, 0.5, 2.0, 3.0, 4.0]}),
        ("coverage", {"coverage": 1.0}),
        ("starts", {"starts": 0}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(family, field, change):
    y = change.pop("y", np.zeros((5, 2)))
    with pytest.raises(InvalidInput) as caught:
        find(family, y, change.pop("unknowns", UNKNOWNS), **change)
    assert caught.value.field == field


def two_valleys(v):
    """Residuals ``((2v - 1)^2 - 1/4, w - 0.3)``: least at v = 1/4 and at v = 3/4."""
    x, w = v[:, 0], v[:, 1]
    residuals = np.stack([(2 * x - 1) ** 2 - 0.25, w - 0.3], axis=1)
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = [[4 * (2 * x - 1), zero], [zero, one]]
    return residuals, np.moveaxis(np.array(rows), 2, 0)


def test_each_search_ends_in_its_own_valley():
    starts = np.array([[0.1, 0.9], [0.4, 0.1], [0.6, 0.5], [0.9, 0.9]])
    batches = []

    def evaluate(v):
        batches.append(len(v))
        return two_valleys(v)

    found = search(
        evaluate, starts, most_evaluations=100, on_round=lambda _ended, _best: None
    )
    ends = np.array([each.v for each in found])
    np.testing.assert_allclose(ends[:, 0], [0.25, 0.25, 0.75, 0.75], atol=1e-6)
    np.testing.assert_allclose(ends[:, 1], 0.3, atol=1e-6)
    assert set(batches) == {4}, "what all of them ask for is one batch"
    assert len(batches) == max(each.evaluations for each in found)


def test_a_start_that_is_not_finite_is_left_out():
    def evaluate(v):
        residuals, jacobians = two_valleys(v)
        return np.where(v[:, :1] > 0.8, np.nan, residuals), jacobians

    starts = np.array([[0.4, 0.1], [0.9, 0.9]])
    found = search(
        evaluate, starts, most_evaluations=100, on_round=lambda _ended, _best: None
    )
    assert found[0].converged
    assert found[1] is None


def test_what_the_callback_raises_ends_all_searches():
    class Enough(Exception):
        pass

    def stop(_ended, _best):
        raise Enough

    with pytest.raises(Enough):
        search(two_valleys, np.full((4, 2), 0.4), most_evaluations=9, on_round=stop)
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("search") for name in names)


def test_the_p_value_tells_whether_noise_and_model_error_explain_the_misfit(family):
    times = np.geomspace(1e-2, 1e3, 60)
    error = NOISE[0]
    options = {"times": times, "model_error": [error, error], "starts": 2}
    found = []
    for seed in range(12):
        # The model is off by one amount for all observations of a state.
        off = error * np.random.default_rng([seed, 7]).normal(size=2)
        y = observed(family, TRUTH, seed=seed, times=times) + off
        found.append(find(family, y, **options).misfit.p_value)
    # Uniform where both are as they were said to be.
    assert min(found) > 1e-3
    assert np.mean(np.array(found) > 0.99) < 0.5
    noisy = observed(family, TRUTH, noise=2 * NOISE, times=times)
    bad = find(family, noisy, **options)
    assert bad.misfit.p_value < 1e-6
    assert any("improbable" in said for said in bad.warnings)


def test_a_better_optimum_whose_search_ran_out_is_told():
    far = Optimum(np.array([0.2]), 6.0, np.ones(1), np.ones((1, 1)), False, 200)
    near = Optimum(np.array([0.9]), 80.0, np.ones(1), np.ones((1, 1)), True, 9)
    groups = _grouped([near, far])
    assert groups[0].best is near
    (said,) = _unfinished([near, far], groups, 1.0)
    assert "1 searches that had not converged" in said
    assert not _unfinished([near, dataclasses.replace(far, cost=79.5)], groups, 1.0)
    # Of an estimated noise: sums of squares are in parts of its variance.
    assert _unfinished([near, dataclasses.replace(far, cost=79.5)], groups, 0.1)


def test_a_start_without_a_finite_jacobian_is_left_out():
    def evaluate(points):
        steep = np.where(points > 0.5, np.inf, 1.0)
        return points - 0.25, steep[:, :, None]

    starts = np.array([[0.9], [0.1]])
    found = search(evaluate, starts, most_evaluations=50, on_round=lambda *_: None)
    assert found[0] is None
    assert found[1] is not None
    assert found[1].v[0] == pytest.approx(0.25)
