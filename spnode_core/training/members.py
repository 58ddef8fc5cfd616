"""Members of an ensemble: their seeds, their data, and what is reported of them.

Members that are trained by gradients differ in first weights and minibatches. Least
squares know neither: there each member but the first fits a resample of the training
trajectories, drawn with repetition (bagging).

Source:
    Lakshminarayanan, Pritzel & Blundell (2017), arXiv 1612.01474 (members by seeds);
    Breiman (1996), Machine Learning 24, 123-140 (bagging).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core.baselines import normalised
from spnode_core.dataset import Dataset
from spnode_core.ensemble import members_of
from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.metrics import Compared, predict
from spnode_core.spec import MOST_MEMBERS, PODSpec, ResidualSpec
from spnode_core.surrogate import Surrogate

Values = NDArray[np.float64]


def check_members(members: int, start: Surrogate | None) -> None:
    """Refuse a number of members that no ensemble has, and ensembles that go on.

    Args:
        members: How many are asked for.
        start: The surrogate that training goes on from, if any.

    Raises:
        InvalidInput: It is none of 1 to 16, or more than one goes on.
    """
    is_count = isinstance(members, int) and not isinstance(members, bool)
    if not is_count or not 1 <= members <= MOST_MEMBERS:
        expected = f"a number from 1 to {MOST_MEMBERS}"
        raise InvalidInput("members", found=repr(members), expected=expected)
    if start is None:
        return
    if members > 1:
        raise InvalidInput(
            "members",
            found=f"{members} with warm_start",
            expected="1: members that begin with the same parameters would differ too "
            "little to say anything",
        )
    if start.signature.members > 1:
        raise InvalidInput(
            "warm_start",
            found=f"an ensemble of {start.signature.members} members",
            expected="one of its members, as ensemble.member(0) gives it",
        )


def member_seeds(seed: int, members: int) -> tuple[int, ...]:
    """The seed of each member: the run's own first, the others derived from it."""
    others = [
        int(np.random.SeedSequence([seed, 40, number]).generate_state(1)[0] >> 1)
        for number in range(1, members)
    ]
    return (seed, *others)


def resampled(dataset: Dataset, seed: int) -> Dataset:
    """As many trajectories as there are, drawn with repetition.

    Raises:
        TrainingError: There is only one, of which every resample is the same.
    """
    count = dataset.trajectories
    if count < 2:
        raise TrainingError(
            "members fit resamples of the training trajectories, and of one trajectory "
            "all resamples are the same: give more, or leave members at 1"
        )
    draws = np.random.default_rng([seed, 41]).integers(0, count, count)
    return dataset.take(np.sort(draws))


def shares_latents(surrogate: Surrogate) -> bool:
    """Whether members encode alike, so that coefficients of one mean it for another."""
    kind = surrogate.spec.autoencoder
    is_trained = isinstance(kind, ResidualSpec)
    return not (is_trained or (isinstance(kind, PODSpec) and kind.width is not None))


def members_report(
    surrogate: Surrogate, seeds: tuple[int, ...], parts: dict[str, Dataset]
) -> dict[str, Any] | None:
    """Errors of the members beside that of their mean, and whether they spread so.

    Args:
        surrogate: An ensemble; of another surrogate there is nothing to say.
        seeds: Those of its members.
        parts: Held-out trajectories by name, those to judge by first.

    Returns:
        ``members``, ``seeds``, ``part``, ``normalised_rmse`` of the mean,
        ``members_normalised_rmse`` of each, and ``spread``: ``within_two``, the share
        of held-out samples within two standard deviations of the mean (of a state,
        the least: ``lowest_of_a_state``), ``correlation`` of the ranks of error and
        spread, and a ``note``. The last four are None where nothing was held out.
    """
    members = surrogate.signature.members
    if members == 1:
        return None
    known: dict[str, Any] = {"members": members, "seeds": list(seeds), "part": None}
    named = next(((n, part) for n, part in parts.items() if part.trajectories), None)
    if named is None:
        empty = ("normalised_rmse", "members_normalised_rmse", "spread")
        return known | dict.fromkeys(empty)
    name, part = named
    each = np.stack([predict(one, part, one.grid) for one in members_of(surrogate)])
    compared = Compared.of(surrogate, part)

    def error(predicted: Values) -> float:
        states = normalised(compared.scaling, predicted)
        return compared.with_states(states).overall

    return {
        **known,
        "part": name,
        "normalised_rmse": error(each.mean(axis=0)),
        "members_normalised_rmse": [error(states) for states in each],
        "spread": _spread(each, part),
    }


def _spread(each: Values, part: Dataset) -> dict[str, Any]:
    """How often the truth is within two spreads, and whether both grow together."""
    mask = part.later
    wrong = np.abs(each.mean(axis=0) - part.filled)
    deviation = each.std(axis=0, ddof=1)
    held = wrong <= 2 * deviation
    states = [(..., i) for i in range(mask.shape[2]) if mask[..., i].any()]
    per_state = [float(held[at][mask[at]].mean()) for at in states]
    within = float(held[mask].mean())
    correlations = [
        _rank_correlation(wrong[at][mask[at]], deviation[at][mask[at]]) for at in states
    ]
    return {
        "within_two": within,
        "lowest_of_a_state": min(per_state),
        "correlation": float(np.mean(correlations)),
        "note": f"{100 * within:.0f} % of the held-out samples lie within two spreads "
        "of the mean. The spread says where members disagree; it is no calibrated "
        "interval, which `intervals` are",
    }


def _rank_correlation(one: Values, other: Values) -> float:
    """Of ranks; 0 where one of them does not vary."""
    ranks = [np.argsort(np.argsort(each)).astype(float) for each in (one, other)]
    if any(np.ptp(each) == 0 for each in (one, other)):
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
