"""Exports: a surrogate's rollout in a folder, for programs without this library.

::

    export.json              inputs and outputs in order, units, times, a probe, hashes
    rollout.jax              any number of rows, differentiable, for ``jax.export``
    rollout-32.mlirbc        32 rows, a portable artifact of StableHLO, for XLA and IREE
    rollout-32.mlir          the same as text, for Reactant.jl and for readers

Physical states in and out, float64, at times that are fixed, since they choose the
steps. Nothing is pickled.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jax.export import deserialize
from numpy.typing import ArrayLike, NDArray

from spnode_core.artifact import PROBE_TOLERANCE
from spnode_core.artifact_file import encode_json
from spnode_core.errors import ArtifactError, InvalidInput
from spnode_core.metrics import state_scale
from spnode_core.stablehlo import Program, custom_calls, serialised, stablehlo_version
from spnode_core.surrogate import Surrogate, require_x64
from spnode_core.timegrid import Times, check_increasing, check_times

FORMAT, VERSION = "spnode export", 1
DESCRIPTION, ANY_ROWS = "export.json", "rollout.jax"
PLATFORMS = ("cpu", "cuda")
"""What ``rollout.jax`` is lowered for."""
DEFAULT_ROWS = (1, 32)

Record = dict[str, Any]
Rows = dict[str, NDArray[np.float64]]


def export(
    surrogate: Surrogate,
    folder: str | Path,
    times: ArrayLike | None = None,
    *,
    control_times: ArrayLike | None = None,
    rows: Sequence[int] | None = None,
    origin: Record | None = None,
) -> Record:
    """Write a surrogate's rollout to a folder, for programs without this library.

    Args:
        surrogate: What to export.
        folder: Where to; new or empty. It is there as a whole or not at all.
        times: Output times from the start of a rollout, increasing; by default the
            model's own grid up to the end of its training data.
        control_times: Where the model has controls, when they switch, from 0; by
            default they are constant.
        rows: Numbers of rows to write modules for that hosts without JAX take; by
            default 1 and 32, none where the model needs functions that only JAX has.
        origin: What to say of where the surrogate is from, JSON: its digest, its name.

    Returns:
        The content of ``export.json``.

    Raises:
        InvalidInput: A folder, times or rows that are none, x64 is off, or a surrogate
            that computes what no export can hold, such as a call back into Python.
        ArtifactError: The export does not repeat the surrogate's own rollout.
    """
    require_x64()
    target = _empty(Path(folder))
    outputs = _output_times(surrogate, times)
    switches = _switches(surrogate, control_times)
    plan = surrogate.grid.plan(outputs, switches)
    program = Program.of(surrogate, plan, 0 if switches is None else len(switches))
    exported = program.lowered(None, PLATFORMS)
    calls = custom_calls(exported)
    counts = _checked_rows(rows, calls)
    files = {ANY_ROWS: serialised(exported)}
    for count in counts:
        fixed = program.lowered(count, PLATFORMS[:1])
        files[f"rollout-{count}.mlirbc"] = bytes(fixed.mlir_module_serialized)
        files[f"rollout-{count}.mlir"] = fixed.mlir_module().encode()
    described = {
        **_facts(surrogate, program, outputs, switches),
        "origin": origin or {},
        "rows": counts,
        "platforms": list(PLATFORMS),
        "custom_calls": calls,
        "calling_convention_version": exported.calling_convention_version,
        "stablehlo_version": stablehlo_version(exported),
        "made_with": {name: version(name) for name in ("jax", "jaxlib")},
        "probe": _probe(surrogate, program, files[ANY_ROWS], outputs, switches),
        "sha256": {name: hashlib.sha256(files[name]).hexdigest() for name in files},
    }
    _write(target, {**files, DESCRIPTION: encode_json(described)})
    return described


def _output_times(surrogate: Surrogate, times: ArrayLike | None) -> Times:
    if times is None:
        return surrogate.grid.extended(surrogate.signature.domain.end)
    return check_increasing(times)


def _switches(surrogate: Surrogate, control_times: ArrayLike | None) -> Times | None:
    if surrogate.signature.controls:
        given = [0.0] if control_times is None else control_times
        return check_times(given, "control_times")
    if control_times is not None:
        raise InvalidInput(
            "control_times",
            found="times",
            expected="none, since the model takes no controls",
        )
    return None


def _checked_rows(rows: Sequence[int] | None, calls: list[str]) -> list[int]:
    if rows is None:
        return [] if calls else list(DEFAULT_ROWS)
    for place, count in enumerate(rows):
        if not isinstance(count, int) or count < 1:
            raise InvalidInput(
                f"rows[{place}]", found=repr(count), expected="a number of rows above 0"
            )
    if rows and calls:
        raise InvalidInput(
            "rows",
            found=f"{list(rows)} for a model that calls {', '.join(calls)}",
            expected=f"none: only JAX has these functions, and {ANY_ROWS} is for it",
        )
    return sorted({*rows})


def _facts(
    surrogate: Surrogate, program: Program, times: Times, switches: Times | None
) -> Record:
    """Names, units, shapes and times, and what they mean."""
    signature = surrogate.signature
    domain = signature.domain
    columns = {
        "x0": (signature.states, signature.units, domain.lower, domain.upper),
        "parameters": (
            signature.parameters,
            (),
            domain.parameters_lower,
            domain.parameters_upper,
        ),
        "controls": (
            signature.controls,
            (),
            domain.controls_lower,
            domain.controls_upper,
        ),
    }
    inputs = []
    for name, size in program.sizes.items():
        names, units, lower, upper = columns[name]
        shape = ["rows", *size]
        bounds = {"trained_from": lower, "trained_to": upper}
        inputs.append(
            {**_array(name, shape, names), "units": list(units), **bounds},
        )
    shape = ["rows", len(times), len(signature.states)]
    output = {**_array("x", shape, signature.states), "units": list(signature.units)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "precision": surrogate.spec.precision,
        "inputs": inputs,
        "outputs": [output],
        "times": times.tolist(),
        "time_unit": signature.time_unit,
        "trained_until": domain.end,
        "control_times": None if switches is None else switches.tolist(),
    }


def _array(name: str, shape: list[str | int], columns: tuple[str, ...]) -> Record:
    return {
        "name": name,
        "shape": shape,
        "dtype": "float64",
        "order": "row-major",
        "columns": list(columns),
    }


def _probe(
    surrogate: Surrogate,
    program: Program,
    exported: bytes,
    times: Times,
    switches: Times | None,
) -> Record:
    """One row from the middle of the domain and its last state, once it is right."""
    domain = surrogate.signature.domain
    bounds = {
        "x0": (domain.lower, domain.upper),
        "parameters": (domain.parameters_lower, domain.parameters_upper),
        "controls": (domain.controls_lower, domain.controls_upper),
    }
    inputs: Rows = {}
    for name, size in program.sizes.items():
        lower, upper = (np.asarray(bound) for bound in bounds[name])
        inputs[name] = np.broadcast_to((lower + upper) / 2, (1, *size))
    x = np.asarray(deserialize(bytearray(exported)).call(*inputs.values()))
    own = surrogate.rollout(times=times, control_times=switches, **inputs)
    scale = state_scale(surrogate)
    difference = float((np.abs(x - np.asarray(own)) / scale).max())
    allowed = PROBE_TOLERANCE[surrogate.spec.precision]
    if not difference <= allowed:
        raise ArtifactError(
            f"the export differs from the surrogate's own rollout by {difference:.3g} "
            f"(scaled), more than {allowed:g}, or one of them is not finite"
        )
    return {
        "inputs": {name: array.tolist() for name, array in inputs.items()},
        "last": x[:, -1].tolist(),
        "scaled_difference": difference,
    }


def _empty(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(
            "folder",
            found=f"{folder}, which holds something",
            expected="a new or empty folder",
        )
    return folder


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files to a folder that takes its place when all of them are there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        part.mkdir()
        for name, data in files.items():
            (part / name).write_bytes(data)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
