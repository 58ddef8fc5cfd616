"""What an evaluation comes to, in plain words: where not to rely on a surrogate."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Errors below this are rounding: nobody need beat them.
_NEGLIGIBLE = 1e-6
# Rollouts from later samples may err by so much more than those from the starts.
_MOST_AT_RESTART = 2.0
# Rollouts may begin so far from their initial conditions, in units of the spread.
_MOST_AT_START = 0.3
_NAMED_STATES = 3


def warnings_of(metrics: Mapping[str, Any]) -> list[str]:
    """Plain warnings, a sentence each; none where nothing speaks against the surrogate.

    Args:
        metrics: What ``evaluate`` measured of held-out trajectories.
    """
    return [
        *_beaten(metrics),
        *_wrong_at_start(metrics),
        *_without_skill(metrics),
        *_worse_from_later_samples(metrics),
        *_step_dependent(metrics),
    ]


def _beaten(metrics: Mapping[str, Any]) -> list[str]:
    """States on which a trivial baseline does as well."""
    found = []
    for name, (best, least) in _best_baselines(metrics).items():
        error = metrics["states"][name]["normalised_rmse"]
        if _is_beaten(error, least):
            found.append((error - least, best, name, error, least))
    found.sort(key=lambda each: -each[0])
    said = [
        f"no better than {best.replace('_', ' ')} on {name}: {_short(error)} against "
        f"{_short(least)}"
        for _, best, name, error, least in found[:_NAMED_STATES]
    ]
    more = len(found) - len(said)
    return [*said, f"nor on {more} other states"] if more else said


def _wrong_at_start(metrics: Mapping[str, Any]) -> list[str]:
    """States that a rollout does not begin with as they were given to it."""
    start = metrics.get("start")
    if not start:
        return []
    found = [
        (error, name)
        for name, error in start["states"].items()
        if not error < _MOST_AT_START
    ]
    found.sort(key=lambda each: -np.nan_to_num(each[0], nan=np.inf))
    said = [
        f"at the start {name} is not what a rollout was given: {_short(error)}"
        for error, name in found[:_NAMED_STATES]
    ]
    more = len(found) - len(said)
    return [*said, f"nor are {more} other states"] if more else said


def _without_skill(metrics: Mapping[str, Any]) -> list[str]:
    """States that err by their spread or more, whatever trivial baselines do.

    An error of one is that of the state's mean.
    """
    best = _best_baselines(metrics)
    found = []
    for name, row in metrics["states"].items():
        error = row.get("normalised_rmse")
        if error is None or error < 1:
            continue
        if name not in best or not _is_beaten(error, best[name][1]):
            found.append((error, name))
    found.sort(key=lambda each: -each[0])
    said = [
        f"no skill on {name}: it errs by {100 * error:,.0f} % of its spread, and its "
        "mean by 100 %"
        for error, name in found[:_NAMED_STATES]
    ]
    more = len(found) - len(said)
    return [*said, f"no skill on {more} other states"] if more else said


def _best_baselines(metrics: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """The trivial baseline that does best on each state, and its error."""
    baselines = metrics.get("baselines") or {}
    if not baselines:
        return {}
    found = {}
    for name, row in metrics["states"].items():
        if "normalised_rmse" in row:
            errors = {each: of["states"][name] for each, of in baselines.items()}
            found[name] = min(errors.items(), key=lambda item: item[1])
    return found


def _is_beaten(error: float, least: float) -> bool:
    # Also where the error is not a number.
    return not (error <= _NEGLIGIBLE or error < least)


def _worse_from_later_samples(metrics: Mapping[str, Any]) -> list[str]:
    restarted = metrics.get("mid_trajectory")
    if not restarted:
        return []
    error, usual = restarted["normalised_rmse"], restarted["from_start"]
    if error <= max(_MOST_AT_RESTART * usual, _NEGLIGIBLE):
        return []
    return [
        "rollouts that start in the middle of a trajectory are worse than those from "
        f"its start: {_short(error)} against {_short(usual)} at the same samples"
    ]


def _step_dependent(metrics: Mapping[str, Any]) -> list[str]:
    change = metrics["refinement_error"]
    error = max(row.get("max_abs_scaled", 0.0) for row in metrics["states"].values())
    if change <= max(error, _NEGLIGIBLE):
        return []
    return [
        f"halving every step changes a state by {_short(change)} of its largest value, "
        f"more than the largest error, {_short(error)}: the model depends on its steps"
    ]


def _short(number: float) -> str:
    return f"{number:,.0f}" if 99.5 <= number < 1e6 else f"{number:.2g}"
