"""What a request may ask for beside the states: prediction intervals, and a spread."""

from services.rollouts.request import Request
from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature


def coverage_of(request: Request, signature: Signature) -> float | None:
    """The coverage that is asked for, where the version can promise it.

    Raises:
        InvalidInput: It cannot, and why.
    """
    wanted, known = request.options.intervals, signature.intervals
    if wanted is None:
        return None
    if _is_not_of_states(request):
        expected = "none: only the states of a rollout have intervals"
    elif known is None:
        expected = (
            "none: this version has no intervals, since too few trajectories were held "
            "out for validation, or since it is older than they are; train it again"
        )
    elif wanted not in known.coverages:
        expected = (
            f"one of {', '.join(map(str, known.coverages))}; from "
            f"{known.trajectories} held-out trajectories no coverage above "
            f"{known.largest:.3g} can be promised"
        )
    else:
        return wanted
    raise InvalidInput("intervals", found=repr(wanted), expected=expected)


def spread_of(request: Request, signature: Signature) -> bool:
    """Whether the spread is asked for, where the version has one.

    Raises:
        InvalidInput: It has none, and why.
    """
    if not request.options.spread:
        return False
    if _is_not_of_states(request):
        expected = "false: only the states of a rollout have a spread"
    elif signature.members == 1:
        expected = "false: this version has one member; training with members has more"
    else:
        return True
    raise InvalidInput("spread", found="true", expected=expected)


def _is_not_of_states(request: Request) -> bool:
    return request.operation != "rollout" or request.options.outputs.latent
