"""Operator inference finds the operators behind data, also behind sparse samples."""

import jax.numpy as jnp
import numpy as np
import pytest
from models import small_surrogate
from scipy.integrate import quad, solve_ivp

from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.spec import (
    DenseSpec,
    FixedSpec,
    HurwitzSpec,
    ModalSpec,
    NoAutoencoderSpec,
    OperatorInferenceSpec,
    QuadraticSpec,
    RatesSpec,
)
from spnode_core.training.defect_correction import (
    correct,
    is_possible,
    response_weights,
)
from spnode_core.training.initial_operators import with_operators
from spnode_core.training.operator_inference import (
    Operators,
    Snapshots,
    derivative,
    infer,
    interval_weights,
)

# Lorenz (1963): z' = B z + H(z x z), chaotic, on [z1 z1, z1 z2, z1 z3, z2 z2, ...].
LINEAR = np.array([[-10.0, 10.0, 0.0], [28.0, -1.0, 0.0], [0.0, 0.0, -8 / 3]])
PRODUCTS = np.zeros((3, 6))
PRODUCTS[1, 2], PRODUCTS[2, 1] = -1.0, 1.0
SCALE = np.array([8.0, 9.0, 25.0])


def lorenz(interval, count=60, trajectories=6, seed=0):
    """Scaled samples of the Lorenz system after a transient."""
    random = np.random.default_rng(seed)

    def slope(t, x):
        z = x
        return [
            10 * (z[1] - z[0]),
            z[0] * (28 - z[2]) - z[1],
            z[0] * z[1] - 8 / 3 * z[2],
        ]

    times = np.arange(count) * interval
    found = []
    for _ in range(trajectories):
        x0 = random.normal(size=3) * 5 + [0, 0, 20]
        solved = solve_ivp(
            slope, (0, 5 + times[-1]), x0, t_eval=5 + times, rtol=1e-11, atol=1e-11
        )
        found.append(Snapshots(solved.y.T / SCALE, times, np.zeros((count, 0))))
    return found


def true_operators():
    first, second = np.triu_indices(3)
    products = PRODUCTS * (SCALE[first] * SCALE[second]) / SCALE[:, None]
    linear = LINEAR * SCALE / SCALE[:, None]
    return Operators(np.concatenate([linear, np.zeros((3, 1))], axis=1), products)


def error(found):
    true = true_operators()
    pairs = zip(found, true, strict=True)
    largest = max(np.abs(true.affine).max(), np.abs(true.products).max())
    return max(np.abs(a - b).max() for a, b in pairs) / largest


def test_equal_intervals_give_the_symmetric_adams_weights():
    starts, weights = interval_weights(np.arange(6.0), 4)
    assert starts.tolist() == [0, 1, 2]
    np.testing.assert_allclose(weights * 24, [[-1, 13, 13, -1]] * 3, atol=1e-13)


def test_weights_integrate_polynomials_between_unequal_samples():
    times = np.arange(8.0) + np.random.default_rng(0).uniform(-0.2, 0.2, 8)
    starts, weights = interval_weights(times, 4)
    assert weights.shape[1] == 4
    for start, row in zip(starts, weights, strict=True):
        nodes, (a, b) = times[start : start + 4], times[start + 1 : start + 3]
        assert row @ nodes**3 == pytest.approx((b**4 - a**4) / 4, rel=1e-9)


def test_weights_that_would_cancel_use_fewer_samples():
    _, weights = interval_weights(np.geomspace(1e-5, 1e5, 30), 18)
    assert weights.shape[1] < 18
    widths = np.diff(np.geomspace(1e-5, 1e5, 30))
    middle = (len(widths) - len(weights)) // 2
    kept = widths[middle : middle + len(weights)]
    assert (np.abs(weights).sum(axis=1) <= 3.0 * kept).all()


def test_dense_samples_give_the_operators():
    found = infer(lorenz(0.01, count=200), OperatorInferenceSpec(ridge=1e-12))
    assert error(found) < 1e-4


def test_defect_correction_removes_the_bias_of_sparse_samples():
    # A dozen samples a turn.
    samples = lorenz(0.06, count=100)
    found = infer(samples, OperatorInferenceSpec(ridge=1e-12))
    before, residuals = error(found), []
    for _ in range(6):
        found, residual = correct(found, samples, ridge=1e-12, seed=0)
        residuals.append(residual)
    assert before > 5e-3
    assert error(found) < before / 20
    assert residuals[-1] < residuals[0] / 20


@pytest.mark.parametrize("rate", [-1e4, -3.0, 0.0, 0.4])
def test_responses_of_slow_and_fast_modes_are_exact(rate):
    weights = response_weights(np.array([rate]))[0]
    values = np.linspace(0.0, 1.0, 9) ** 3
    wanted = quad(
        lambda s: np.exp((1 - s) * rate) * s**3,
        0.0,
        1.0,
        epsabs=0.0,
        epsrel=1e-12,
        points=[1 - 1e-3, 1 - 1e-4],
    )[0]
    assert weights @ values == pytest.approx(wanted, rel=1e-10)


def test_held_inputs_and_parameters_are_told_apart():
    random = np.random.default_rng(1)
    matrix = np.array([[-1.0, 0.5], [-0.5, -2.0]])
    gain = np.array([[1.0, 0.3], [-0.2, 0.7]])
    samples, step = [], 0.02
    for _ in range(12):
        z, others = [random.normal(size=2)], []
        parameter = random.normal()
        for _ in range(40):
            held = np.array([random.normal(), parameter])
            solved = solve_ivp(
                lambda t, v, held=held: matrix @ v + gain @ held,
                (0, step),
                z[-1],
                rtol=1e-10,
                atol=1e-12,
            )
            z.append(solved.y[:, -1])
            others.append(held)
        others.append(others[-1])
        times = np.arange(41) * step
        samples.append(Snapshots(np.array(z), times, np.array(others)))
    found = infer(samples, OperatorInferenceSpec(ridge=1e-10))
    np.testing.assert_allclose(found.affine[:, :2], matrix, atol=5e-3)
    np.testing.assert_allclose(found.affine[:, 2:4], gain, atol=5e-3)


@pytest.mark.parametrize(
    "linear",
    [
        ModalSpec(rates=RatesSpec(minimum=0.1, maximum=10.0)),
        ModalSpec(shift=0.3, rates=RatesSpec(minimum=0.1, maximum=10.0)),
        DenseSpec(rates=RatesSpec(minimum=0.1, maximum=10.0)),
        HurwitzSpec(rates=RatesSpec(minimum=0.1, maximum=10.0)),
        FixedSpec(matrix=((-1.0, 0.2, 0.0), (0.0, -2.0, 0.0), (0.0, 0.0, -3.0))),
    ],
    ids=["modal", "shifted", "dense", "hurwitz", "fixed"],
)
@pytest.mark.parametrize("is_stable", [True, False])
def test_every_linear_operator_takes_what_it_can_and_f_the_rest(linear, is_stable):
    surrogate = small_surrogate(
        latent=3,
        linear=linear,
        nonlinear=QuadraticSpec(),
        autoencoder=NoAutoencoderSpec(),
    )
    random = np.random.default_rng(0)
    affine = random.normal(size=(3, 4))
    affine[:, :3] -= (4.0 if is_stable else -0.5) * np.eye(3)
    operators = Operators(affine, random.normal(size=(3, 6)))
    dynamics = with_operators(surrogate, operators).dynamics
    z = random.normal(size=3)
    none = jnp.zeros(0)
    wanted = derivative(operators, z[None], np.zeros((1, 0)))[0]
    found = dynamics.derivative(jnp.asarray(z), none, none)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_terms_that_the_data_does_not_tell_apart_are_an_error():
    times = np.arange(30) * 0.1
    still = Snapshots(np.zeros((30, 2)), times, np.zeros((30, 0)))
    with pytest.raises(TrainingError, match="does not tell its terms apart"):
        infer([still], OperatorInferenceSpec(ridge=0.0))


def test_too_many_products_are_refused_with_the_number():
    many = Snapshots(np.zeros((30, 60)), np.arange(30.0), np.zeros((30, 0)))
    with pytest.raises(InvalidInput, match=r"60 latent variables.*at most 48"):
        infer([many], OperatorInferenceSpec())


def test_irregular_samples_are_not_corrected():
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0, 1, 100))
    assert not is_possible([Snapshots(np.zeros((100, 1)), times, np.zeros((100, 0)))])
    assert is_possible(lorenz(0.1, count=10, trajectories=1))


def test_a_model_that_blows_up_between_samples_is_an_error():
    operators = Operators(np.zeros((3, 4)), 50.0 * np.ones((3, 6)))
    with pytest.raises(TrainingError, match="finite range between samples"):
        correct(operators, lorenz(0.1, count=20), ridge=1e-8, seed=0)
