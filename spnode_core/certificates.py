"""What is proved about a trained surrogate, each with its assumptions in words.

A certificate says ``holds: false`` where its condition fails and says why; it never
claims more than follows from the parameters.
"""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.autoencoder import ResidualAutoencoder
from spnode_core.constraints import HEADROOM, Conserving, Positive
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.modal import ModalOperator
from spnode_core.nonlinear.mlp import RelaxationOperator

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate

Certificate = dict[str, object]


def certify(surrogate: "Surrogate") -> dict[str, object]:
    """Every certificate of a surrogate by name, JSON-able.

    Each has ``holds``, ``statement`` (one plain sentence), ``assumptions`` and its
    numbers.

    Args:
        surrogate: A trained model.
    """
    return {
        "spectral_abscissa": spectral_abscissa(surrogate),
        "invariant_box": invariant_box(surrogate),
    }


def spectral_abscissa(surrogate: "Surrogate") -> Certificate:
    """Largest real part among the eigenvalues of A, 1/time; below 0 is Hurwitz."""
    linear = surrogate.dynamics.linear
    modal = isinstance(linear, ModalOperator)
    by_construction = isinstance(linear, HurwitzOperator) or modal
    if modal and not linear.depends_on_parameters:
        value = float(linear.shift - jnp.min(linear.rates()))
    elif modal:
        # Normalised parameters lie in [-1, 1] over the training box.
        slowest = linear.log_rates - jnp.abs(linear.sensitivity).sum(axis=1)
        value = float(linear.shift - jnp.exp(jnp.min(slowest)))
    else:
        value = float(linear.eigenvalues()[:, 0].max())
    holds = bool(value < 0)
    assumptions = []
    if linear.depends_on_parameters:
        assumptions.append("parameters inside the training box")
    return {
        "holds": holds,
        "value": value,
        "unit": "1/time",
        "by_construction": by_construction and surrogate.spec.linear.kind != "dense",
        "assumptions": assumptions,
        "statement": (
            f"Every eigenvalue of A has real part at most {value:.3g}: the linear part "
            "alone decays."
            if holds
            else f"A has an eigenvalue with real part {value:.3g}: the linear part "
            "alone does not decay."
        ),
    }


def invariant_box(surrogate: "Surrogate") -> Certificate:
    r"""The box that no latent component ever leaves, for any sequence of steps.

    With :math:`f = -A g`, real rates and :math:`|g_i| \le G_i`, every ETD1 step makes
    :math:`z_i` a convex combination of itself and :math:`g_i`, so that
    :math:`|z_i(t)| \le \max(|z_i(0)|, G_i)`.
    """
    dynamics = surrogate.dynamics
    linear, nonlinear = dynamics.linear, dynamics.nonlinear
    reason = None
    if not isinstance(nonlinear, RelaxationOperator):
        reason = "the nonlinear operator is not in relaxation form"
    elif not isinstance(linear, ModalOperator) or linear.oscillating:
        reason = "the linear operator has modes that are not real and decoupled"
    elif linear.shift > 0:
        reason = "the linear operator is shifted to allow growth"
    if reason is not None or not isinstance(nonlinear, RelaxationOperator):
        return {
            "holds": False,
            "assumptions": [],
            "statement": f"No invariant box is known: {reason}.",
        }
    target = np.asarray(nonlinear.bound())
    start = _encoder_bound(surrogate)
    box = np.maximum(target, start)
    bounds = _state_bounds(surrogate, box)
    names = surrogate.signature.states
    return {
        "holds": True,
        "target_bound": target.tolist(),
        "latent_bound": box.tolist(),
        "states": {
            name: [float(low), float(high)]
            for name, low, high in zip(names, *bounds, strict=True)
        },
        "assumptions": [
            "the initial state and the parameters lie in the training box",
            "real-number arithmetic; float64 rounding is not accounted for",
        ],
        "statement": (
            "For every initial state in the training box and every sequence of steps, "
            "however long, each latent variable stays within its bound (the largest is "
            f"{box.max():.3g}), so the states stay bounded for all time."
        ),
    }


def _encoder_bound(surrogate: "Surrogate") -> NDArray[np.float64]:
    """A bound on ``|z_i(0)|`` over the training box, where features are in [-1, 1]."""
    autoencoder = surrogate.autoencoder
    if not isinstance(autoencoder, ResidualAutoencoder):
        return np.ones(surrogate.signature.latent)
    linear = np.abs(np.asarray(autoencoder.encoder_matrix)).sum(axis=1)
    return linear + np.asarray(autoencoder.encoder_network.bound())


def _state_bounds(
    surrogate: "Surrogate", box: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds on the states over the latent box, through the decoder; sure, not sharp.

    An infinite bound is given as the largest float64.
    """
    outputs = _decoder_bound(surrogate, box)
    scaling = surrogate.normaliser.states
    count = len(scaling.kinds)
    constraint = surrogate.constraint
    lower, upper = np.zeros(count), np.zeros(count)
    free = list(constraint.free)
    if isinstance(constraint, Positive):
        domain = surrogate.signature.domain
        upper = HEADROOM * np.asarray(scaling.offset + scaling.scale)
        log = np.array([kind == "log" for kind in scaling.kinds])
        top = np.asarray(scaling.restore(jnp.full(count, HEADROOM)))
        upper = np.where(log, top, upper)
        for row, group in enumerate(constraint.groups):
            total = domain.conserved_upper[row]
            for i in group:
                limit = total / constraint.coefficients[row][i]
                upper[i] = limit if i == group[-1] else min(upper[i], limit)
        return lower, upper
    part = scaling.take(constraint.free)
    with np.errstate(over="ignore"):
        lower[free] = np.asarray(part.restore(-jnp.asarray(outputs)))
        upper[free] = np.asarray(part.restore(jnp.asarray(outputs)))
    if isinstance(constraint, Conserving):
        _bound_pivots(surrogate, constraint, lower, upper)
    largest = np.finfo(np.float64).max
    return np.nan_to_num(lower, neginf=-largest), np.nan_to_num(upper, posinf=largest)


def _bound_pivots(
    surrogate: "Surrogate",
    constraint: Conserving,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
) -> None:
    """Interval arithmetic for the states that conserved sums determine."""
    domain = surrogate.signature.domain
    matrix = np.array(constraint.coefficients)
    free, pivots = list(constraint.free), list(constraint.pivots)
    inverse = np.linalg.inv(matrix[:, pivots])
    terms = np.concatenate([inverse, -inverse @ matrix[:, free]], axis=1)
    low = np.concatenate([domain.conserved_lower, lower[free]])
    high = np.concatenate([domain.conserved_upper, upper[free]])
    at_low, at_high = terms * low, terms * high
    lower[pivots] = np.minimum(at_low, at_high).sum(axis=1)
    upper[pivots] = np.maximum(at_low, at_high).sum(axis=1)


def _decoder_bound(
    surrogate: "Surrogate", box: NDArray[np.float64]
) -> Float[Array, " free"] | NDArray[np.float64]:
    autoencoder = surrogate.autoencoder
    if not isinstance(autoencoder, ResidualAutoencoder):
        return box
    linear = np.abs(np.asarray(autoencoder.decoder_matrix)) @ box
    return linear + np.asarray(autoencoder.decoder_network.bound())
