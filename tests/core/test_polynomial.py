"""The polynomial operator, and finding it from samples of stiff systems."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spnode_core import SurrogateSpec, TrainingSpec, check_arrays, fit
from spnode_core.certificates.facts import facts_of
from spnode_core.errors import TrainingError
from spnode_core.integrators.rodas import rodas_step
from spnode_core.linear.modal import ModalOperator
from spnode_core.nonlinear.polynomial import (
    PolynomialOperator,
    factors,
    term_count,
    terms,
)
from spnode_core.spec import NoAutoencoderSpec, PolynomialSpec
from spnode_core.systems import Robertson
from spnode_core.training.candidates import GOOD, candidates
from spnode_core.training.fit import plan
from spnode_core.training.initial_operators import _fitted_linear
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.one_step import is_decoupled
from spnode_core.training.operator_inference import Snapshots
from spnode_core.training.polynomial_fit import (
    fit_polynomial,
    regress,
)
from spnode_core.training.presets import resolve
from spnode_core.training.significant import without_noise


def test_terms_are_all_products_in_the_order_of_their_factors() -> None:
    v = np.array([2.0, 3.0, 5.0])
    found = terms(jnp.asarray(v), 3)
    assert len(found) == term_count(3, 3) == 20
    assert found[:4].tolist() == [1.0, 2.0, 3.0, 5.0]
    with_one = np.append(v, 1.0)
    expected = [np.prod(with_one[row]) for row in factors(3, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert len({tuple(row) for row in factors(3, 3).tolist()}) == 20


def test_the_operator_sees_controls_and_parameters_like_states() -> None:
    operator = PolynomialOperator(2, others=1, degree=2)
    coefficients = np.zeros((2, 10))
    index = factors(3, 2).tolist()
    coefficients[0, index.index([0, 2])] = 4.0  # z0 p
    coefficients[1, index.index([1, 1])] = -1.0  # z1 z1
    operator = jax.tree.map(lambda _: jnp.asarray(coefficients), operator)
    value = operator(jnp.array([2.0, 3.0, 0.5]))
    np.testing.assert_allclose(value, [4.0, -9.0])


def _snapshots(system: Robertson, count: int) -> list[Snapshots]:
    x0, times = system.sample(count, 0), system.times()
    states = system.reference(x0, times) / [1.0, 1e-4, 1.0]
    return [Snapshots(z, times, np.zeros((len(times), 0))) for z in states]


def test_robertson_is_found_to_many_digits_over_eight_decades() -> None:
    told: list[str] = []
    fitted = fit_polynomial(_snapshots(Robertson(end=1e3), 16), 2, 0, told.append)
    assert fitted.residual < 1e-5
    # How far it is, by the intervals that it fits: they end with the longest.
    form = r"degree 2, intervals to (\S+) of (\S+), round \d of at most 8"
    reached = [found for each in told if (found := re.fullmatch(form, each))]
    lengths = [float(each[1]) for each in reached]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1] == float(reached[0][2])
    index = factors(3, 2).tolist()
    rates = {
        (0, index.index([0, 3])): -0.04,
        (0, index.index([1, 2])): 1.0,  # 1e4 y2 y3, y2 in units of 1e-4
        (1, index.index([1, 1])): -3e3,  # 3e7 y2^2 in the same units
    }
    for place, value in rates.items():
        assert fitted.coefficients[place] == pytest.approx(value, rel=1e-5)
    # What the data do not ask for is not there.
    assert np.count_nonzero(fitted.coefficients) == 6


def test_a_system_that_is_no_polynomial_is_refused_with_its_error() -> None:
    times = np.arange(0.0, 5.0)
    snapshots = []
    for start in np.linspace(0.2, 3.0, 12):
        found = solve_ivp(
            lambda _, y: [np.cos(12 * y[0]) - 0.3 * y[0]],
            (0, 4),
            [start],
            t_eval=times,
            rtol=1e-9,
        )
        snapshots.append(Snapshots(found.y.T, times, np.zeros((5, 0))))
    with pytest.raises(TrainingError, match=r"no polynomial of degree 2"):
        fit_polynomial(snapshots, 2, seed=0)


def _van_der_pol(count: int, samples: int) -> dict[str, np.ndarray]:
    times = np.linspace(0.0, 8.0, samples)

    def right(_: float, y: np.ndarray) -> list[float]:
        return [20 * (y[0] - y[0] ** 3 / 3 - y[1]), y[0] / 4]

    starts = np.random.default_rng(0).uniform(-1.5, 1.5, (count, 2))
    states = [
        solve_ivp(right, (0, 8), x0, "LSODA", times, rtol=1e-9, atol=1e-10).y.T
        for x0 in starts
    ]
    return {
        "states": np.stack(states),
        "times": times,
        "names": np.array(["x", "y"]),
    }


def test_auto_keeps_the_polynomial_of_a_relaxation_oscillator_and_says_so() -> None:
    dataset = check_arrays(_van_der_pol(40, 161))
    told = []
    run = fit(dataset, on_choices=told.append)
    assert isinstance(run.surrogate.spec.nonlinear, PolynomialSpec)
    assert run.surrogate.spec.nonlinear.degree == 3
    verdicts = [c for c in run.report["choices"] if c["what"] == "candidate"]
    assert [v["value"] for v in verdicts] == [
        "a polynomial of degree 2",
        "a polynomial of degree 3",
    ]
    assert "not kept" in verdicts[0]["why"]
    assert run.report["metrics"]["test"]["worst_state"]["normalised_rmse"] < GOOD
    assert run.report["metrics"]["test"]["mid_trajectory"]["normalised_rmse"] < GOOD
    assert len(told) == 2
    assert run.report["warnings"] == []
    first, second = run.report["equations"]
    assert re.fullmatch(
        r"x' = (20|19\.99\d*) x - (20|19\.99\d*) y - 6\.66\d* x\^3", first
    )
    assert re.fullmatch(r"y' = 0\.2(5|4999\d*|500\d*) x", second)


def test_only_what_is_tried_first_is_said_to_be() -> None:
    tried = candidates(check_arrays(_van_der_pol(4, 21)), None, None)
    said = [each.choices[0]["why"] for each in tried]
    first, second, _, network = said
    assert [each for each in said if "tried first" in each] == [first]
    assert second.startswith("tried after degree 2: a system that is one")
    assert network.startswith("the network adds what is no polynomial")


def test_what_the_caller_fixes_leaves_no_candidates() -> None:
    dataset = check_arrays(_van_der_pol(4, 21))
    assert [c.spec.nonlinear.kind for c in candidates(dataset, None, None)] == [
        "polynomial",
        "polynomial",
        "none",
        "polynomial",
    ]
    assert not candidates(dataset, SurrogateSpec(latent=4), None)
    assert not candidates(dataset, None, TrainingSpec(iterations=5))
    assert candidates(dataset, None, TrainingSpec(max_seconds=5.0))


def test_declared_sums_need_a_decoder_that_keeps_them() -> None:
    arrays = _van_der_pol(4, 21)
    sums = {"conserved": np.array([[1.0, 1.0]]), "conserved_names": np.array(["mass"])}
    dataset = check_arrays({**arrays, **sums})
    (only,) = plan(dataset, None, None, "auto", certified=False)
    assert only.spec.autoencoder.kind == "residual"


def test_fields_are_tried_by_their_principal_directions() -> None:
    draw = np.random.default_rng(0)
    fields = draw.standard_normal((6, 9, 3)) @ draw.standard_normal((3, 30))
    dataset = check_arrays({"states": fields, "times": np.arange(9.0)})
    tried = plan(dataset, None, None, "auto", certified=False)
    kinds = [(c.spec.autoencoder.kind, c.spec.nonlinear.kind) for c in tried]
    assert kinds == [
        ("pod", "quadratic"),
        ("pod", "polynomial"),
        ("pod", "quadratic"),
        ("residual", "none"),
        ("residual", "relaxation"),
    ]
    assert tried[1].spec.latent == 3
    why = tried[1].choices[0]["why"]
    assert why == "tried after quadratic operators, which have no cubic terms"
    assert tried[-1].training.later_starts == 1


def test_the_candidate_without_an_autoencoder_scales_and_does_not_shift() -> None:
    dataset = check_arrays(_van_der_pol(4, 21))
    first = candidates(dataset, None, None)[0]
    assert isinstance(first.spec.autoencoder, NoAutoencoderSpec)
    assert set(first.spec.normalisation.values()) == {"max"}


def test_the_certified_slope_bounds_every_jacobian_in_its_ball() -> None:
    spec = SurrogateSpec(
        nonlinear=PolynomialSpec(degree=3),
        autoencoder=NoAutoencoderSpec(),
        integrator="exprb32",
    )
    dataset = check_arrays(_van_der_pol(4, 21))
    spec, _, _ = resolve(dataset, spec)
    surrogate = create_surrogate(dataset, spec, seed=0)
    draw = np.random.default_rng(0)
    coefficients = jnp.asarray(draw.standard_normal((2, 10)))
    surrogate = eqx.tree_at(
        lambda s: s.dynamics.nonlinear.coefficients, surrogate, coefficients
    )
    facts = facts_of(surrogate)
    assert facts is not None
    radius = facts.slopes.radius
    assert radius is not None
    nonlinear = surrogate.dynamics.nonlinear
    directions = draw.standard_normal((200, 2))
    points = radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    jacobians = jax.vmap(jax.jacfwd(nonlinear))(jnp.asarray(points))
    norms = np.linalg.norm(np.asarray(jacobians), 2, axis=(1, 2))
    assert norms.max() <= facts.slopes.euclid <= 20 * norms.max()


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_the_fitting_integrator_is_of_fourth_order_and_survives_stiffness(
    size: float,
) -> None:
    rates = jnp.array([1.0, 1e6])

    def derivative(y: jax.Array) -> jax.Array:
        slow = -rates[0] * y[0] + 0.3 * y[0] ** 2
        return jnp.stack([slow, -rates[1] * (y[1] - y[0] ** 2)])

    def end(count: int) -> np.ndarray:
        y = jnp.array([0.9, 0.2])
        for _ in range(count):
            y = rodas_step(derivative, jnp.array(size / count), y)
        return np.asarray(y)

    start, decayed = 0.9, np.exp(-size)
    exact = start * decayed / (1 - 0.3 * start * (1 - decayed))
    errors = [abs(end(count)[0] - exact) for count in (4, 8)]
    assert errors[1] <= max(errors[0] / 10, 1e-14)
    assert abs(end(8)[1] - exact**2) < max(3 * errors[1], 1e-5)


def test_samples_that_stand_alone_give_no_polynomial() -> None:
    alone = Snapshots(np.ones((1, 2)), np.zeros(1), np.zeros((1, 0)))
    with pytest.raises(TrainingError, match="no two samples"):
        fit_polynomial([alone], 2, seed=0)


def test_numbers_beyond_the_finite_range_give_no_polynomial() -> None:
    times = np.array([0.0, 1e-200, 2e-200, 3e-200])
    jumps = Snapshots(np.array([[0.0], [1.0], [0.5], [1.0]]), times, np.zeros((4, 0)))
    with pytest.raises(TrainingError, match="no polynomial of degree 2"):
        fit_polynomial([jumps], 2, seed=0)


def test_too_many_coefficients_are_found_by_slopes() -> None:
    """Nine states of degree 3 are 1980 coefficients: one regression for all rows."""
    size, degree = 9, 3
    draw = np.random.default_rng(1)
    matrix = -np.diag(np.linspace(0.5, 5.0, size)) + draw.normal(0, 0.3, (size, size))

    def right(_: float, z: np.ndarray) -> np.ndarray:
        return matrix @ z - 2.0 * z * np.roll(z, 1) ** 2

    times = np.linspace(0.0, 1.0, 11)
    snapshots = []
    for _ in range(80):
        found = solve_ivp(
            right, (0, 1), draw.uniform(-1, 1, size), "LSODA", times, rtol=1e-9,
            atol=1e-11,
        )  # fmt: skip
        snapshots.append(Snapshots(found.y.T, times, np.zeros((11, 0))))
    first = regress(snapshots, degree)
    assert is_decoupled(first)
    fitted = fit_polynomial(snapshots, degree, seed=0)
    index = factors(size, degree).tolist()
    assert fitted.residual < 2e-3
    for row in range(size):
        before = (row - 1) % size
        term = index.index(sorted([row, before, before]))
        assert fitted.coefficients[row, term] == pytest.approx(-2.0, abs=0.2)


def test_coefficients_that_cost_little_are_left_out_and_the_others_make_up() -> None:
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((200, 4))
    rows[:, 3] = rows[:, 2] + 1e-3 * draw.standard_normal(200)
    right = rows @ [2.0, 0.0, 1.0, 0.0] + 1e-4 * draw.standard_normal(200)
    gram = rows.T @ rows
    best = np.linalg.solve(gram, rows.T @ right)
    residual = np.sum((right - rows @ best) ** 2)
    kept = without_noise(best, gram, 0.2 * residual)
    assert np.flatnonzero(kept).tolist() == [0, 2]
    np.testing.assert_allclose(kept[[0, 2]], [2.0, 1.0], atol=1e-4)
    again = np.sum((right - rows @ kept) ** 2)
    assert again <= 1.2 * residual
    np.testing.assert_array_equal(without_noise(best, gram, 0.0), best)


def test_what_does_not_decay_by_itself_has_a_finite_linear_part() -> None:
    operator = ModalOperator(np.array([1.0, 2.0]))
    for matrix in ([[0.0, 1.0], [-1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]):
        fitted = _fitted_linear(operator, np.array(matrix))
        assert np.isfinite(np.asarray(fitted.log_rates)).all()
        assert (np.asarray(fitted.matrix()).diagonal() < 0).all()


def test_a_species_that_moves_by_rounding_is_no_obstacle() -> None:
    times = np.linspace(0.0, 2.0, 21)
    inert = 1 + 1e-16 * np.random.default_rng(0).standard_normal(21)
    snapshots = [
        Snapshots(
            np.stack([start * np.exp(-times), inert], axis=1), times, np.zeros((21, 0))
        )
        for start in (0.3, 0.6, 1.0)
    ]
    assert fit_polynomial(snapshots, 2, seed=0).residual < 1e-4
