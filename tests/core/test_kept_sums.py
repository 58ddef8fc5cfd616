"""Polynomials that keep sums exactly, and that are right where little is left."""

import dataclasses

import numpy as np
import pytest

from spnode_core import SurrogateSpec, TrainingSpec, check_arrays, fit
from spnode_core.dataset import Dataset
from spnode_core.errors import TrainingError
from spnode_core.spec import (
    NoAutoencoderSpec,
    OperatorInferenceSpec,
    PolynomialSpec,
    ScalingKind,
)
from spnode_core.surrogate import Surrogate
from spnode_core.training import polynomial_fit
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.kept_sums import elimination, kept_sums
from spnode_core.training.operator_inference import Snapshots
from spnode_core.training.polynomial_fit import fit_polynomial
from spnode_core.training.presets import resolve

TIMES = np.append(0.0, np.geomspace(1e-3, 1e7, 81))


def _pairing(rows: int = 12, seed: int = 0) -> np.ndarray:
    """``a`` and ``b`` vanish together into ``c``: ``a' = b' = -a b``, ``a = b``."""
    first = np.random.default_rng(seed).uniform(0.5, 2.0, (rows, 1))
    left = 1 / (1 / first + TIMES)
    return np.stack([left, left, first - left], axis=-1)


def _snapshots(states: np.ndarray) -> list[Snapshots]:
    return [Snapshots(z, TIMES, np.zeros((len(z), 0))) for z in states]


def test_sums_that_are_found_hold_at_any_time() -> None:
    names = np.array(["a", "b", "c"])
    dataset = check_arrays({"states": _pairing(), "times": TIMES, "names": names})
    spec = SurrogateSpec(
        nonlinear=PolynomialSpec(),
        autoencoder=NoAutoencoderSpec(),
        integrator="rodas4",
        normalisation=dict.fromkeys(("a", "b", "c"), "max"),
    )
    training = TrainingSpec(initial=OperatorInferenceSpec(), iterations=0, refine=1)
    surrogate = fit(dataset, spec, training).surrogate
    x0 = _pairing(5, seed=4)[:, 0]
    x = np.asarray(surrogate.rollout(x0, [1.0, 1e4, 1e9]))
    sums = np.stack([x[..., 0] - x[..., 1], x[..., 0] + x[..., 2]], axis=-1)
    expected = np.stack([x0[:, 0] - x0[:, 1], x0[:, 0] + x0[:, 2]], axis=-1)
    np.testing.assert_allclose(
        sums, np.repeat(expected[:, None], 3, axis=1), rtol=0, atol=1e-12
    )


def test_ratios_decide_what_is_left(monkeypatch) -> None:
    """``a' = -a^2`` over ten decades: a rate of 1e-9 beside it undoes the last two."""
    noise = 1 + 1e-7 * np.random.default_rng(1).standard_normal((12, len(TIMES), 1))
    snapshots = _snapshots(_pairing()[..., :1] * noise)
    # Else the terms that are too many are left out in this small example.
    monkeypatch.setattr(
        polynomial_fit._Fitting, "_significant", lambda _, given, *_more: given
    )

    def worst() -> float:
        """Of the rates of what is left at the end, relatively."""
        constant, slope, curve = fit_polynomial(snapshots, 2, seed=0).coefficients[0]
        left = 1 / TIMES[-10:]
        rate = constant + slope * left + curve * left**2
        return float(np.abs(rate / left**2 + 1).max())

    by_ratio = worst()
    monkeypatch.setattr(polynomial_fit._Fitting, "by_ratio", lambda _, found, __: found)
    assert by_ratio < 1e-3
    assert worst() > 100 * by_ratio


def test_the_fastest_state_follows_from_the_others() -> None:
    rng = np.random.default_rng(2)
    free = rng.standard_normal((9, 3))
    fast = 100 * rng.standard_normal((9, 1))
    # Of five states two are sums of the others: z1 = z0 + z2, z4 = z3 - 2 z2.
    z = np.concatenate(
        [free[:, :1], free[:, :1] + fast, fast, free[:, 1:2], free[:, 1:2] - 2 * fast],
        axis=1,
    )
    sums = np.array([[1.0, -1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -2.0, 1.0, -1.0]])
    snapshots = [Snapshots(z, np.arange(9.0), np.zeros((9, 0)))]
    basis, rows = elimination(sums, snapshots)
    assert basis.shape == (5, 3)
    np.testing.assert_allclose(sums @ basis, 0, atol=1e-14)
    np.testing.assert_array_equal(basis[rows], np.eye(3))
    assert 0 in rows
    assert 3 in rows


def _surrogate(dataset: Dataset, *kinds: ScalingKind) -> Surrogate:
    spec = SurrogateSpec(
        nonlinear=PolynomialSpec(),
        autoencoder=NoAutoencoderSpec(),
        normalisation=dict(zip(dataset.names, kinds, strict=True)),
    )
    return create_surrogate(dataset, resolve(dataset, spec)[0], 0)


def test_sums_that_follow_from_others_or_do_not_hold_are_left_out() -> None:
    states = _pairing()
    declared = np.array([[1.0, 1.0, 2.0], [2.0, 2.0, 4.0], [1.0, 0.0, 3.0]])
    given = {"conserved": declared, "conserved_names": np.array(["m", "n", "wrong"])}
    dataset = check_arrays({"states": states, "times": TIMES})
    sums = [dict(zip(dataset.names, row, strict=True)) for row in declared]
    named = dict(zip(given["conserved_names"], sums, strict=True))
    dataset = dataclasses.replace(dataset, conserved=named)
    found = kept_sums(_surrogate(dataset, "max", "max", "max"), dataset)
    assert len(found) == 2
    assert np.linalg.matrix_rank(found) == 2


def test_what_was_found_stays_where_time_runs_out_over_ratios() -> None:
    def report(message: str) -> None:
        if "of at most 40" in message:
            raise TrainingError("it takes too much of max_seconds")

    snapshots = _snapshots(_pairing()[..., :1])
    fitted = fit_polynomial(snapshots, 2, 0, report)
    np.testing.assert_allclose(fitted.coefficients, [[0, 0, -1]], atol=1e-5)


@pytest.mark.parametrize("kind", ["log", "asinh"])
def test_scaled_by_anything_but_a_factor_no_sum_is_one_of_latent_variables(
    kind,
) -> None:
    dataset = check_arrays({"states": _pairing()[..., [0, 2]] + 0.1, "times": TIMES})
    assert len(kept_sums(_surrogate(dataset, kind, "max"), dataset)) == 0
    assert len(kept_sums(_surrogate(dataset, "max", "max"), dataset)) == 1
