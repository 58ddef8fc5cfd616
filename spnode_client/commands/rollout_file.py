"""A rollout as a file: CSV, npz or netCDF, and a picture of it."""

import csv
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from spnode_client.labelled import labelled_rollout
from spnode_client.records import ModelVersion, Rollout
from spnode_client.terminal import UsageError

MOST_CURVES = 12
"""States drawn as curves; of more the picture is a field over time."""
_MOST_ROWS = 8
_WIDE = 1e3


def check_file(path: Path | None, option: str, endings: tuple[str, ...]) -> None:
    """Refuse a file before anything is computed for it.

    Raises:
        UsageError: Its ending is none of these, or its folder is not there.
    """
    if path is None:
        return
    if path.suffix not in endings:
        expected = f"a file that ends in {' or '.join(endings)}"
        raise UsageError(f"{option} {str(path)!r}: expected {expected}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} {str(path)!r}: there is no such folder")


def write_rollout(answer: Rollout, version: ModelVersion, path: Path) -> None:
    """Write a rollout; the file takes its name only when it is complete.

    Args:
        answer: The rollout.
        version: Of the model: its states have names and units.
        path: Ends in ``.csv``, ``.npz`` or ``.nc``.

    Raises:
        UsageError: It ends otherwise, or netCDF is not installed.
    """
    names = version.record["signature"]["states"]
    if path.suffix == ".npz":
        content = _npz(answer, names)
    elif path.suffix == ".csv":
        content = csv_text(answer, names).encode()
    elif path.suffix == ".nc":
        content = _netcdf(answer, version)
    else:
        expected = "expected a .csv, .npz or .nc file"
        raise UsageError(f"--output {str(path)!r}: {expected}")
    _write(path, content)


def draw_rollout(answer: Rollout, version: ModelVersion, path: Path) -> str:
    """Draw a rollout: a panel for each state, or the states as a field over time.

    Args:
        answer: The rollout, ``x`` being ``([batch,] time, state)``.
        version: Of the model: its states have names and units.
        path: Ends in what matplotlib writes, ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        What of it was left out, in words; nothing where it is all there.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install matplotlib") from error
    signature = version.record["signature"]
    is_field = len(signature["states"]) > MOST_CURVES
    figure = (_field if is_field else _panels)(pyplot, answer, signature)
    figure.suptitle(f"{answer.model}/{answer.version}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=150)
    pyplot.close(figure)
    _write(path, buffer.getvalue())
    return _left_out(answer, 1 if is_field else _MOST_ROWS, is_field=is_field)


def _left_out(answer: Rollout, most_rows: int, *, is_field: bool) -> str:
    rows = 1 if answer.x.ndim == 2 else len(answer.x)
    first = "row" if most_rows == 1 else f"{most_rows} rows"
    said = [f"the first {first} of {rows}"] * (rows > most_rows)
    lacks = ["intervals"] * (is_field and answer.lower is not None)
    lacks += ["spread"] * (answer.spread is not None)
    return ", ".join([*said, *(f"without the {each}" for each in lacks)])


def csv_text(answer: Rollout, names: list[str]) -> str:
    """A row for every time, with all digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    batched = answer.x.ndim == 3
    columns, x = list(names), answer.x
    if answer.lower is not None and answer.upper is not None:
        columns += [f"{name}_{end}" for end in ("lower", "upper") for name in names]
        x = np.concatenate([x, answer.lower, answer.upper], axis=-1)
    if answer.spread is not None:
        columns += [f"{name}_spread" for name in names]
        x = np.concatenate([x, answer.spread], axis=-1)
    writer.writerow([*(["trajectory"] if batched else []), "time", *columns])
    for row, trajectory in enumerate(x if batched else x[None]):
        for time, state in zip(answer.times, trajectory, strict=True):
            lead = [row] if batched else []
            writer.writerow([*lead, repr(float(time)), *map(repr, state.tolist())])
    return buffer.getvalue()


def _npz(answer: Rollout, names: list[str]) -> bytes:
    buffer = io.BytesIO()
    found = {
        "states": answer.x,
        "lower": answer.lower,
        "upper": answer.upper,
        "spread": answer.spread,
    }
    arrays: dict[str, Any] = {
        name: each[None] if each.ndim == 2 else each
        for name, each in found.items()
        if each is not None
    }
    arrays |= {"times": answer.times, "names": np.array(names)}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _netcdf(answer: Rollout, version: ModelVersion) -> bytes:
    try:
        made = labelled_rollout(answer, version, {})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rollout.nc"
            made.to_netcdf(path, engine="h5netcdf")
            return path.read_bytes()
    except ImportError as error:
        expected = "pip install 'spnode[formats]'"
        raise UsageError(f"--output: a .nc file needs xarray: {expected}") from error


def _panels(pyplot: Any, answer: Rollout, signature: dict[str, Any]) -> Any:
    names, units = signature["states"], signature.get("units") or ()
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(3.6 * columns, 2.6 * rows),
        squeeze=False,
        layout="constrained",
    )
    for panel in axes.flat[len(names) :]:
        panel.remove()

    def by_row(values: np.ndarray | None) -> np.ndarray | None:
        return values[None] if values is not None and values.ndim == 2 else values

    x = by_row(answer.x)
    lower, upper = by_row(answer.lower), by_row(answer.upper)
    assert x is not None
    for at, (panel, name) in enumerate(zip(axes.flat, names, strict=False)):
        for row in range(min(len(x), _MOST_ROWS)):
            (line,) = panel.plot(answer.times, x[row, :, at], linewidth=1.4)
            if lower is not None and upper is not None:
                band = (lower[row, :, at], upper[row, :, at])
                panel.fill_between(
                    answer.times, *band, color=line.get_color(), alpha=0.2, linewidth=0
                )
        _time_axis(panel, answer.times, signature)
        title = f"{name} / {units[at]}" if units and units[at] else name
        panel.set_title(title, parse_math=False)
    return figure


def _field(pyplot: Any, answer: Rollout, signature: dict[str, Any]) -> Any:
    x = answer.x if answer.x.ndim == 2 else answer.x[0]
    figure, panel = pyplot.subplots(figsize=(8, 4), layout="constrained")
    mesh = panel.pcolormesh(answer.times, np.arange(x.shape[1]), x.T, shading="nearest")
    figure.colorbar(mesh)
    _time_axis(panel, answer.times, signature)
    first = signature["states"][0]
    panel.set_ylabel(f"state, {first} first", parse_math=False)
    return figure


def _time_axis(panel: Any, times: np.ndarray, signature: dict[str, Any]) -> None:
    unit = signature.get("time_unit")
    panel.set_xlabel(f"time / {unit}" if unit else "time", parse_math=False)
    positive = times[times > 0]
    if len(positive) > 2 and positive[-1] / positive[0] > _WIDE:
        panel.set_xscale("log")


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
