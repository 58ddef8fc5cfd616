"""The demo's picture: reference against surrogate over time, and the error."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from deploy.folder import Folder

SHOWN = 6
COLOURS = ("#0b6e99", "#c2571a", "#4a7c2c")
LABELS = ("$y_1$", "$3 \\cdot 10^4\\, y_2$", "$y_3$")
FACTORS = (1.0, 3e4, 1.0)
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw(
    path: Path, folder: Folder, times: np.ndarray, x: np.ndarray, tight: np.ndarray
) -> Path:
    """Draw unseen trajectories, ``(trajectory, time, state)``; give the picture's path.

    Args:
        path: Where it goes; the data folder where that cannot be written.
        folder: The data folder; matplotlib's cache lies there too.
        times: ``(time,)``, the first one 0.
        x: The surrogate's states.
        tight: The reference's states.
    """
    os.environ.setdefault("MPLCONFIGDIR", str(folder.path / "matplotlib"))
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, (above, below) = pyplot.subplots(
            2, 1, figsize=(7.2, 5.4), sharex=True, height_ratios=(3, 2), dpi=150
        )
        _trajectories(above, times[1:], x[:SHOWN, 1:], tight[:SHOWN, 1:])
        _errors(below, times[1:], x[:, 1:], tight[:, 1:])
        figure.align_ylabels()
        figure.tight_layout()
    path = _writable(path, folder)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png")
    pyplot.close(figure)
    os.replace(part, path)
    return path.absolute()


def _trajectories(axes, times, x, tight) -> None:  # noqa: ANN001
    for state, (colour, label, factor) in enumerate(
        zip(COLOURS, LABELS, FACTORS, strict=True)
    ):
        for row in range(len(x)):
            first = row == 0
            axes.plot(
                times,
                factor * tight[row, :, state],
                color=colour,
                linewidth=1.2,
                label=label if first else None,
            )
            axes.plot(
                times,
                factor * x[row, :, state],
                linestyle="none",
                marker="o",
                markersize=2.6,
                markerfacecolor="white",
                markeredgecolor=colour,
                markeredgewidth=0.8,
            )
    axes.plot([], [], color="0.3", linewidth=1.2, label="reference")
    axes.plot(
        [],
        [],
        color="0.3",
        linestyle="none",
        marker="o",
        markersize=3,
        markerfacecolor="white",
        label="surrogate",
    )
    axes.set_xscale("log")
    axes.set_ylabel("state")
    axes.set_title(f"Robertson's reaction: {len(x)} unseen initial conditions")
    axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    axes.set_ylim(-0.05, 1.3)


def _errors(axes, times, x, tight) -> None:  # noqa: ANN001
    scaled = np.abs(x - tight) / np.abs(tight).max(axis=(0, 1))
    for state, (colour, name) in enumerate(
        zip(COLOURS, ("$y_1$", "$y_2$", "$y_3$"), strict=True)
    ):
        low, middle, high = np.percentile(scaled[..., state], (5, 50, 95), axis=0)
        axes.fill_between(times, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(times, middle, color=colour, linewidth=1.2, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("time")
    axes.set_ylabel("scaled error")
    axes.set_title(
        f"error over {len(x)} trajectories: median, 5 to 95 %", fontsize=9, loc="left"
    )
    axes.legend(ncols=3, loc="lower right", fontsize=8)


def _writable(path: Path, folder: Folder) -> Path:
    return (
        path if os.access(path.absolute().parent, os.W_OK) else folder.path / path.name
    )
