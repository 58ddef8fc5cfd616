"""Surrogates that were trained apart, each anywhere, joined into one ensemble."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from spnode_core.comparison import check_agreement
from spnode_core.dataset import Dataset
from spnode_core.ensemble import Ensemble, ensemble_of
from spnode_core.errors import InvalidInput
from spnode_core.metrics import with_intervals
from spnode_core.spec import MOST_MEMBERS, SplitSpec
from spnode_core.surrogate import Surrogate, require_x64
from spnode_core.training.assessment import assess
from spnode_core.training.fit import Run
from spnode_core.training.parts import Parts

_ROUNDING = 1e-9
"""Numbers found from the same data on two machines agree to this, relatively."""
_SAME = 1e-6
"""Parameters that agree to this, relatively, are those of one training."""


def joinable(surrogates: Sequence[Surrogate], most: int = MOST_MEMBERS) -> list[int]:
    """Which of several surrogates can be members of one ensemble with the first.

    They have its description, signature and scalings, up to what two machines round
    differently, as those have that were trained by other seeds on the same
    trajectories. None is there twice, as least squares on the same data give it; an
    ensemble is no member.

    Args:
        surrogates: The best first.
        most: How many are wanted.

    Returns:
        Their places, the first one's among them.
    """
    found: list[int] = []
    for place, one in enumerate(surrogates):
        is_new = not any(_are_same(one, surrogates[each]) for each in found)
        if len(found) < most and is_new and _agree(surrogates[0], one):
            found.append(place)
    return found


def join(
    members: Sequence[Surrogate],
    dataset: Dataset,
    *,
    split: SplitSpec | None = None,
    seed: int = 0,
    seeds: Sequence[int] = (),
    certified: bool = False,
) -> Run:
    """Make one ensemble of surrogates that were trained on the same trajectories.

    Its intervals are calibrated on the validation part anew, and its errors and
    certificates are its own.

    Args:
        members: Two to 16 that agree, as ``joinable`` finds them.
        dataset: What they were trained on.
        split: How all of them divided it, as they gave it to ``fit``.
        seed: What divided it where ``split`` has no seed; samples are drawn by it too.
        seeds: Those that the members were trained with, for the report.
        certified: Whether all rollouts have to come together by construction, as they
            have to of each member.

    Returns:
        The ensemble without a history, and a report of what was measured and proved.

    Raises:
        InvalidInput: The members are fewer than two, too many, or do not agree; or the
            dataset is of other states.
        TrainingError: Rollouts of their mean leave the finite range, or do not contract
            provably where they have to.
    """
    require_x64()
    _check(members, dataset, seeds)
    parts = Parts.of(dataset, split or SplitSpec(), seed)
    alike = [_with_parts_of(members[0], one) for one in members]
    ensemble = with_intervals(ensemble_of(alike), parts.validation)
    report: dict[str, Any] = {
        "outcome": f"{len(members)} surrogates joined",
        **assess(ensemble, parts, seed, tuple(seeds), certified=certified),
    }
    return Run(ensemble, [], report, parts.held_out)


def _check(
    members: Sequence[Surrogate], dataset: Dataset, seeds: Sequence[int]
) -> None:
    if not isinstance(dataset, Dataset):
        raise InvalidInput(
            "dataset",
            found=type(dataset).__name__,
            expected="a Dataset, as load_dataset reads one from a file",
        )
    if not 2 <= len(members) <= MOST_MEMBERS:
        raise InvalidInput(
            "members", found=str(len(members)), expected=f"2 to {MOST_MEMBERS}"
        )
    for place, one in enumerate(members):
        if not isinstance(one, Surrogate):
            raise InvalidInput(
                f"members[{place}]",
                found=type(one).__name__,
                expected="a Surrogate, as fit(…).surrogate is one",
            )
        check_agreement(one, dataset, f"which members[{place}] takes")
    if apart := set(range(len(members))) - set(joinable(members)):
        raise InvalidInput(
            f"members[{min(apart)}]",
            found="another description, signature or scaling than the first member's, "
            "the same surrogate once more, or an ensemble",
            expected="surrogates of one description, trained by different seeds on "
            "the same trajectories",
        )
    if len(seeds) not in (0, len(members)):
        raise InvalidInput(
            "seeds", found=str(len(seeds)), expected=f"one a member: {len(members)}"
        )


def _agree(one: Surrogate, other: Surrogate) -> bool:
    """Whether they are of one description, and none is an ensemble."""
    if isinstance(one, Ensemble) or isinstance(other, Ensemble):
        return False
    described = [
        (
            each.spec.model_dump(mode="json"),
            each.signature.model_dump(mode="json", exclude={"intervals"}),
        )
        for each in (one, other)
    ]
    kinds = (jax.tree.structure(each.normaliser) for each in (one, other))
    return (
        _are_near(*described)
        and len(set(kinds)) == 1
        and _shapes(one) == _shapes(other)
        and _are_close(one.normaliser, other.normaliser, _ROUNDING)
    )


def _are_near(one: Any, other: Any) -> bool:
    """Whether two parts of JSON are equal but for the rounding of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _are_near(one[key], other[key]) for key in one
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_are_near, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_ROUNDING)
    return one == other


def _are_same(one: Surrogate, other: Surrogate) -> bool:
    """Whether both are what one training gives, on whichever machine."""
    return _shapes(one) == _shapes(other) and _are_close(
        _trained(one), _trained(other), _SAME
    )


def _are_close(one: Any, other: Any, relative: float) -> bool:
    """Whether the arrays of two trees of one shape differ by rounding at most."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(
        float(np.abs(a - b).max(initial=0.0))
        <= relative * float(np.abs(b).max(initial=0.0))
        for a, b in pairs
    )


def _trained(surrogate: Surrogate) -> Any:
    return eqx.filter((surrogate.autoencoder, surrogate.dynamics), eqx.is_array)


def _shapes(surrogate: Surrogate) -> list[tuple[int, ...]]:
    own = (surrogate.normaliser, surrogate.neighbours, _trained(surrogate))
    return [each.shape for each in jax.tree.leaves(eqx.filter(own, eqx.is_array))]


def _with_parts_of(first: Surrogate, one: Surrogate) -> Surrogate:
    """A surrogate with all that members share taken from the first, to the last bit."""
    own = [(each.autoencoder, each.dynamics, each.neighbours) for each in (first, one)]
    (kept, rest), (arrays, _) = (eqx.partition(each, eqx.is_array) for each in own)
    leaves = jax.tree.leaves(arrays)
    given = jax.tree.unflatten(jax.tree.structure(kept), leaves)
    autoencoder, dynamics, neighbours = eqx.combine(given, rest)
    return Surrogate(
        first.spec,
        first.signature,
        first.constraint,
        first.normaliser,
        autoencoder,
        dynamics,
        neighbours,
    )
