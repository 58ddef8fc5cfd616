"""Robertson's reaction learned from noisy trajectories, judged by the clean truth."""

from typing import Any

import numpy as np

from benchmarks.paper.report import COLOURS, MARKS
from benchmarks.paper.rows import (
    Bar,
    Example,
    Numbers,
    Options,
    Record,
    Records,
    Row,
    at_most,
    select,
    table,
    worst,
)
from benchmarks.paper.trained import (
    SCALES,
    UNSEEN_SEED,
    Tell,
    described,
    paper_surrogate,
    paper_training,
    robertson,
    scaled_errors,
    train,
)
from spnode_core import Dataset, SurrogateSpec, TrainingSpec, check_arrays
from spnode_core.denoise import denoised
from spnode_core.spec import (
    ResidualSpec,
)

LEVELS = {0.01: 2e-5, 0.1: 1e-3}
"""Standard deviations in scaled units, and the error asked for at each."""
OURS, PLAIN = "denoised, our default", "our default"
PAPER = "paper, with autoencoder"

_ABOUT = """
Gaussian noise on every training state, the initial ones too: its standard deviation is
0.01 or 0.1 of each species' size (1, 3.65e-5, 1). The part that chooses the best
parameters is as noisy; nothing clean is seen before the end. Errors are over 200 other,
clean trajectories. The initial states differ by U(0, 0.1) only, so at a noise of 0.1 a
trajectory's own start can hardly be told from the others': who regresses on noisy
starts learns that starts matter less than they do.

Ours: `fit(denoised(dataset))`, 3,000 iterations, the sum of the species declared as
conserved. `denoised` keeps the singular directions of all trajectories that stand out
of the noise (Gavish & Donoho's threshold, which knows no level). Beside it the same
without `denoised`, and the paper's set-up with an autoencoder (see
[robertson.md](robertson.md)), 5,000 iterations.
"""


def _rows(options: Options) -> list[Row]:
    levels = (0.1,) if options.quick else tuple(LEVELS)
    if options.quick:
        return [_row(OURS, level, 0, options) for level in levels]
    rows = [
        _row(OURS, level, seed, options) for level in levels for seed in options.seeds
    ]
    beside = [
        _row(kind, level, 0, options) for kind in (PLAIN, PAPER) for level in levels
    ]
    return [*rows, *beside]


def _row(kind: str, level: float, seed: int, options: Options) -> Row:
    surrogate = SurrogateSpec(conserved={"mass": {"y1": 1.0, "y2": 1.0, "y3": 1.0}})
    training = TrainingSpec(iterations=3000)
    if kind == PAPER:
        surrogate = paper_surrogate(ResidualSpec(width=100, depth=2))
        training = paper_training(5000)
    if options.quick:
        training = TrainingSpec(iterations=300, refine=2)
    trajectories = 200 if options.quick else 1000
    settings = described(
        surrogate, training, kind=kind, noise=level, seed=seed, quick=options.quick
    )
    settings["trajectories"] = trajectories

    def measure(tell: Tell) -> Numbers:
        noisy = with_noise(robertson(trajectories, seed), level, seed)
        if kind == OURS:
            noisy = denoised(noisy)
        run = train(noisy, surrogate, training, seed=seed, tell=tell)
        unseen = robertson(200, seed + UNSEEN_SEED)
        return {
            "errors": scaled_errors(run.surrogate, unseen, (1, 2)),
            "training_seconds": run.report["seconds"],
        }

    return Row(f"{kind}, noise {level:g}, seed {seed}", settings, measure)


def with_noise(dataset: Dataset, level: float, seed: int) -> Dataset:
    """The dataset with noise on every state; signs and sums are not kept."""
    draws = np.random.default_rng([seed, 77]).normal(size=dataset.states.shape)
    return check_arrays(
        {
            "states": dataset.states + level * SCALES * draws,
            "times": dataset.times,
            "names": np.array(dataset.names),
        }
    )


def _tables(records: Records) -> str:
    rows = [
        (
            r.settings["kind"],
            f"{r.settings['noise']:g}",
            r.settings["seed"],
            r.numbers["errors"]["h"]["mse"],
            r.numbers["errors"]["h/2"]["mse"],
            r.numbers["errors"]["h"]["largest"],
        )
        for r in records.values()
    ]
    columns = (
        "model",
        "noise",
        "seed",
        "MSE to the clean truth, h",
        "h/2",
        "largest scaled error of y1, y2, y3",
    )
    return table(columns, rows)


def _bars(records: Records) -> list[Bar]:
    quick = select(records, quick=True)
    if quick:
        errors = _errors(quick)
        good = at_most(errors, 1.5e-3)
        return [Bar("quick: noise 0.1", "robust", "≤ 1.5e-3", worst(errors), good)]
    bars = []
    for level, limit in LEVELS.items():
        errors = _errors(select(records, kind=OURS, noise=level))
        bars.append(
            Bar(
                f"noise {level:g}: MSE to the clean truth",
                "robust (a figure)",
                f"≤ {limit:.0e}",
                worst(errors),
                at_most(errors, limit),
            )
        )
    return bars


def _errors(records: list[Record]) -> list[float]:
    return [record.numbers["errors"]["h"]["mse"] for record in records]


def _draw(records: Records, figure: Any) -> None:
    axes = figure.subplots()
    for number, kind in enumerate((OURS, PLAIN, PAPER)):
        found = select(records, kind=kind)
        axes.plot(
            [record.settings["noise"] for record in found],
            _errors(found),
            color=COLOURS[number],
            marker=MARKS[number],
            linestyle="none",
            label=f"{kind}, by seed",
        )
    levels = np.array(list(LEVELS))
    axes.plot(
        levels, list(LEVELS.values()), color="0.4", marker="_", ls="--", label="asked"
    )
    axes.plot(levels, levels**2, color="0.7", linestyle=":", label="noise squared")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="standard deviation of the noise (scaled units)",
        ylabel="scaled mean squared error to the clean truth",
    )
    axes.legend()


EXAMPLE = Example(
    name="noise",
    title="Robertson from noisy data",
    about=_ABOUT,
    rows=_rows,
    tables=_tables,
    bars=_bars,
    draw=_draw,
)
