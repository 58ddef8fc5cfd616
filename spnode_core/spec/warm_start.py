"""What may be asked beside a warm start: nothing that would undo it."""

from typing import Any

from spnode_core.errors import InvalidInput
from spnode_core.spec.base import Spec
from spnode_core.spec.certified import certified_surrogate
from spnode_core.spec.nonlinear import PolynomialSpec
from spnode_core.spec.surrogate import SurrogateSpec
from spnode_core.spec.training import Preset, TrainingSpec


def check_warm_start(
    start: SurrogateSpec,
    surrogate: SurrogateSpec | None,
    training: TrainingSpec | None,
    preset: Preset,
    *,
    certified: bool,
) -> None:
    """Refuse a request that contradicts the surrogate it would go on from.

    Args:
        start: Description of that surrogate, complete.
        surrogate: What the caller fixed of it, which must be so already.
        training: What the caller fixed of the training.
        preset: How the rest of the training is decided.
        certified: Whether all rollouts must come together by construction.

    Raises:
        InvalidInput: The field, what it is and what the start allows.
    """
    if surrogate is not None:
        _check_kept("surrogate", surrogate, start)
    if certified and certified_surrogate(start, preset) != start:
        raise InvalidInput(
            "certified",
            found="true, though the surrogate of warm_start is not certified",
            expected="false, or a surrogate that was trained with certified",
        )
    if preset == "smooth":
        raise InvalidInput(
            "preset",
            found="'smooth', which infers operators anew, beside warm_start",
            expected="'auto' or 'paper'",
        )
    _check_stages(start, training or TrainingSpec())


def _check_kept(place: str, given: Any, kept: Any) -> None:
    if isinstance(given, Spec) and type(given) is type(kept):
        for name in sorted(given.model_fields_set):
            _check_kept(f"{place}.{name}", getattr(given, name), getattr(kept, name))
    elif isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            _check_kept(f"{place}.{name}", value, kept.get(name))
    elif given is not None and given != kept:
        raise InvalidInput(
            place,
            found=_brief(given),
            expected=f"{_brief(kept)}, as the surrogate of warm_start has it; leave it "
            "out",
        )


def _brief(value: Any) -> str:
    return repr(getattr(value, "kind", value))[:200]


def _check_stages(start: SurrogateSpec, training: TrainingSpec) -> None:
    """Refuse stages that put something else in the place of the start, or nothing."""
    is_polynomial = isinstance(start.nonlinear, PolynomialSpec)
    if training.initial is not None and not is_polynomial:
        raise InvalidInput(
            "training.initial",
            found="operator inference beside warm_start",
            expected="null: operators are those of the surrogate; only a polynomial is "
            "fitted again, from its own coefficients",
        )
    if training.pretraining is not None:
        raise InvalidInput(
            "training.pretraining",
            found="pretraining beside warm_start",
            expected="null: the surrogate has been trained already",
        )
    is_polished = training.polish == "lbfgs" and training.polish_iterations > 0
    if training.iterations == 0 and training.initial is None and not is_polished:
        raise InvalidInput(
            "training.iterations",
            found="0, and no polish: the surrogate of warm_start would stay as it is",
            expected="at least 1",
        )
