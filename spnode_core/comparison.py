r"""Several surrogates on the same trajectories, in the same units.

Each surrogate has scalings of its own, so its own normalised errors are no measure for
another. Here all are measured by one: for each state the deviation of rollouts over the
standard deviation of the data, both taken in what all have learned the state in (its
logarithm, say) or, where they differ, in what suits the data. Errors of whole
trajectories are then paired, since a hard one is hard for all,

.. math:: r_i = e_i^{new} / e_i^{reference}

and a sign test asks whether it would be as lopsided if both were equally good.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core.agreement import difference
from spnode_core.baselines import Baselines, measuring, normalised, sizes
from spnode_core.data_report import choose_kind
from spnode_core.dataset import Dataset
from spnode_core.deviations import Deviations, spread
from spnode_core.errors import InvalidInput
from spnode_core.metrics import predict
from spnode_core.normaliser import Normaliser, Scaling, fit_scaling
from spnode_core.restarts import Restarts, restarts
from spnode_core.spec import ScalingKind
from spnode_core.surrogate import Surrogate

Values = NDArray[np.float64]

SIGNIFICANT = 0.05
"""A sign test below this tells two surrogates apart."""
# Errors this much apart, relatively, are the same up to rounding.
_EQUAL = 1e-6


def compare(
    surrogates: Mapping[str, Surrogate],
    dataset: Dataset,
    training: Dataset | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Roll several surrogates out on the same trajectories.

    Args:
        surrogates: By name; the first is the reference that the others are held
            against.
        dataset: Trajectories that none of them learned from.
        training: Others of the same system, for all the trivial models; without them
            only the constant one is there.
        seed: Source of the later samples that rollouts start from as well.

    Returns:
        JSON; None stands for what is not finite. ``scalings``: what each state is
        measured in. ``surrogates``: by name ``error`` (of the worst state, from starts
        or from later samples, whichever is larger), ``normalised_rmse``,
        ``worst_state``, ``states`` and ``over_trajectories`` of rollouts from starts,
        and ``mid_trajectory``, the same from later samples. ``baselines``: trivial
        models on the same samples. ``paired``: for each but the reference on how many
        trajectories it is ``better``, ``worse`` and ``equal``, the ``median_ratio`` of
        errors, the ``p_value`` of a two-sided sign test, ``is_worse`` (its ``error`` is
        larger than the reference's) and a sentence.

    Raises:
        InvalidInput: There are fewer than two surrogates, or the dataset lacks what
            one of them takes.
    """
    if len(surrogates) < 2:
        raise InvalidInput("surrogates", found=str(len(surrogates)), expected="two")
    measure, judged = _judged(surrogates, dataset, seed)
    reference, *others = judged
    found = {
        **_measured(measure, judged, seed),
        "reference": reference,
        "baselines": measure.trivial(surrogates[reference], training),
        "paired": {
            name: _paired(name, judged[name], reference, judged[reference])
            for name in others
        },
    }
    return _plain(found)


def judge(
    surrogates: Mapping[str, Surrogate],
    dataset: Dataset,
    *,
    seed: int = 0,
    scalings: Mapping[str, ScalingKind] | None = None,
) -> dict[str, Any]:
    """Roll any number of surrogates out on the same trajectories, one too.

    Args:
        surrogates: By name.
        dataset: Trajectories that none of them learned from.
        seed: Source of the later samples that rollouts start from as well.
        scalings: What each state is measured in, as an earlier call found it; by
            default what these surrogates have learned the state in.

    Returns:
        ``trajectories``, ``samples``, ``seed``, ``scalings`` and ``surrogates``, as
        ``compare`` has them.

    Raises:
        InvalidInput: The dataset lacks what one of them takes.
    """
    kinds: list[ScalingKind] | None = None
    if scalings is not None:
        kinds = [scalings[name] for name in dataset.names]
    return _plain(_measured(*_judged(surrogates, dataset, seed, kinds), seed))


def check_agreement(surrogate: Surrogate, dataset: Dataset, why: str) -> None:
    """Refuse a dataset whose names or units are not those of a surrogate.

    Args:
        surrogate: What is to be rolled out on it, or trained.
        dataset: The trajectories.
        why: Ends the sentence on what belongs there, ``"which the surrogate takes"``.

    Raises:
        InvalidInput: The field of the dataset, what it has and what belongs there.
    """
    found = difference(
        surrogate.signature,
        states=dataset.names,
        parameters=dataset.parameter_names,
        controls=dataset.control_names,
        units=dataset.units,
        time_unit=dataset.time_unit,
    )
    if found is not None:
        raise InvalidInput(
            f"dataset.{found.what}",
            found=found.found,
            expected=f"{found.expected}, {why}",
        )


@dataclasses.dataclass(frozen=True)
class _Judged:
    """What was measured of one surrogate."""

    record: dict[str, Any]
    by_trajectory: Values

    @property
    def error(self) -> float:
        return self.record["error"]


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A dataset and its later parts, in units that are the same for all."""

    dataset: Dataset
    scaling: Scaling
    later: Restarts | None
    states: Values
    spread: Values

    @classmethod
    def of(cls, dataset: Dataset, kinds: list[ScalingKind], seed: int) -> "_Measure":
        scaling = measuring(fit_scaling(dataset.states, kinds), dataset)
        states = normalised(scaling, dataset.filled)
        return cls(
            dataset,
            scaling,
            restarts(dataset, seed),
            states,
            spread(states, dataset.mask, sizes(scaling, dataset)),
        )

    def judge(self, surrogate: Surrogate) -> _Judged:
        """Errors of rollouts from starts and from later samples."""
        usual = self._deviations(surrogate, self.dataset)
        with np.errstate(invalid="ignore"):
            over_trajectories = usual.over_trajectories()
        record: dict[str, Any] = {
            **_brief(usual),
            "over_trajectories": over_trajectories,
            "mid_trajectory": None,
        }
        worst = [_worst(record)]
        if self.later is not None:
            found = self._deviations(surrogate, self.later.dataset)
            record["mid_trajectory"] = _brief(found)
            worst.append(_worst(record["mid_trajectory"]))
        return _Judged({"error": max(worst), **record}, usual.by_trajectory)

    def trivial(
        self, surrogate: Surrogate, training: Dataset | None
    ) -> dict[str, dict[str, Any]]:
        """Errors of trivial models; the grid of a surrogate gives their clock."""
        constant = np.broadcast_to(self.states[:, :1], self.states.shape)
        predicted = {"constant": constant}
        if training is not None and training.trajectories:
            normaliser = _normaliser(self.scaling, training)
            known = Baselines(normaliser, surrogate.grid, training)
            predicted = known.predict(self.dataset)
        mask, elapsed = self.dataset.later, self.dataset.elapsed
        found = {}
        for name, states in predicted.items():
            errors = np.where(mask, (states - self.states) / self.spread, 0.0)
            found[name] = _brief(Deviations(self.dataset.names, errors, mask, elapsed))
        return found

    def _deviations(self, surrogate: Surrogate, dataset: Dataset) -> Deviations:
        mask = dataset.later
        predicted = predict(surrogate, dataset, surrogate.grid)
        finite = np.isfinite(predicted)
        moved = normalised(self.scaling, np.where(finite, predicted, 0.0))
        errors = (moved - normalised(self.scaling, dataset.filled)) / self.spread
        errors = np.where(mask, np.where(finite, errors, np.inf), 0.0)
        return Deviations(dataset.names, errors, mask, dataset.elapsed)


def _judged(
    surrogates: Mapping[str, Surrogate],
    dataset: Dataset,
    seed: int,
    kinds: list[ScalingKind] | None = None,
) -> tuple[_Measure, dict[str, _Judged]]:
    for name, surrogate in surrogates.items():
        check_agreement(surrogate, dataset, f"which {name} takes")
    kinds = kinds or _kinds([*surrogates.values()], dataset)
    measure = _Measure.of(dataset, kinds, seed)
    return measure, {name: measure.judge(each) for name, each in surrogates.items()}


def _measured(
    measure: _Measure, judged: Mapping[str, _Judged], seed: int
) -> dict[str, Any]:
    dataset = measure.dataset
    return {
        "trajectories": dataset.trajectories,
        "samples": int(dataset.mask.sum()),
        "seed": seed,
        "scalings": dict(zip(dataset.names, measure.scaling.kinds, strict=True)),
        "surrogates": {name: each.record for name, each in judged.items()},
    }


def _kinds(surrogates: list[Surrogate], dataset: Dataset) -> list[ScalingKind]:
    """What each state is measured in, ``linear``, ``log`` or ``asinh``."""
    learned = zip(*(each.normaliser.states.kinds for each in surrogates), strict=True)
    found: list[ScalingKind] = []
    for i, kinds in enumerate(learned):
        same: set[ScalingKind] = set(kinds)
        if same <= {"linear", "max", "none"}:
            same = {"linear"}
        suits = choose_kind(dataset.states[..., i].ravel())
        found.append(same.pop() if len(same) == 1 else suits)
    return found


def _normaliser(states: Scaling, training: Dataset) -> Normaliser:
    def scaling(values: Values, names: tuple[str, ...]) -> Scaling:
        return fit_scaling(values) if names else Scaling.skeleton([])

    return Normaliser(
        states=states,
        sums=Scaling.skeleton([]),
        parameters=scaling(training.parameters, training.parameter_names),
        controls=scaling(training.controls, training.control_names),
    )


def _brief(found: Deviations) -> dict[str, Any]:
    return {
        "normalised_rmse": found.overall,
        "worst_state": found.worst_state,
        "states": found.by_state,
    }


def _paired(
    name: str, new: _Judged, reference_name: str, reference: _Judged
) -> dict[str, Any]:
    """How the errors of one surrogate lie to those of another, row by row."""
    ours, theirs = new.by_trajectory, reference.by_trajectory
    with np.errstate(invalid="ignore"):
        apart = np.abs(ours - theirs)
    is_close = np.isfinite(apart) & (apart <= _EQUAL * np.maximum(ours, theirs))
    equal = is_close | (~np.isfinite(ours) & ~np.isfinite(theirs))
    better = int(np.sum((ours < theirs) & ~equal))
    worse = len(ours) - better - int(equal.sum())
    is_worse = not new.error <= reference.error * (1 + _EQUAL)
    found = {
        "reference": reference_name,
        "better": better,
        "worse": worse,
        "equal": int(equal.sum()),
        "median_ratio": _median_ratio(ours, theirs, equal),
        "p_value": _sign_test(better, worse),
        "is_worse": is_worse,
    }
    return {**found, "verdict": _verdict(name, found, new, reference)}


def _median_ratio(ours: Values, theirs: Values, equal: NDArray[np.bool_]) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(equal, 1.0, ours / theirs)
    return float(np.median(ratios))


def _sign_test(better: int, worse: int) -> float:
    """Probability of a split as lopsided among equals; 1 where there is none."""
    # SciPy loads here alone, as elsewhere.
    from scipy.stats import binomtest

    count = better + worse
    return float(binomtest(better, count).pvalue) if count else 1.0


def _verdict(
    name: str, paired: dict[str, Any], new: _Judged, reference: _Judged
) -> str:
    better, ratio = paired["better"], paired["median_ratio"]
    total = better + paired["worse"] + paired["equal"]
    if paired["p_value"] >= SIGNIFICANT:
        word = "no clear difference: better"
    elif better > paired["worse"]:
        word = "better"
    else:
        word = "worse: better"
    both = [(new.record, reference.record, "from starts")]
    if new.record["mid_trajectory"] is not None:
        later = (each.record["mid_trajectory"] for each in (new, reference))
        both.append((*later, "from later samples"))
    errors = ", ".join(
        f"{where} {_worst(ours):.2g} against {_worst(theirs):.2g}"
        for ours, theirs, where in both
    )
    return (
        f"{name} against {paired['reference']}: {word} on {better} of {total} "
        f"trajectories, median ratio of errors {ratio:.2g} (sign test "
        f"p = {paired['p_value']:.2g}); error of the worst state {errors} of the spread"
    )


def _worst(record: dict[str, Any]) -> float:
    return record["worst_state"]["normalised_rmse"]


def _plain(value: Any) -> Any:
    """What is not finite as None, for JSON."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
