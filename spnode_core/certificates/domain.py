"""The training box, seen through the encoder and the decoder by interval arithmetic."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from spnode_core.constraints import HEADROOM, Conserving, Positive
from spnode_core.normaliser import Scaling

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate


def encoder_bound(surrogate: "Surrogate") -> NDArray[np.float64]:
    """A bound on ``|z_i(0)|`` over the training box."""
    scalings, domain = surrogate.normaliser, surrogate.signature.domain
    states = _extent(scalings.states, domain.lower, domain.upper)
    sums = _extent(scalings.sums, domain.conserved_lower, domain.conserved_upper)
    features = np.concatenate(
        [states, sums, parameter_extent(surrogate), _logarithms_extent(surrogate)]
    )
    return np.asarray(surrogate.autoencoder.encode_bound(jnp.asarray(features)))


def parameter_extent(surrogate: "Surrogate") -> NDArray[np.float64]:
    """Largest modulus of each normalised parameter over the training box."""
    domain = surrogate.signature.domain
    lower, upper = domain.parameters_lower, domain.parameters_upper
    return _extent(surrogate.normaliser.parameters, lower, upper)


def _logarithms_extent(surrogate: "Surrogate") -> NDArray[np.float64]:
    """The same of the logarithms that the encoder sees beside the states."""
    scaling, domain = surrogate.normaliser.logarithms, surrogate.signature.domain
    if scaling is None:
        return np.zeros(0)
    index = surrogate.spec.logarithm_columns(surrogate.signature.states)
    lower, upper = (tuple(np.array(b)[index]) for b in (domain.lower, domain.upper))
    return _extent(scaling, lower, upper)


def others_extent(surrogate: "Surrogate") -> NDArray[np.float64]:
    """The same of the controls, then of the parameters: the other inputs of ``f``."""
    domain = surrogate.signature.domain
    controls = _extent(
        surrogate.normaliser.controls, domain.controls_lower, domain.controls_upper
    )
    return np.concatenate([controls, parameter_extent(surrogate)])


def _extent(
    scaling: Scaling, lower: tuple[float, ...], upper: tuple[float, ...]
) -> NDArray[np.float64]:
    """Largest modulus of each normalised column over a box: scalings are monotone."""
    ends = [
        np.abs(np.asarray(scaling.normalise(jnp.asarray(end, jnp.float64))))
        for end in (lower, upper)
    ]
    return np.maximum(*ends)


def state_bounds(
    surrogate: "Surrogate", box: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds on the states over the latent box, through the decoder; sure, not sharp.

    One beyond the range of float64 is infinite.
    """
    lower, upper = _finite_bounds(surrogate, box)
    largest = np.finfo(np.float64).max
    return (
        np.where(lower <= -largest, -np.inf, lower),
        np.where(upper >= largest, np.inf, upper),
    )


def _finite_bounds(
    surrogate: "Surrogate", box: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same with the largest float64 for what is infinite: sums stay numbers."""
    constraint, scaling = surrogate.constraint, surrogate.normaliser.states
    if isinstance(constraint, Positive):
        return _positive_bounds(surrogate, constraint)
    lower, upper = np.zeros(len(scaling.kinds)), np.zeros(len(scaling.kinds))
    free, part = list(constraint.free), scaling.take(constraint.free)
    with np.errstate(over="ignore"):
        outputs = surrogate.autoencoder.decode_bound(jnp.asarray(box))
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
