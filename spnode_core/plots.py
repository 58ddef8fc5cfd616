"""Pictures of a training: its losses, held-out errors, spectrum and trajectories.

PNG, drawn by matplotlib without a display. The same run gives the same bytes where
matplotlib is the same.
"""

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core.baselines import normalised
from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput
from spnode_core.intervals import interval_bounds
from spnode_core.metrics import Compared, predict
from spnode_core.surrogate import Surrogate
from spnode_core.training.fit import Run

Values = NDArray[np.float64]

# Okabe and Ito's colours, which people of any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 8,
}
_DPI = 110
# More states are shown as a map, one row each.
_MOST_PANELS = 12
_MOST_CELLS = 300
# Times over more than this factor are shown by their logarithm.
_WIDE = 1e3


def draw_training(run: Run) -> dict[str, bytes]:
    """Draw what a training did, for its card.

    Args:
        run: What ``fit`` returned, or ``join``.

    Returns:
        PNG files by name: ``loss`` over iterations, ``errors`` over time, ``spectrum``
        of A, ``trajectories`` of the held-out part against the reference, of which the
        median and the worst are shown, with prediction intervals. What a run has not,
        e.g. held-out trajectories, is left out.

    Raises:
        InvalidInput: matplotlib is not installed.
    """
    pictures: dict[str, Callable[[Any], None] | None] = {
        "loss": _loss(run.history),
        "errors": _errors(run.report["metrics"], _unit(run.surrogate)),
        "spectrum": _spectrum(run.report["certificate"].get("spectral_abscissa", {})),
        "trajectories": _trajectories(run.surrogate, run.held_out),
    }
    return {name: png(draw) for name, draw in pictures.items() if draw is not None}


def png(draw: Callable[[Any], None]) -> bytes:
    """Draw a picture in the style of all.

    Args:
        draw: Draws onto a matplotlib figure.

    Raises:
        InvalidInput: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInput(
            "matplotlib",
            found="not installed",
            expected="matplotlib, to draw: pip install matplotlib",
        ) from error
    file = io.BytesIO()
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.0), dpi=_DPI)
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _loss(history: Sequence[Mapping[str, Any]]) -> Callable[[Any], None] | None:
    if not history:
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        before = 0
        stages = itertools.groupby(
            history, key=lambda point: (point["stage"], point.get("part", 0))
        )
        for number, ((stage, part), group) in enumerate(stages):
            points = list(group)
            name = f"{stage} {part + 1}" if part else stage
            at = [before + point["iteration"] for point in points]
            colour = COLOURS[number % len(COLOURS)]
            for key, style in (("loss", "-"), ("validation_loss", "--")):
                losses = [_number(point.get(key)) for point in points]
                if np.isfinite(losses).any():
                    held = " (held out)" if key != "loss" else ""
                    # A line of one point is none.
                    mark = "." if np.isfinite(losses).sum() == 1 else ""
                    axes.plot(
                        at, losses, style, marker=mark, color=colour, label=name + held
                    )
            before = at[-1]
        _logarithmic(axes, "y")
        axes.set_xlabel("iteration")
        axes.set_ylabel("loss")
        axes.set_title("Loss")
        axes.legend()

    return draw


def _errors(
    metrics: Mapping[str, Mapping[str, Any] | None], unit: str
) -> Callable[[Any], None] | None:
    parts = {name: found for name, found in metrics.items() if found}
    if not parts:
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        ends = [each["to"] for found in parts.values() for each in found["over_time"]]
        is_wide = _is_wide(np.array(ends))
        for colour, (name, found) in zip(COLOURS, parts.items(), strict=False):
            bins = found["over_time"]
            edges, values = [bins[0]["from"]], []
            for each in bins:
                if each["from"] > edges[-1]:
                    # No sample lies between.
                    edges.append(each["from"])
                    values.append(np.nan)
                edges.append(each["to"])
                values.append(each["normalised_rmse"])
            # A logarithmic axis has no 0.
            edges[0] = edges[0] or (edges[1] / 10 if is_wide else 0.0)
            axes.stairs(values, edges, color=colour, label=name, baseline=None)
        held_out = parts.get("test") or parts.get("validation") or {}
        styles = itertools.cycle((":", "-.", (0, (1, 4))))
        baselines = held_out.get("baselines", {})
        for style, (name, found) in zip(styles, baselines.items(), strict=False):
            label = f"{name.replace('_', ' ')} instead"
            axes.axhline(found["normalised_rmse"], color="0.4", ls=style, label=label)
        if is_wide:
            _logarithmic(axes, "x")
        _logarithmic(axes, "y")
        axes.set_xlabel(f"time since the start{unit}")
        axes.set_ylabel("error / standard deviation")
        axes.set_title("Error over time, root mean square over states")
        axes.legend()

    return draw


def _spectrum(claim: Mapping[str, Any]) -> Callable[[Any], None] | None:
    each = [found.get("eigenvalues") or [] for found in claim.get("members", [claim])]
    values = [np.array(found, np.float64).reshape(-1, 2) for found in each]
    if not any(map(len, values)):
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        is_stable = all((found[:, 0] < 0).all() for found in values)
        for number, found in enumerate(values):
            real = -found[:, 0] if is_stable else found[:, 0]
            label = f"member {number + 1}" if len(values) > 1 else None
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(real, found[:, 1], "o", color=colour, alpha=0.7, label=label)
        if is_stable:
            _logarithmic(axes, "x")
        if not any(found[:, 1].any() for found in values):
            axes.set_ylim(-1, 1)
        axes.set_xlabel("decay rate −Re λ" if is_stable else "Re λ")
        axes.set_ylabel("Im λ")
        axes.set_title("Spectrum of A")
        if len(values) > 1:
            axes.legend()

    return draw


def _trajectories(
    surrogate: Surrogate, held_out: Dataset | None
) -> Callable[[Any], None] | None:
    if held_out is None:
        return None
    predicted = predict(surrogate, held_out, surrogate.grid)
    compared = Compared.of(surrogate, held_out)
    states = normalised(compared.scaling, predicted)
    each = compared.with_states(states).by_trajectory
    order = np.argsort(each)
    shown = {"median": int(order[(len(order) - 1) // 2]), "worst": int(order[-1])}
    if len(held_out.names) > _MOST_PANELS:
        row, unit = shown["median"], _unit(surrogate)
        return lambda figure: _maps(
            figure, held_out, row, states, compared.states, unit
        )
    return lambda figure: _panels(figure, surrogate, held_out, shown, predicted)


def _panels(
    figure: Any,
    surrogate: Surrogate,
    held_out: Dataset,
    shown: Mapping[str, int],
    predicted: Values,
) -> None:
    """A panel for each state: reference, surrogate and interval over time."""
    count = len(held_out.names)
    columns = min(count, 3 if count != 4 else 2)
    rows = -(-count // columns)
    height = max(2.8, 1.9 * rows)
    figure.set_size_inches(7.2, height)
    figure.subplots_adjust(
        left=0.08,
        right=0.98,
        top=1 - 0.55 / height,
        bottom=0.5 / height,
        wspace=0.3,
        hspace=0.35,
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    intervals = surrogate.signature.intervals
    kinds = surrogate.normaliser.states.kinds
    is_wide = _is_wide(held_out.elapsed[list(shown.values())])
    bounds = {
        row: interval_bounds(
            intervals, predicted[row], held_out.elapsed[row], intervals.coverages[-1]
        )
        for row in shown.values()
        if intervals is not None
    }
    for axes, state in itertools.zip_longest(grid.flat, range(count)):
        if state is None:
            axes.set_visible(False)
            continue
        for colour, (which, row) in zip(COLOURS, shown.items(), strict=False):
            times = held_out.elapsed[row]
            mask = held_out.mask[row, :, state]
            x = np.where(mask, predicted[row, :, state], np.nan)
            if row in bounds:
                lower, upper = (
                    np.where(mask, bound[:, state], np.nan) for bound in bounds[row]
                )
                axes.fill_between(times, lower, upper, color=colour, alpha=0.18, lw=0)
            truth = np.where(mask, held_out.states[row, :, state], np.nan)
            axes.plot(times, truth, ".", ms=3, color="0.25", zorder=3)
            axes.plot(times, x, color=colour, lw=1.3, label=which)
        if is_wide:
            _logarithmic(axes, "x")
        if kinds[state] == "log":
            _logarithmic(axes, "y")
        axes.set_title(_plain(held_out.names[state]), fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel(f"time since the start{_unit(surrogate)}")
    band = ""
    if intervals is not None:
        band = f"; bands hold {intervals.coverages[-1]:.0%}"
    figure.suptitle(
        "Held-out trajectories of median (blue) and of worst (orange) error; "
        f"dots are the reference{band}",
        fontsize=9,
    )


def _maps(
    figure: Any,
    held_out: Dataset,
    row: int,
    predicted: Values,
    truth: Values,
    unit: str,
) -> None:
    """Reference, surrogate and difference as maps over time and state."""
    elapsed = held_out.elapsed[row]
    # A logarithmic axis has no 0.
    is_shown = (elapsed > 0) | (not _is_wide(elapsed))
    present = np.flatnonzero(held_out.mask[row].any(axis=1) & is_shown)
    samples = present[:: max(1, len(present) // _MOST_CELLS)]
    states = np.arange(len(held_out.names))
    states = states[:: max(1, len(states) // _MOST_CELLS)]
    times = elapsed[samples]
    is_wide = _is_wide(times)
    there = held_out.mask[row][np.ix_(samples, states)]
    x, reference = (
        np.where(there, values[row][np.ix_(samples, states)], np.nan)
        for values in (predicted, truth)
    )
    figure.set_size_inches(7.2, 5.4)
    lowest, highest = np.nanmin(reference), np.nanmax(reference)
    same = {"cmap": "viridis", "vmin": lowest, "vmax": highest}
    largest = float(np.nanmax(np.abs(x - reference))) or 1.0
    signed = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    panels = {
        "reference": (reference, same),
        "surrogate": (x, same),
        "difference": (x - reference, signed),
    }
    edges = np.exp(_edges(np.log(times))) if is_wide else _edges(times)
    rows = _edges(states.astype(float))
    grid = figure.subplots(3, 1, sharex=True)
    for axes, (title, (values, options)) in zip(grid, panels.items(), strict=True):
        mesh = axes.pcolormesh(edges, rows, values.T, shading="flat", **options)
        figure.colorbar(mesh, ax=axes)
        axes.grid(visible=False)
        axes.set_ylabel("state")
        axes.set_title(title, fontsize=9)
        if is_wide:
            axes.set_xscale("log")
    grid[-1].set_xlabel(f"time since the start{unit}")
    figure.suptitle(
        "A held-out trajectory of median error, in normalised states", fontsize=9
    )


def _edges(centres: Values) -> Values:
    """Bounds of cells around some centres, half way to their neighbours."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - between[0], 2 * centres[-1] - between[-1]
    return np.array([first, *between, last])


def _is_wide(times: Values) -> bool:
    later = times[times > 0]
    return bool(len(later)) and later.max() / later.min() > _WIDE


def _unit(surrogate: Surrogate) -> str:
    unit = surrogate.signature.time_unit
    return f" [{_plain(unit)}]" if unit else ""


def _plain(name: str) -> str:
    """A name as it is, not as a formula, whatever dollars are in it."""
    return name.replace("$", r"\$")


def _logarithmic(axes: Any, axis: str) -> None:
    """A logarithmic axis where there is anything positive to show."""
    from matplotlib.ticker import NullLocator

    limits = axes.dataLim.intervaly if axis == "y" else axes.dataLim.intervalx
    if limits[1] > 0:
        getattr(axes, f"set_{axis}scale")("log", nonpositive="mask")
        getattr(axes, f"{axis}axis").get_major_locator().set_params(numticks=6)
        # Within one decade the minor ticks are those with numbers.
        if limits[1] > 100 * getattr(axes.dataLim, f"minpos{axis}"):
            getattr(axes, f"{axis}axis").set_minor_locator(NullLocator())


def _number(value: float | None) -> float:
    return np.nan if value is None else value
