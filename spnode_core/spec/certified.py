"""Which surrogates can be made to contract by construction, and how."""

from spnode_core.errors import InvalidInput
from spnode_core.spec.linear import DissipativeSpec, HurwitzSpec, ModalSpec
from spnode_core.spec.nonlinear import (
    ContractingSpec,
    NonlinearSpec,
    NoNonlinearSpec,
    RelaxationSpec,
)
from spnode_core.spec.surrogate import SurrogateSpec
from spnode_core.spec.training import Preset

CONTRACTION = 0.95
"""Bound on the slope of a certified relaxation target."""
LARGEST_CERTIFIED = 256
"""Certificates are computed for so many latent variables: they take dense matrices."""
# Of the decay; what is left must be more than rounding, of float32 too.
_MOST_USED = 0.999


def certified_surrogate(spec: SurrogateSpec | None, preset: Preset) -> SurrogateSpec:
    """The description with what makes all rollouts come together, whatever is trained.

    Relaxation form with real modes gets a target of slope below 1, any other decaying
    ``A`` a contracting network. What the caller fixed is kept, or refused.

    Args:
        spec: What the caller fixed of the surrogate.
        preset: How the rest is decided.

    Raises:
        InvalidInput: The description cannot be certified, and why.
    """
    spec = spec or SurrogateSpec()
    if preset == "smooth":
        raise InvalidInput(
            "preset",
            found="'smooth', whose quadratic operator has no bounded slope",
            expected="'auto' or 'paper' where certified is true",
        )
    if spec.integrator != "etd1":
        raise InvalidInput(
            "surrogate.integrator",
            found=f"{spec.integrator!r}, for whose steps contraction is not proved",
            expected="'etd1' where certified is true",
        )
    if spec.latent is not None:
        check_certified_size(spec.latent)
    _check_linear(spec)
    is_open = "linear" not in spec.model_fields_set and preset == "paper"
    return _with(spec, _nonlinear(spec, is_dense=is_open))


def check_certified_size(latent: int) -> None:
    """Refuse more latent variables than certificates are computed for.

    Raises:
        InvalidInput: There are more.
    """
    if latent > LARGEST_CERTIFIED:
        raise InvalidInput(
            "surrogate.latent",
            found=f"{latent}, for which no certificate is computed",
            expected=f"at most {LARGEST_CERTIFIED} where certified is true",
        )


def _check_linear(spec: SurrogateSpec) -> None:
    linear = spec.linear
    if not isinstance(linear, ModalSpec | HurwitzSpec | DissipativeSpec):
        raise InvalidInput(
            "surrogate.linear.kind",
            found=f"{linear.kind!r}, whose decay is not known by construction",
            expected="'modal', 'hurwitz' or 'dissipative' where certified is true",
        )
    if linear.shift > 0:
        raise InvalidInput(
            "surrogate.linear.shift",
            found=f"{linear.shift:g}, which lets the linear part grow",
            expected="0 where certified is true",
        )


def _nonlinear(spec: SurrogateSpec, *, is_dense: bool) -> NonlinearSpec:
    linear, nonlinear = spec.linear, spec.nonlinear
    is_real = isinstance(linear, ModalSpec) and not linear.oscillating and not is_dense
    if "nonlinear" not in spec.model_fields_set:
        if is_real:
            return RelaxationSpec(contraction=CONTRACTION)
        if is_dense:
            return ContractingSpec(width=100, depth=2, initial_scale=0.1)
        return ContractingSpec()
    if isinstance(nonlinear, ContractingSpec):
        _check_room("margin", nonlinear.margin)
        return nonlinear
    if isinstance(nonlinear, NoNonlinearSpec):
        return nonlinear
    if not isinstance(nonlinear, RelaxationSpec):
        raise InvalidInput(
            "surrogate.nonlinear.kind",
            found=f"{nonlinear.kind!r}, which may outweigh the decay of A",
            expected="'relaxation' (with real modes), 'contracting' or 'none' where "
            "certified is true",
        )
    if not is_real:
        kind = f"linear kind {linear.kind!r}"
        if isinstance(linear, ModalSpec):
            kind = f"{linear.oscillating} oscillating pairs"
        raise InvalidInput(
            "surrogate.nonlinear.kind",
            found=f"'relaxation' with {kind}, whose steps need not contract",
            expected="real modes (linear kind 'modal', oscillating 0), or nonlinear "
            "kind 'contracting', where certified is true",
        )
    if nonlinear.contraction is not None:
        _check_room("contraction", nonlinear.contraction)
        return nonlinear
    return nonlinear.model_copy(update={"contraction": CONTRACTION})


def _check_room(field: str, used: float) -> None:
    if used > _MOST_USED:
        raise InvalidInput(
            f"surrogate.nonlinear.{field}",
            found=f"{used:.15g}, which leaves no more than rounding",
            expected=f"at most {_MOST_USED} where certified is true",
        )


def _with(spec: SurrogateSpec, nonlinear: NonlinearSpec) -> SurrogateSpec:
    try:
        return spec.replaced(nonlinear=nonlinear)
    except ValueError as error:
        raise InvalidInput(
            "surrogate",
            found=f"a description that cannot be certified ({_words(error)})",
            expected="rates that do not depend on parameters beside nonlinear kind "
            "'contracting'",
        ) from error


def _words(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    return errors()[0]["msg"] if errors else str(error)
