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
from spnode_core.normaliser import Scaling

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
    is_bounded = isinstance(linear, HurwitzOperator | ModalOperator)
    by_construction = is_bounded and linear.shift == 0
    assumptions = []
    rounding = 0.0
    if isinstance(linear, ModalOperator):
        # Over the training box each rate is slowest at one of its corners.
        reach = _parameter_extent(surrogate) if linear.depends_on_parameters else []
        slowest = linear.log_rates - jnp.abs(linear.sensitivity) @ jnp.asarray(reach)
        value = float(linear.shift - jnp.exp(jnp.min(slowest)))
    else:
        value = float(linear.eigenvalues()[:, 0].max())
        rounding = float(np.finfo(np.float64).eps * np.linalg.norm(linear.matrix(), 2))
        assumptions.append(
            f"eigenvalues computed in float64: those of a matrix within {rounding:.1g}"
        )
    if is_bounded:
        value = min(value, linear.shift)
    if linear.depends_on_parameters:
        assumptions.append("parameters inside the training box")
    holds = by_construction or value + rounding < 0
    return {
        "holds": holds,
        "value": value,
        "unit": "1/time",
        "by_construction": by_construction,
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
            "the initial state, its conserved sums and the parameters lie in the "
            "training box",
            "real-number arithmetic; rounding is not accounted for",
        ],
        "statement": (
            "For every initial state in the training box and every sequence of steps, "
            "however long, each latent variable stays within its bound (the largest is "
            f"{box.max():.3g}), so the states stay bounded for all time."
        ),
    }


def _encoder_bound(surrogate: "Surrogate") -> NDArray[np.float64]:
    """A bound on ``|z_i(0)|`` over the training box."""
    autoencoder, scalings = surrogate.autoencoder, surrogate.normaliser
    domain = surrogate.signature.domain
    states = _extent(scalings.states, domain.lower, domain.upper)
    if not isinstance(autoencoder, ResidualAutoencoder):
        return states
    sums = _extent(scalings.sums, domain.conserved_lower, domain.conserved_upper)
    features = np.concatenate([states, sums, _parameter_extent(surrogate)])
    linear = np.abs(np.asarray(autoencoder.encoder_matrix)) @ features
    return linear + np.asarray(autoencoder.encoder_network.bound())


def _parameter_extent(surrogate: "Surrogate") -> NDArray[np.float64]:
    domain = surrogate.signature.domain
    lower, upper = domain.parameters_lower, domain.parameters_upper
    return _extent(surrogate.normaliser.parameters, lower, upper)


def _extent(
    scaling: Scaling, lower: tuple[float, ...], upper: tuple[float, ...]
) -> NDArray[np.float64]:
    """Largest modulus of each normalised column over a box: scalings are monotone."""
    ends = [
        np.abs(np.asarray(scaling.normalise(jnp.asarray(end, jnp.float64))))
        for end in (lower, upper)
    ]
    return np.maximum(*ends)


def _state_bounds(
    surrogate: "Surrogate", box: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds on the states over the latent box, through the decoder; sure, not sharp.

    An infinite bound is given as the largest float64.
    """
    constraint, scaling = surrogate.constraint, surrogate.normaliser.states
    if isinstance(constraint, Positive):
        return _positive_bounds(surrogate, constraint)
    lower, upper = np.zeros(len(scaling.kinds)), np.zeros(len(scaling.kinds))
    free, part = list(constraint.free), scaling.take(constraint.free)
    with np.errstate(over="ignore"):
        outputs = jnp.asarray(_decoder_bound(surrogate, box))
        lower[free] = _representable(np.asarray(part.restore(-outputs)))
        upper[free] = _representable(np.asarray(part.restore(outputs)))
        if isinstance(constraint, Conserving):
            _bound_pivots(surrogate, constraint, lower, upper)
    return _representable(lower), _representable(upper)


def _representable(bound: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.finfo(np.float64).max
    return np.clip(bound, -largest, largest)


def _positive_bounds(
    surrogate: "Surrogate", constraint: Positive
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    domain, scaling = surrogate.signature.domain, surrogate.normaliser.states
    count = len(scaling.kinds)
    lower = np.zeros(count)
    upper = HEADROOM * np.asarray(scaling.restore(jnp.ones(count)))
    log = np.array([kind == "log" for kind in scaling.kinds])
    upper = np.where(log, scaling.restore(jnp.full(count, HEADROOM)), upper)
    for row, group in enumerate(constraint.groups):
        least, most = domain.conserved_lower[row], domain.conserved_upper[row]
        for i in group:
            weight = constraint.coefficients[row][i]
            # Nothing but a sum below 0, as noise may make it, gives a negative share.
            lower[i] = min(0.0, least / weight)
            limit = max(most, 0.0) / weight
            upper[i] = limit if i == group[-1] else min(upper[i], limit)
    return lower, upper


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
