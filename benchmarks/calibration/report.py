"""``calibration.json`` with every case, ``calibration.md`` with what they come to."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration import family
from benchmarks.calibration.cases import (
    COVERAGE,
    NOISE,
    OBSERVED,
    STARTS,
    TIMES,
    Case,
)
from benchmarks.paper.machine import machine, processor, versions
from spnode_core.atomic import replacing

ASKED = 0.9


def write(
    out: Path,
    command: str,
    source: str,
    seed: int,
    card: dict[str, Any],
    cases: Sequence[Case],
    seconds: Sequence[float],
) -> str:
    """Write both files; return the line that matters."""
    numbers = {
        "command": command,
        "commit": source,
        "seed": seed,
        "machine": {**machine(), **processor()},
        "versions": versions(),
        "training": {
            "trajectories": sum(card["split_sizes"].values()),
            "outcome": card["outcome"],
            "seconds": round(card["seconds"], 1),
            "rmse": {
                name: card["metrics"]["test"]["states"][name]["rmse"]
                for name in OBSERVED
            },
        },
        **_summary(cases, seconds),
        "cases": [_case(each) for each in cases],
    }
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "calibration.json") as file:
        file.write((json.dumps(_rounded(numbers), indent=1) + "\n").encode())
    with replacing(out / "calibration.md") as file:
        file.write(_page(numbers).encode())
    return (
        f"{numbers['at_once']} of {len(cases)} cases: all three constants within "
        f"their simultaneous {COVERAGE:.0%} intervals"
    )


def _summary(cases: Sequence[Case], seconds: Sequence[float]) -> dict[str, Any]:
    truth = np.array([each.truth for each in cases])
    found = np.array([[e.value for e in each.found.estimates] for each in cases])
    wide = np.array(
        [
            [e.interval[1] / e.interval[0] for e in each.found.estimates]
            for each in cases
        ]
    )
    return {
        "at_once": sum(each.at_once for each in cases),
        "all_alone": sum(all(each.alone) for each in cases),
        "alone": np.sum([each.alone for each in cases], axis=0).tolist(),
        "rms_log_error": np.sqrt(np.mean(np.log(found / truth) ** 2, axis=0)).tolist(),
        "median_interval_ratio": np.median(wide, axis=0).tolist(),
        "at_bound": sum(
            any(e.at_bound for e in each.found.estimates) for each in cases
        ),
        "converged": sum(each.found.converged for each in cases),
        "several_optima": sum(len(each.found.optima) > 1 for each in cases),
        "seconds_first": seconds[0],
        "seconds_median": float(np.median(seconds[1:] or seconds)),
    }


def _case(case: Case) -> dict[str, Any]:
    return {
        "seed": case.seed,
        "truth": case.truth.tolist(),
        "values": [each.value for each in case.found.estimates],
        "interval": [list(each.interval) for each in case.found.estimates],
        "simultaneous": [list(each.simultaneous) for each in case.found.estimates],
        "at_bound": [each.at_bound for each in case.found.estimates],
        "chi_squared": case.found.misfit.chi_squared,
        "at_once": case.at_once,
    }


def _page(n: dict[str, Any]) -> str:
    cases, training, asked = len(n["cases"]), n["training"], ASKED * len(n["cases"])
    rows = "\n".join(
        f"| {name} | {n['alone'][i]} of {cases} | {n['rms_log_error'][i]:.1%} | "
        f"{n['median_interval_ratio'][i]:.2f} |"
        for i, name in enumerate(family.PARAMETERS)
    )
    times = ", ".join(f"{time:g}" for time in TIMES)
    error = ", ".join(f"{name} {sd:.2g}" for name, sd in training["rmse"].items())
    noise = ", ".join(
        f"{name} {sd:g}" for name, sd in zip(OBSERVED, NOISE, strict=True)
    )
    constants = f"within a factor {family.FACTOR:g} around 0.04, 3e7 and 1e4"
    verdict = "reached" if n["at_once"] >= asked else "**not reached**"
    where = f"{n['machine']['cores']} cores ({n['machine']['processor']})"
    return f"""# Calibration against the true solver

Robertson's reaction with its three rate constants as parameters, each log-uniform
{constants}. In each of {cases} seeded cases the solver
(LSODA, 1e-9), not the surrogate, makes {len(TIMES)} observations of
{" and ".join(OBSERVED)} at t = {times} from a start of its own, with noise of standard
deviation {noise}; the surrogate finds the constants from {STARTS} starts.
Made by `{n["command"]}` at commit {n["commit"]}, seed {n["seed"]}, on
{where}; every case is in
[calibration.json](calibration.json).

| what | asked | found |  |
|---|---|---|---|
| all three constants within their simultaneous {COVERAGE:.0%} intervals | \
≥ {asked:.0f} of {cases} | {n["at_once"]} of {cases} | {verdict} |
| all three within their own {COVERAGE:.0%} intervals (86 would be, were they \
independent) | – | {n["all_alone"]} of {cases} |  |

| constant | within its own {COVERAGE:.0%} interval | rms error | \
upper end over lower end (median) |
|---|---|---|---|
{rows}

Searches that ended by themselves: {n["converged"]} of {cases * STARTS}. Cases with
several optima: {n["several_optima"]}; with an estimate on a bound: {n["at_bound"]}.
One case takes {n["seconds_median"]:.2f} s (the first, which compiles,
{n["seconds_first"]:.1f} s).

The surrogate: {training["trajectories"]} trajectories with constants within a factor
{family.TRAINED_FACTOR:g}, {training["seconds"]:.0f} s of training
({training["outcome"]}); rms error on held-out trajectories {error},
which the intervals take into account ([how](../calibration.md)).
"""


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
