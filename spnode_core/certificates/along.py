r"""Theorem 4 along given trajectories: a bound on the latent error of a rollout.

Let :math:`z_k = E(x(t_k))` be the encoded samples, :math:`\Phi` the model's steps from
one sample to the next and :math:`r_k = z_{k+1} - \Phi(z_k)` their defect. The error
of a rollout, :math:`e_0 = 0`, obeys

.. math:: |e_{k+1}| \le \mathrm{Lip}(\Phi)\, |e_k| + |r_k|,

which is the paper's (11) for a model that steps. There
:math:`\mathrm{Lip} \le e^{(\lVert A \rVert + L) h}`; sharper are
:math:`e^{-ch} + (1 - e^{-ch}) L_P / c` in the norm of P and, for real modes, component
by component with the bounds M on the Jacobian's entries,
:math:`e^{-rh} + (1 - e^{-rh}) M` in relaxation form,
:math:`e^{-rh} + (1 - e^{-rh}) M / r` in the direct one.

Source:
    Paper, Theorem 4 and (11).
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import NDArray

from spnode_core.certificates.claims import EXACT, Certificate, claim, unknown
from spnode_core.certificates.facts import Facts, facts_of
from spnode_core.integrators.phi import phi
from spnode_core.linear.modal import ModalOperator
from spnode_core.rollout import restarted
from spnode_core.timegrid import Plan

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate

Values = NDArray[np.float64]

_WHAT = "No bound on the error along given trajectories is known"
_SHOWN = ("sharp_log10", "original_log10", "latent_size", "euclidean_size", "error")
# Halving every step may change a state by so much of its largest value.
_LARGEST_CHANGE = 0.02


@dataclasses.dataclass(frozen=True)
class Along:
    """Trajectories to bound the error along, their samples on the model's grid.

    Args:
        states: ``(batch, time, state)``, physical units, right where ``complete``.
        complete: Where every state was sampled, ``(batch, time)``.
        parameters: ``(batch, parameter)``.
        controls: ``(batch, interval, control)``.
        plan: ``surrogate.grid.plan`` of their times.
    """

    states: Values
    complete: NDArray[np.bool_]
    parameters: Values
    controls: Values
    plan: Plan

    def rows(self, chosen: NDArray[np.bool_]) -> "Along":
        """Some of the trajectories."""
        index = np.flatnonzero(chosen)
        return Along(
            self.states[index],
            self.complete[index],
            self.parameters[index],
            self.controls[index],
            self.plan.rows(index),
        )


def error_bound(surrogate: "Surrogate", parts: dict[str, Along]) -> Certificate:
    """Theorem 4: bounds on the latent error along trajectories, original and sharp.

    Args:
        surrogate: The model.
        parts: Trajectories by the name of their part, e.g. ``test``.
    """
    facts = facts_of(surrogate)
    parts = {name: part for name, part in parts.items() if part.plan.on_grid}
    if facts is None:
        return unknown(_WHAT, "the model is too large for dense matrices")
    if not facts.is_etd1:
        return unknown(_WHAT, "it is computed for steps of ETD1 only")
    if not parts:
        reason = "no trajectory has its samples on the times at which the model steps"
        return unknown(_WHAT, reason)
    # What f and A may do is known inside the training box alone.
    inside = {name: part.rows(_inside(surrogate, part)) for name, part in parts.items()}
    inside = {name: part for name, part in inside.items() if len(part.states)}
    if not inside:
        reason = "the inputs of every trajectory leave the training box"
        return unknown(_WHAT, reason)
    found: dict[str, dict[str, Any]] = {
        name: _bounds(facts, part) for name, part in inside.items()
    }
    for name, part in inside.items():
        found[name]["left_out"] = len(parts[name].states) - len(part.states)
    sharp, original, size, euclid, reached = (
        max(float(each[key]) for each in found.values()) for key in _SHOWN
    )
    norm = next(iter(found.values()))["norm"]
    inputs = surrogate.signature.parameters or surrogate.signature.controls
    boxed = ("parameters and controls inside the training box",) if inputs else ()
    return claim(
        True,
        f"Along the {' and '.join(found)} trajectories the latent error stays below "
        f"{_of_use(sharp, size)} (reached: {reached:.2g}; norm: {norm}); the original "
        f"form, with ||A|| + L, gives {_of_use(original, euclid)}.",
        (
            "the given trajectories, at their samples, from the encoded first one",
            *boxed,
            EXACT,
        ),
        is_vacuous=_says_nothing(sharp, size),
        parts=found,
    )


def _of_use(log10: float, size: float) -> str:
    """A bound in words; beyond the size of the latent states it says nothing."""
    if _says_nothing(log10, size):
        return f"10^{log10:.3g}, which is vacuous"
    return f"{10.0**log10:.3g}"


def _says_nothing(log10: float, size: float) -> bool:
    return not log10 <= np.log10(size)


def step_refinement(metrics: dict[str, dict[str, Any]]) -> Certificate:
    """How much halving every step changes, on held-out trajectories: a measurement.

    Args:
        metrics: What ``evaluate`` measured of each part.
    """
    what = "It was not measured whether the model depends on its steps"
    if not metrics:
        return unknown(what, "no trajectories were held out")
    value = max(float(each["refinement_error"]) for each in metrics.values())
    if not np.isfinite(value):
        reason = "with halved steps the rollouts are not finite"
        return unknown("The model depends on its steps", reason, value=None)
    holds = value <= _LARGEST_CHANGE
    cause = ": the model depends on its steps, or the system magnifies differences"
    cause = "" if holds else cause
    return claim(
        holds,
        "Halving every step changes no state by more than "
        f"{100 * value:.2g} % of its largest value{cause}.",
        (f"measured on the {' and '.join(metrics)} trajectories, not proved",),
        value=value,
        largest=_LARGEST_CHANGE,
    )


def _bounds(facts: Facts, part: Along) -> dict[str, Any]:
    """Bounds and what they are made of, for one part."""
    encoded, there = _on_grid(facts.surrogate, part)
    first = np.zeros_like(there)
    first[:, 0] = True
    arrived, rolled = (
        np.asarray(_arrivals(facts.surrogate, encoded, jnp.asarray(present), part))
        for present in (there, first)
    )
    samples, there = np.asarray(encoded), there[:, 1:, None]
    defect = np.where(there, samples[:, 1:] - arrived, 0.0)
    error = np.where(there, samples[:, 1:] - rolled, 0.0)
    radius = max(map(_longest, (samples, arrived, rolled)))
    slopes = facts.slopes.in_ball(facts.surrogate, facts.transform, radius)
    facts = dataclasses.replace(facts, slopes=slopes)
    steps = np.asarray(part.plan.distinct)[np.asarray(part.plan.step_kind)]
    if _is_by_component(facts):
        norm, reached = "largest component", float(np.abs(error).max())
        size = float(np.abs(samples).max())
        sharp = _by_component(facts, steps, np.abs(defect), part)
    else:
        norm, reached = "P", _longest(error @ facts.transform.T)
        size = _longest(samples @ facts.transform.T)
        sharp = _scalar(_growth(facts, steps), defect @ facts.transform.T)
    return {
        "original_log10": _scalar((facts.norm + slopes.euclid) * steps, defect),
        "sharp_log10": sharp,
        "norm": norm,
        "largest_defect": float(np.abs(defect).max()),
        "error": reached,
        "latent_size": size,
        "euclidean_size": _longest(samples),
        "trajectories": len(samples),
    }


def _inside(surrogate: "Surrogate", part: Along) -> NDArray[np.bool_]:
    """Which trajectories have parameters and controls of the training box."""
    domain, rows = surrogate.signature.domain, len(part.states)
    inputs = (
        (part.parameters, domain.parameters_lower, domain.parameters_upper),
        (part.controls, domain.controls_lower, domain.controls_upper),
    )
    kept = np.ones(rows, bool)
    for values, lower, upper in inputs:
        if lower:
            is_inside = (values >= np.asarray(lower)) & (values <= np.asarray(upper))
            kept &= is_inside.reshape(rows, -1).all(axis=1)
    return kept


def _on_grid(
    surrogate: "Surrogate", part: Along
) -> tuple[Float[Array, "batch grid latent"], NDArray[np.bool_]]:
    """Encoded samples at the grid times they belong to, and where there are any."""
    rows, times = part.complete.shape
    index = np.broadcast_to(np.asarray(part.plan.output_index), (rows, times))
    row, column = np.nonzero(part.complete)
    there = np.zeros((rows, part.plan.steps + 1), bool)
    there[row, index[row, column]] = True
    z = _encode(
        surrogate,
        jnp.asarray(part.states[row, column]),
        jnp.asarray(part.parameters.reshape(rows, -1)[row]),
    )
    empty = jnp.zeros((*there.shape, z.shape[1]))
    return empty.at[row, index[row, column]].set(z), there


@eqx.filter_jit
def _encode(
    surrogate: "Surrogate",
    states: Float[Array, "sample state"],
    parameters: Float[Array, "sample parameter"],
) -> Float[Array, "sample latent"]:
    return jax.vmap(surrogate.encode)(states, parameters)


def _arrivals(
    surrogate: "Surrogate",
    encoded: Float[Array, "batch grid latent"],
    present: Bool[Array, "batch grid"],
    part: Along,
) -> Float[Array, "batch step latent"]:
    parameters = jnp.asarray(part.parameters.reshape(len(encoded), -1))
    controls = jnp.asarray(part.controls)
    return eqx.filter_jit(restarted)(
        surrogate, encoded, present, part.plan, parameters, controls
    )


def _growth(facts: Facts, steps: Values) -> Values:
    """Logarithm of ``Lip_P`` of each step, ``e^{-ch} + (1 - e^{-ch}) L_P / c``."""
    decay, slope = facts.decay, facts.slopes.lyapunov
    if decay > 0:
        return np.log1p((slope / decay - 1) * -np.expm1(-decay * steps))
    # y' = -c y + L y_0 grows no faster than y' = (L - c) y where c <= 0.
    return (slope - decay) * steps


def _scalar(growth: Values, defect: Values) -> float:
    """``log10`` of the largest bound, by ``log B <- log(e^growth B + |r|)``."""
    with np.errstate(divide="ignore"):
        sizes = np.log(np.linalg.norm(defect, axis=-1))
    bound = np.full(len(defect), -np.inf)
    largest = -np.inf
    for k, rise in enumerate(growth):
        bound = np.logaddexp(bound + rise, sizes[:, k])
        largest = max(largest, float(bound.max()))
    return _log10(largest)


def _is_by_component(facts: Facts) -> bool:
    modes = facts.modes
    return facts.slopes.entries is not None and modes is not None and modes.pairs == 0


def _by_component(facts: Facts, steps: Values, defect: Values, part: Along) -> float:
    """``log10`` of the largest bound on a component of the error of real modes."""
    surrogate, linear = facts.surrogate, facts.dynamics.linear
    assert isinstance(linear, ModalOperator)
    assert facts.slopes.entries is not None
    entries = facts.slopes.entries
    normalise = surrogate.normaliser.parameters.normalise
    parameters = jnp.asarray(part.parameters.reshape(len(defect), -1))
    decay = np.asarray(jax.vmap(lambda p: linear.rates(normalise(p)))(parameters))
    decay = decay - linear.shift
    is_relaxation = facts.dynamics.nonlinear.is_relaxation
    bound = np.zeros_like(defect[:, 0])
    # What was divided out, so that bounds far beyond float64 are still compared.
    scale, largest = 0.0, -np.inf
    for k, step in enumerate(steps):
        fall = np.exp(-decay * step)
        # h phi_1(-r h), for rates of either sign and 0.
        weight = step * np.asarray(phi(1, jnp.asarray(-decay * step)))
        weight = weight * decay if is_relaxation else weight
        bound = fall * bound + weight * (bound @ entries.T)
        bound = bound + defect[:, k] * np.exp(-scale)
        top = float(bound.max())
        largest = max(largest, scale + np.log(top)) if top > 0 else largest
        if top > 1e100:
            bound, scale = bound / top, scale + float(np.log(top))
    return _log10(largest)


def _longest(vectors: Values) -> float:
    return float(np.linalg.norm(vectors, axis=-1).max())


def _log10(logarithm: float) -> float:
    """From a natural logarithm; of 0 that of the smallest float64."""
    return max(logarithm / np.log(10), -323.0)
