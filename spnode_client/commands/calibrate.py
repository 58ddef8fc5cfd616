"""``calibrate``: what made the observations that a table holds."""

import csv
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from spnode_client.calibrations import Calibration
from spnode_client.commands.inputs import parse_rows, parse_times
from spnode_client.commands.schedule import Deadline, Gpu, Priority, schedule_of
from spnode_client.connection import connection
from spnode_client.records import Record
from spnode_client.terminal import (
    Json,
    UsageError,
    check_once,
    emit,
    err,
    follow,
    out,
    print_table,
)

_FIELDS = (("parameters", "parameters"), ("states", "x0"), ("controls", "controls"))


def calibrate(
    model: Annotated[str, typer.Argument(help="name, name@alias or name/3.")],
    observations: Annotated[
        Path,
        typer.Argument(help="CSV with columns time, state, value and maybe sigma."),
    ],
    unknown: Annotated[
        list[str],
        typer.Option(help='What is to be found and its bounds, "k1=0.01:0.1".'),
    ],
    prior: Annotated[
        list[str] | None,
        typer.Option(help='Mean and standard deviation known before, "k1=0.04:0.01".'),
    ] = None,
    x0: Annotated[
        str | None,
        typer.Option(help='Initial state "1,0,0"; any number where it is unknown.'),
    ] = None,
    parameters: Annotated[
        str | None, typer.Option(help="Parameters, in the form of --x0.")
    ] = None,
    controls: Annotated[
        str | None, typer.Option(help='Controls, a row an interval, "0;1;0.5".')
    ] = None,
    control_times: Annotated[
        str | None, typer.Option(help="Start of each interval, the first 0.")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help='Standard deviation by state, "y1=0.01,y2=5e-7"; estimated without it '
            "and without a column sigma."
        ),
    ] = None,
    model_error: Annotated[
        str | None,
        typer.Option(
            help="The model's own, in the form of --noise; held-out error by default."
        ),
    ] = None,
    starts: Annotated[int, typer.Option(help="Number of searches.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of where they begin.")] = 0,
    coverage: Annotated[
        float, typer.Option(help="Probability that intervals are made for.")
    ] = 0.95,
    priority: Priority = None,
    deadline: Deadline = None,
    gpu: Gpu = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Queue the job and return.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find parameters, initial states or controls from observations.

    Example: spnode calibrate mine seen.csv --unknown k1=0.01:0.1 --x0 1,0,0
    """
    client = connection.client()
    signature = client.models.version(model).record["signature"]
    states, body = read_observations(observations, signature["states"])
    if "noise" in body and noise is not None:
        raise UsageError("--noise beside a column sigma: expected one of both")
    if noise is not None:
        body["noise"] = _by_state(noise, "--noise", states)
    if model_error is not None:
        body["model_error"] = _by_state(model_error, "--model-error", states)
    options: Record = {"starts": starts, "seed": seed, "coverage": coverage}
    options["schedule"] = schedule_of(priority, deadline, gpu)
    for name, text in (("x0", x0), ("parameters", parameters)):
        if text is not None:
            options[name] = parse_rows(text, f"--{name}")
    if controls is not None:
        options["controls"] = np.atleast_2d(parse_rows(controls, "--controls"))
    if control_times is not None:
        options["control_times"] = parse_times(control_times, "--control-times")
    unknowns = read_unknowns(unknown, prior or [], signature)
    job = client.calibrate(model, unknowns=unknowns, states=states, **body, **options)
    if detach:
        emit(job, as_json, lambda: out.print(f"{job.id} {job.state}"))
        return
    err.print(f"[dim]job {job.id}[/]")
    found = follow(job, quiet=as_json)
    emit(found.record, as_json, lambda: describe(found))


def read_observations(path: Path, names: list[str]) -> tuple[list[str], Record]:
    """The observed states, and ``times``, ``observations`` and maybe ``noise``.

    Raises:
        UsageError: The file cannot be read, or a line of it is wrong.
    """
    seen: dict[tuple[float, int], dict[str, tuple[float, float]]] = {}
    try:
        # A mark before the first column is what spreadsheets write.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            if not {"time", "state", "value"} <= columns <= {
                "time", "state", "value", "sigma"
            }:  # fmt: skip
                raise UsageError(
                    f"{path}: found the columns {', '.join(sorted(columns))}; expected "
                    "time, state, value and maybe sigma"
                )
            for row in reader:
                _add(seen, row, names, f"{path} line {reader.line_num}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    keys = sorted(seen)
    states = [name for name in names if any(name in seen[key] for key in keys)]
    nothing = (np.nan, np.nan)
    table = np.array(
        [[seen[key].get(name, nothing) for name in states] for key in keys]
    )
    if not keys:
        raise UsageError(f"{path}: found no observations")
    body: Record = {"times": [time for time, _ in keys], "observations": table[..., 0]}
    if "sigma" in columns:
        body["noise"] = table[..., 1]
    return states, body


def _add(
    seen: dict[tuple[float, int], dict[str, tuple[float, float]]],
    row: dict[str, Any],
    names: list[str],
    place: str,
) -> None:
    state = (row["state"] or "").strip()
    if state not in names:
        raise UsageError(
            f"{place}: found the state {state!r}; expected one of "
            f"{', '.join(names[:20])}"
        )
    try:
        time, value = float(row["time"]), float(row["value"])
        sigma = float(row["sigma"]) if "sigma" in row else np.nan
    except (TypeError, ValueError) as error:
        raise UsageError(f"{place}: {error}") from error
    # A state that was observed twice at a time gets a second row for it.
    copy = 0
    while state in seen.setdefault((time, copy), {}):
        copy += 1
    seen[time, copy][state] = (value, sigma)


def read_unknowns(unknown: list[str], prior: list[str], signature: Record) -> Record:
    """What is to be found, each under the field that has its name.

    Raises:
        UsageError: One is not of the form NAME=NUMBER:NUMBER, or names nothing.
    """
    found: Record = {}
    for each in unknown:
        field, name, (lower, upper) = _pair(each, "--unknown", signature)
        check_once("--unknown", name, found.get(field, {}))
        found.setdefault(field, {})[name] = {"lower": lower, "upper": upper}
    for each in prior:
        field, name, (mean, sd) = _pair(each, "--prior", signature)
        if name not in found.get(field, {}):
            raise UsageError(f"--prior {each!r}: expected an --unknown of that name")
        found[field][name]["prior"] = {"mean": mean, "sd": sd}
    return found


def _pair(
    text: str, option: str, signature: Record
) -> tuple[str, str, tuple[float, float]]:
    name, _, numbers = text.partition("=")
    field = next((f for noun, f in _FIELDS if name in signature[noun]), None)
    try:
        one, other = map(float, numbers.split(":"))
    except ValueError:
        one = other = np.nan
    if field is None or np.isnan(one):
        known = ", ".join(name for noun, _ in _FIELDS for name in signature[noun])
        raise UsageError(
            f"{option} {text!r}: expected NAME=NUMBER:NUMBER with a name of {known}"
        )
    return field, name, (one, other)


def _by_state(text: str, option: str, states: list[str]) -> list[float]:
    found = {}
    for each in text.split(","):
        name, _, number = each.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            break
    if set(found) != set(states):
        expected = ",".join(f"{name}=NUMBER" for name in states)
        raise UsageError(f"{option} {text!r}: expected {expected}")
    return [found[name] for name in states]


def describe(found: Calibration) -> None:
    """Estimates with their intervals, the misfit, and what is to be known of them."""
    coverage = f"{found.record['coverage']:.0%}"
    rows = [
        (
            each.label,
            f"{each.value:.5g}",
            "" if each.standard_error is None else f"± {each.standard_error:.2g}",
            f"{each.interval[0]:.5g} to {each.interval[1]:.5g}",
            f"{each.simultaneous[0]:.5g} to {each.simultaneous[1]:.5g}",
        )
        for each in found.estimates
    ]
    columns = ("unknown", "estimate", "standard error", f"{coverage} interval")
    print_table((*columns, f"{coverage}, all at once"), rows)
    misfit, record = found.record["misfit"], found.record
    said = f"chi-squared {misfit['chi_squared']:.4g} of {misfit['observations']}"
    if misfit["p_value"] is not None:
        said += f" observations (p = {misfit['p_value']:.2g})"
    else:
        noise = ", ".join(f"{name} {sd:.2g}" for name, sd in record["noise"].items())
        said += f" observations; noise estimated as {noise}"
    out.print(
        f"{said}; {record['converged']} of {record['starts']} searches ended in "
        f"{len(record['optima'])} optima",
        markup=False,
    )
    for warning in found.warnings:
        err.print(f"[yellow]warning:[/] {escape(warning)}")
