"""Robertson's reaction: the paper's model, our default, and beyond the data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.report import COLOURS
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
from spnode_core import Surrogate, SurrogateSpec, TrainingSpec, generate
from spnode_core.spec import (
    ModalSpec,
    NoAutoencoderSpec,
    RatesSpec,
    RelaxationSpec,
    ResidualSpec,
)
from spnode_core.training.presets import resolve

PAPER_BEST = 2.01e-4
UNSEEN = 200
REFINEMENTS = (1, 2, 4)
DEFAULT, LONG = "our default", "trained to 1e11"
WITH, WITHOUT = "paper, with autoencoder", "paper, without autoencoder"

_ABOUT = """
1,000 trajectories from y1 = 1 - U(0, .1), y2 = 1e-5 U(0, .1), y3 = U(0, .1) over
t = 0 and 50 logarithmic times from 1e-5 to 1e5, by LSODA at a relative tolerance of
1e-9; a tenth only chooses the best parameters. Errors are over 200 other trajectories:
scaled mean squared error is the mean over trajectories, times and species of the
squared error of y1, y2 / 3.65e-5 and y3.

The paper's set-up: Hurwitz A with rates of order one at the start, f a Lipschitz
network of 2 layers with 100 units (L = 1), one ETD1 step between samples, each sample
the same weight, batch 100, Adam, three latent variables; with an autoencoder of
networks of the same size, or without. Its text contradicts itself on rates (0.001 or
0.01), decay (0.99 an epoch, 0.99 a step, 0.9) and length (10,000 epochs, 20,000
iterations): used here are 0.01, 0.9 for each 1,000 iterations, and 20,000 iterations;
0.99 a step would end after a thousand of them.

Our default is `fit(dataset)` without any further word. h is its own grid, the times of
the data; h/2 and h/4 split each step in 2 and 4, so they say whether the model is an
ODE or a map of one grid.
"""


def _rows(options: Options) -> list[Row]:
    if options.quick:
        return [_default_row(0, options)]
    rows = []
    for seed in options.seeds:
        rows += [
            _default_row(seed, options),
            _paper_row(WITH, seed),
            _paper_row(WITHOUT, seed),
        ]
    return [*rows, *(_long_row(seed) for seed in options.seeds[:1])]


def _default_row(seed: int, options: Options) -> Row:
    training = TrainingSpec(iterations=500, refine=2) if options.quick else None
    trajectories = 200 if options.quick else 1000
    settings = described(None, training, kind=DEFAULT, seed=seed, quick=options.quick)
    settings["trajectories"] = trajectories

    def measure(tell: Tell) -> Numbers:
        run = train(robertson(trajectories, seed), None, training, seed=seed, tell=tell)
        unseen = robertson(UNSEEN, seed + UNSEEN_SEED)
        return {
            "errors": scaled_errors(
                run.surrogate, unseen, (1, 2) if options.quick else REFINEMENTS
            ),
            "by_time": _by_time(run.surrogate, unseen.states, unseen.times[0]),
            "training_seconds": run.report["seconds"],
            "beyond": _beyond(run.surrogate, unseen.states[:, 0], 1e11),
        }

    return Row(f"{DEFAULT}, seed {seed}", settings, measure)


def _paper_row(kind: str, seed: int) -> Row:
    has_networks = kind == WITH
    surrogate = paper_surrogate(
        ResidualSpec(width=100, depth=2) if has_networks else NoAutoencoderSpec()
    )
    training = paper_training(20_000)
    settings = described(surrogate, training, kind=kind, seed=seed, quick=False)
    trajectories = settings["trajectories"] = 1000

    def measure(tell: Tell) -> Numbers:
        dataset = robertson(trajectories, seed)
        run = train(dataset, surrogate, training, seed=seed, tell=tell)
        unseen = robertson(UNSEEN, seed + UNSEEN_SEED)
        return {
            "errors": scaled_errors(run.surrogate, unseen, REFINEMENTS),
            "training_mse": scaled_errors(run.surrogate, dataset)["h"]["mse"],
            "by_time": _by_time(run.surrogate, unseen.states, unseen.times[0]),
            "training_seconds": run.report["seconds"],
            "rates": -np.sort(run.surrogate.dynamics.linear.eigenvalues()[:, 0]),
        }

    return Row(f"{kind}, seed {seed}", settings, measure)


def _long_row(seed: int) -> Row:
    surrogate = SurrogateSpec(
        latent=10,
        linear=ModalSpec(rates=RatesSpec(minimum=1e-11, maximum=1e4)),
        nonlinear=RelaxationSpec(width=32),
        autoencoder=ResidualSpec(width=32),
        positive=True,
    )
    training = TrainingSpec(iterations=9000, batch=64, refine=1, polish="none")
    settings = described(surrogate, training, kind=LONG, seed=seed, quick=False)

    def measure(tell: Tell) -> Numbers:
        dataset = robertson(1000, seed, end=1e11)
        run = train(dataset, surrogate, training, seed=seed, tell=tell)
        unseen = robertson(UNSEEN, seed + UNSEEN_SEED, end=1e11)
        return {
            "errors": scaled_errors(run.surrogate, unseen, (1, 2)),
            "by_time": _by_time(run.surrogate, unseen.states, unseen.times[0]),
            "training_seconds": run.report["seconds"],
            "beyond": _beyond(run.surrogate, unseen.states[:, 0], 1e15),
        }

    return Row(f"{LONG}, seed {seed}", settings, measure)


def _by_time(
    surrogate: Surrogate, states: NDArray[np.float64], times: NDArray[np.float64]
) -> dict[str, Any]:
    """Root mean squared scaled error over time, for the figure."""
    error = (np.asarray(surrogate.rollout(states[:, 0], times)) - states) / SCALES
    return {"times": times, "rms": np.sqrt(np.mean(error**2, axis=(0, 2)))}


def _beyond(
    surrogate: Surrogate, x0: NDArray[np.float64], last: float
) -> dict[str, Any]:
    """A run far past the training data: bounded, within its certificate, at rest?"""
    trained = surrogate.signature.domain.end
    decades = round(np.log10(last / trained))
    times = np.append(0.0, trained * 10.0 ** np.linspace(0, decades, 5 * decades + 1))
    x = np.asarray(surrogate.rollout(x0, times))
    box = surrogate.certificate()["invariant_box"]
    assert isinstance(box, dict)
    bounds = np.array(list(box.get("states", {}).values())).T
    last_states = np.abs(x[:, -1] / SCALES)
    return {
        "until": last,
        "finite": bool(np.isfinite(x).all()),
        "largest": np.abs(x / SCALES).max(axis=(0, 1)),
        "certified": box["holds"],
        "within_certificate": bool(
            len(bounds) and (x >= bounds[0]).all() and (x <= bounds[1]).all()
        ),
        "bounds": bounds,
        "flagged_after": trained,
        "last_decade_change": np.abs((x[:, -1] - x[:, -6]) / SCALES).max(),
        "last_y1_y2": last_states[:, :2].max(axis=0),
    }


def _tables(records: Records) -> str:
    rows = [
        (
            name,
            *(
                record.numbers["errors"].get(each, {}).get("mse")
                for each in ("h", "h/2", "h/4")
            ),
            record.numbers["errors"]["h"]["largest"],
            round(record.numbers["training_seconds"]),
        )
        for name, record in records.items()
    ]
    columns = (
        "model",
        "MSE, h",
        "h/2",
        "h/4",
        "largest scaled error of y1, y2, y3 (h)",
        "training, s",
    )
    return table(columns, rows) + "\n\n" + _beyond_table(records) + _choices()


def _beyond_table(records: Records) -> str:
    found = [
        (n, r.numbers["beyond"]) for n, r in records.items() if "beyond" in r.numbers
    ]
    rows = [
        (
            name,
            f"{far['until']:.0e}",
            far["finite"],
            far["within_certificate"],
            far["largest"],
            f"{far['flagged_after']:.0e}",
            far["last_decade_change"],
            far["last_y1_y2"],
        )
        for name, far in found
    ]
    columns = (
        "beyond the data",
        "run to",
        "finite",
        "within its certificate",
        "largest scaled y1, y2, y3",
        "flagged past",
        "change in the last decade",
        "y1, scaled y2 at the end",
    )
    return table(columns, rows) + "\n\n"


def _choices() -> str:
    """What the default decides from the data, in its own words."""
    _, training, choices = resolve(generate("robertson", 10))
    lines = [f"* {c['what']}: {c['value']} ({c['why']})" for c in choices]
    shown = training.model_dump(mode="json", exclude_none=True)
    main = ("iterations", "batch", "optimiser", "learning_rate", "loss", "refine")
    plain = ", ".join(f"{name} {shown[name]}" for name in (*main, "polish"))
    return "What the default chose from the data:\n\n" + "\n".join(
        [*lines, f"* training: {plain}"]
    )


def _bars(records: Records) -> list[Bar]:
    quick = select(records, quick=True)
    if quick:
        return _quick_bars(quick)
    ours, long = select(records, kind=DEFAULT), select(records, kind=LONG)
    bars = [_paper_bar(kind, select(records, kind=kind)) for kind in (WITH, WITHOUT)]
    for grid, limit in (("h", 2e-7), ("h/2", 2e-7), ("h/4", 5e-7)):
        errors = [r.numbers["errors"][grid]["mse"] for r in ours]
        bars.append(
            Bar(
                f"our default, MSE on {grid}",
                "best loss 2.01e-4" if grid == "h" else "–",
                f"≤ {limit:.0e}",
                worst(errors),
                at_most(errors, limit),
            )
        )
    seconds = [r.numbers["training_seconds"] for r in ours]
    bars.append(
        Bar(
            "our default, time of training",
            "–",
            "≤ 600 s",
            f"{max(seconds):.0f} s (longest of {len(seconds)})" if ours else "not run",
            at_most(seconds, 600.0),
        )
    )
    return bars + _beyond_bars(ours, long)


def _paper_bar(kind: str, found: list[Record]) -> Bar:
    errors = [r.numbers["training_mse"] for r in found]
    unseen = [r.numbers["errors"]["h"]["mse"] for r in found]
    shown = ", ".join(f"{each:.2e}" for each in errors)
    more = ", ".join(f"{each:.2e}" for each in unseen)
    return Bar(
        f"{kind}: final MSE, training",
        "2.01e-4",
        "≤ 2.01e-4",
        f"{shown} (unseen {more})" if found else "not run",
        min(errors) <= PAPER_BEST if found else None,
    )


def _beyond_bars(ours: list[Record], long: list[Record]) -> list[Bar]:
    far = [r.numbers["beyond"] for r in ours]
    good = [each["finite"] and each["within_certificate"] for each in far]
    errors = [r.numbers["errors"]["h"]["mse"] for r in long]
    rest = [r.numbers["beyond"] for r in long]
    changes = [each["last_decade_change"] for each in rest]
    return [
        Bar(
            "trained to 1e5, run to 1e11: bounded by certificate and by run",
            "–",
            "all",
            f"{sum(good)} of {len(good)}; flagged past {far[0]['flagged_after']:.0e}"
            if far
            else "not run",
            all(good) if good else None,
        ),
        Bar(
            "trained to 1e11: MSE over all 82 times",
            "–",
            "≤ 1e-6",
            worst(errors),
            at_most(errors, 1e-6),
        ),
        Bar(
            "trained to 1e11: at rest to 1e15 (change over the last decade)",
            "–",
            "≤ 1e-6",
            worst(changes),
            at_most(changes, 1e-6),
        ),
    ]


def _quick_bars(quick: list[Record]) -> list[Bar]:
    """What a short training reaches, and a broken method does not."""
    numbers = quick[0].numbers
    ours, far = numbers["errors"], numbers["beyond"]
    limits = [(ours["h"]["mse"], 5e-5), (ours["h/2"]["mse"], 5e-5)]
    bars = [
        Bar("quick: our default", "–", f"≤ {limit:.0e}", f"{mse:.1e}", mse <= limit)
        for mse, limit in limits
    ]
    bounded = far["finite"] and far["within_certificate"]
    told = "yes" if bounded else "no"
    bars.append(Bar("quick: bounded to 1e11", "–", "yes", told, bounded))
    return bars


def _draw(records: Records, figure: Any) -> None:
    axes = figure.subplots()
    kinds = list(dict.fromkeys(r.settings["kind"] for r in records.values()))
    for colour, kind in zip(COLOURS, kinds, strict=False):
        for number, record in enumerate(select(records, kind=kind)):
            curve = record.numbers["by_time"]
            axes.plot(
                curve["times"][1:],
                curve["rms"][1:],
                color=colour,
                linewidth=1.2,
                label=None if number else kind,
            )
    axes.axhline(np.sqrt(PAPER_BEST), color="0.4", linestyle="--", linewidth=1)
    axes.annotate("the paper's best loss", (1e-5, PAPER_BEST**0.5), va="bottom")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="time",
        ylabel="RMS scaled error over unseen starts (dimensionless)",
    )
    axes.legend()


EXAMPLE = Example(
    name="robertson",
    title="Robertson's reaction",
    about=_ABOUT,
    rows=_rows,
    tables=_tables,
    bars=_bars,
    draw=_draw,
)
