"""``A`` and a quadratic ``f`` from least squares on samples, before any training."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.matrix import DenseOperator
from spnode_core.linear.modal import ModalOperator
from spnode_core.nonlinear.polynomial import PolynomialOperator
from spnode_core.nonlinear.quadratic import QuadraticOperator
from spnode_core.spec import OperatorInferenceSpec
from spnode_core.surrogate import Surrogate
from spnode_core.training.defect_correction import correct, is_possible
from spnode_core.training.kept_sums import kept_sums
from spnode_core.training.network_fit import fit_network
from spnode_core.training.operator_inference import Operators, Snapshots, infer
from spnode_core.training.polynomial_fit import fit_polynomial

Values = NDArray[np.float64]
Report = Callable[[str], None]

# A rate of A is at least this part of the fastest: a mode that grows decays this
# slowly in A, and its growth is in f.
_SLOWEST = 1e-9


def infer_operators(
    surrogate: Surrogate,
    dataset: Dataset,
    spec: OperatorInferenceSpec,
    seed: int,
    report: Report = lambda _: None,
    *,
    goes_on: bool = False,
) -> tuple[Surrogate, dict[str, Any]]:
    """The surrogate with inferred operators in place of its initial ones.

    Args:
        surrogate: Gives encoder and scalings; they stay.
        dataset: Training trajectories.
        spec: How to infer.
        seed: Source of the choice of samples for corrections.
        report: Is told what is being done.
        goes_on: Whether a polynomial is fitted from its own coefficients on.

    Returns:
        The surrogate, and what the residuals were: JSON.
    """
    snapshots = encoded_snapshots(surrogate, dataset, surrogate.encode)
    nonlinear = surrogate.dynamics.nonlinear
    if isinstance(nonlinear, PolynomialOperator) and nonlinear.network is not None:
        whole = jnp.asarray(polynomial_of(surrogate))
        first = eqx.tree_at(lambda f: f.coefficients, nonlinear, whole)
        dense = fit_network(snapshots, first, seed, report, goes_on=goes_on)
        fitted = dense.operator
        surrogate = eqx.tree_at(lambda s: s.dynamics.nonlinear, surrogate, fitted)
        surrogate = with_polynomial(surrogate, np.asarray(fitted.coefficients))
        residuals = {"residuals": [dense.residual], "substeps": dense.substeps}
        return surrogate, residuals
    if isinstance(nonlinear, PolynomialOperator):
        first = polynomial_of(surrogate) if goes_on else None
        sums = kept_sums(surrogate, dataset)
        given = (snapshots, nonlinear.degree, seed, report)
        fitted = fit_polynomial(*given, first=first, sums=sums)
        found = {"residuals": [fitted.residual], "substeps": fitted.substeps}
        return with_polynomial(surrogate, fitted.coefficients), found
    operators, residuals = infer_corrected(snapshots, spec, seed, report)
    return with_operators(surrogate, operators), residuals


def infer_corrected(
    snapshots: list[Snapshots],
    spec: OperatorInferenceSpec,
    seed: int,
    report: Report = lambda _: None,
) -> tuple[Operators, dict[str, Any]]:
    """Operators from least squares and rounds of defect correction.

    Returns:
        The operators, and ``residuals``: the root mean square of what a step from one
        sample to the next errs, in standard deviations, before each round.
    """
    report("least squares for the operators")
    operators = infer(snapshots, spec)
    residuals: list[float] = []
    if spec.corrections and not is_possible(snapshots):
        why = "the samples lie at irregular distances: no defect correction"
        return operators, {"residuals": residuals, "note": why}
    for number in range(spec.corrections):
        report(f"defect correction {number + 1} of {spec.corrections}")
        operators, residual = correct(operators, snapshots, ridge=spec.ridge, seed=seed)
        residuals.append(residual)
    return operators, {"residuals": residuals}


def encoded_snapshots(
    surrogate: Surrogate,
    dataset: Dataset,
    encode: Callable[[Array, Array], Float[Array, " column"]],
) -> list[Snapshots]:
    """Encoded samples, cut where one is missing, with normalised inputs.

    Args:
        surrogate: Gives the scalings of the inputs.
        dataset: Trajectories.
        encode: From a state and parameters, physical units.
    """
    over_times = jax.jit(jax.vmap(encode, in_axes=(0, None)))
    parameters = dataset.parameters.reshape(dataset.trajectories, -1)
    normaliser = surrogate.normaliser
    snapshots = []
    for row in range(dataset.trajectories):
        z = np.asarray(
            over_times(jnp.asarray(dataset.filled[row]), jnp.asarray(parameters[row]))
        )
        p = np.asarray(normaliser.parameters.normalise(jnp.asarray(parameters[row])))
        u = np.zeros((len(z), 0))
        if dataset.control_names:
            held = jnp.asarray(dataset.controls[row])
            u = np.asarray(jax.vmap(normaliser.controls.normalise)(held))
        others = np.concatenate([u, np.broadcast_to(p, (len(z), len(p)))], axis=1)
        whole = dataset.mask[row].all(axis=1)
        for part in np.split(np.arange(len(z)), np.flatnonzero(np.diff(whole)) + 1):
            if len(part) > 1 and whole[part[0]]:
                times = dataset.elapsed[row, part]
                snapshots.append(Snapshots(z[part], times, others[part]))
    return snapshots


def with_operators(surrogate: Surrogate, operators: Operators) -> Surrogate:
    """The surrogate with inferred operators split into A and f.

    A modal A takes the diagonal, a dense one the whole matrix, a Hurwitz one the
    matrix if it is stable and else its diagonal; what A cannot hold is part of f, and
    so is everything where A is fixed.
    """
    dynamics = surrogate.dynamics
    nonlinear = dynamics.nonlinear
    assert isinstance(nonlinear, QuadraticOperator)
    latent = len(operators.affine)
    linear = _fitted_linear(dynamics.linear, operators.affine[:, :latent])
    rest = operators.affine.copy()
    rest[:, :latent] -= np.asarray(linear.matrix())
    fitted = nonlinear.with_coefficients(operators.products, rest)
    return eqx.tree_at(
        lambda s: (s.dynamics.linear, s.dynamics.nonlinear), surrogate, (linear, fitted)
    )


def with_polynomial(surrogate: Surrogate, coefficients: Values) -> Surrogate:
    """The surrogate with a fitted polynomial split into A and f, as above."""
    dynamics = surrogate.dynamics
    latent = len(coefficients)
    linear = _fitted_linear(dynamics.linear, coefficients[:, 1 : latent + 1])
    rest = coefficients.copy()
    rest[:, 1 : latent + 1] -= np.asarray(linear.matrix())
    return eqx.tree_at(
        lambda s: (s.dynamics.linear, s.dynamics.nonlinear.coefficients),
        surrogate,
        (linear, jnp.asarray(rest)),
    )


def polynomial_of(surrogate: Surrogate) -> Values:
    """The coefficients of A and a polynomial f together, ``(latent, term)``."""
    linear, nonlinear = surrogate.dynamics.linear, surrogate.dynamics.nonlinear
    assert isinstance(nonlinear, PolynomialOperator)
    coefficients = np.array(nonlinear.coefficients)
    coefficients[:, 1 : len(coefficients) + 1] += np.asarray(linear.matrix())
    return coefficients


def _fitted_linear(linear: Any, matrix: Values) -> Any:
    if isinstance(linear, ModalOperator):
        log_rates = jnp.asarray(np.log(_decays(linear.shift, matrix)))
        return eqx.tree_at(lambda a: a.log_rates, linear, log_rates)
    if isinstance(linear, DenseOperator):
        return eqx.tree_at(lambda a: a.entries, linear, jnp.asarray(matrix))
    if isinstance(linear, HurwitzOperator):
        shifted = matrix - linear.shift * np.eye(len(matrix))
        if np.linalg.eigvals(shifted).real.max() < 0:
            return HurwitzOperator.from_matrix(matrix, shift=linear.shift)
        return HurwitzOperator(_decays(linear.shift, matrix), shift=linear.shift)
    return linear


def _decays(shift: float, matrix: Values) -> Values:
    """Decay rates below a shift of the diagonal, none of them growth, 1/time."""
    rates = shift - np.diag(matrix)
    # Where nothing decays by itself any small rate will do: f takes it back.
    fastest = float(np.abs(rates).max()) or float(np.abs(matrix).max()) or 1.0
    return np.maximum(rates, _SLOWEST * fastest)
