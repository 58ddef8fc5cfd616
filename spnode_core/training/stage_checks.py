"""Which stages fit which surrogate, said before anything is computed."""

from spnode_core.errors import InvalidInput
from spnode_core.spec import PODSpec, SurrogateSpec, TrainingSpec

_OF_ROLLOUTS = (
    "horizon",
    "later_starts",
    "reconstruction",
    "consistency",
    "manifold",
)
"""Parts of the training that only the loss of rollouts has, by their fields."""
_EXACT = ("etd1", "etd2rk", "krogstad", "exprb32")


def check_stages(surrogate: SurrogateSpec, training: TrainingSpec) -> None:
    """Refuse a training whose stages the surrogate has no parts for.

    Raises:
        InvalidInput: Operator inference of operators that no least squares finds,
            pretraining without networks on principal directions, or pairs of samples
            for latent variables that do not evolve linearly.
    """
    if training.initial is not None:
        _check_inferable(surrogate)
    if training.pairs and (refusal := why_no_pairs(surrogate, training)):
        raise refusal
    wanted = "training.pretraining" if training.pretraining else None
    if training.manifold > 0:
        wanted = wanted or "training.manifold"
    autoencoder = surrogate.autoencoder
    if wanted and not (isinstance(autoencoder, PODSpec) and autoencoder.width):
        raise InvalidInput(
            wanted,
            found=f"an autoencoder of kind {autoencoder.kind!r}",
            expected="surrogate.autoencoder of kind 'pod' with a width",
        )


def why_no_pairs(
    surrogate: SurrogateSpec, training: TrainingSpec
) -> InvalidInput | None:
    """What is against training on pairs of samples, None where nothing is."""
    exact = "of which one step of any length is exact"
    if surrogate.nonlinear.kind != "none":
        return InvalidInput(
            "training.pairs",
            found=f"true, with a nonlinear operator of kind "
            f"{surrogate.nonlinear.kind!r}",
            expected=f"false, or surrogate.nonlinear of kind 'none', {exact}",
        )
    is_precomputed = surrogate.propagators == "precomputed"
    if not (is_precomputed and surrogate.integrator in _EXACT):
        return InvalidInput(
            "training.pairs",
            found=f"true, with integrator {surrogate.integrator!r} and propagators "
            f"{surrogate.propagators!r}",
            expected=f"false, or precomputed propagators of {', '.join(_EXACT)}, "
            f"{exact}",
        )
    for field in _OF_ROLLOUTS:
        if value := getattr(training, field):
            return InvalidInput(
                f"training.{field}",
                found=f"{value!r} beside training.pairs",
                expected="nothing: it is a part of the loss of rollouts",
            )
    if training.polish != "none":
        return InvalidInput(
            "training.polish",
            found=f"{training.polish!r} beside training.pairs",
            expected="'none': it lowers the loss of rollouts",
        )
    if training.noise > 0 and surrogate.logarithms:
        return InvalidInput(
            "training.noise",
            found=f"{training.noise:g} beside surrogate.autoencoder.logarithms",
            expected="0: it would hide what logarithms tell of small states",
        )
    return None


def _check_inferable(spec: SurrogateSpec) -> None:
    nonlinear = spec.nonlinear
    is_full = nonlinear.kind == "polynomial" or (
        nonlinear.kind == "quadratic"
        and nonlinear.affine
        and not nonlinear.energy_preserving
    )
    if not is_full:
        raise InvalidInput(
            "training.initial",
            found=f"operator inference of a {nonlinear.kind!r} operator",
            expected="surrogate.nonlinear of kind 'polynomial', or 'quadratic', affine "
            "and not energy_preserving",
        )
    if spec.linear.kind == "modal" and spec.linear.oscillating:
        raise InvalidInput(
            "training.initial",
            found="oscillating pairs in surrogate.linear",
            expected="real modes; what turns them is part of f",
        )
