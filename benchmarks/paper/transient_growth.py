"""Transient growth: does one large step tell how a matrix grows before it decays?"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
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
    select,
    table,
)
from benchmarks.paper.trained import UNSEEN_SEED, Tell, described
from spnode_core import (
    Dataset,
    SplitSpec,
    Surrogate,
    SurrogateSpec,
    TrainingSpec,
    check_arrays,
    fit,
)
from spnode_core.metrics import predict
from spnode_core.spec import (
    BilinearSpec,
    HurwitzSpec,
    Integrator,
    LipschitzSpec,
    NoAutoencoderSpec,
    RatesSpec,
)
from spnode_core.systems.transient_growth import TransientGrowth
from spnode_core.timegrid import TimeGrid

Floats = NDArray[np.float64]
STARTS = 1000
STRENGTH = 0.1
ITERATIONS = 4000
SINE_BOUND = 0.03
"""Below the slope of the truth, 0.1: its linear part belongs into A."""
INTEGRATORS: tuple[Integrator, ...] = ("etd1", "imex_ssp2")
RATES = RatesSpec(minimum=0.5, maximum=2.0)


@dataclass(frozen=True)
class Case:
    """One matrix with the times of its data.

    Args:
        title: The matrix and the times, in words.
        coupling: Its entry off the diagonal.
        times: From 0.
    """

    title: str
    coupling: float
    times: tuple[float, ...]


CASES = (
    Case("[[-1, 3.2], [0, -2]], one step", 3.2, (0.0, 1.0)),
    Case("[[-1, 3.2], [0, -2]], two steps", 3.2, (0.0, 0.1, 1.0)),
    Case("[[-1, 10], [0, -2]], one step", 10.0, (0.0, 0.5)),
    Case("[[-1, 10], [0, -2]], two steps", 10.0, (0.0, 0.1, 1.0)),
    Case("diag(-1, -2), one step", 0.0, (0.0, 1.0)),
    Case("diag(-1, -2), two steps", 0.0, (0.0, 0.1, 1.0)),
)
FIRST = CASES[0]

_ABOUT = """
x' = A x + 0.1 q(x), q = x^2 (bilinear network of rank 4) or sin x (Lipschitz network
of 2 layers with 32 units, L = 0.03). 1,000 starts in [-1, 1]^2; training sees their
first and last points (one step of 1, or 0.5 where the coupling is 10), or the points
0, 0.1 and 1 (two steps). The paper's matrices and its epsilon are lost from its text:
these are a choice, with spectra of -1 and -2 throughout. Hurwitz 2 x 2, no autoencoder,
states as they are given, so A is the learned matrix itself; it starts as
diag(-0.5, -2). Adam 0.01, cosine, batch 1,000, as in the paper, but 4,000 iterations:
its 1,000 do not converge. Data: RK45 at a tolerance of 1e-9 (paper: RKF45).

mu is the logarithmic norm, the largest eigenvalue of (A + A^T) / 2: positive means that
some state first grows. Relative errors are in the Frobenius norm. With q = sin x one
step cannot tell a linear part of f from A: e^A + phi_1(A) f'(0) is all it sees. So L is
below the slope 0.1 of the truth there (with L = 0.3 the error of A is 0.12, with 0.1 it
is 0.03), and what is compared is the whole derivative at 0, A + f'(0), with A + 0.1 I.
`deployed` is the relative error over 49 small steps up to the last time: the learned
operators with steps never trained on.
"""


def _rows(options: Options) -> list[Row]:
    if options.quick:
        return [_row(FIRST, "square", method, 0, 1500) for method in INTEGRATORS]
    return [
        _row(case, form, method, seed, ITERATIONS)
        for case in CASES
        for form in ("square", "sine")
        for method in INTEGRATORS
        for seed in options.seeds
    ]


def _row(
    case: Case, form: str, integrator: Integrator, seed: int, iterations: int
) -> Row:
    is_square = form == "square"
    surrogate = SurrogateSpec(
        linear=HurwitzSpec(rates=RATES),
        nonlinear=BilinearSpec(rank=4, initial_scale=0.3)
        if is_square
        else LipschitzSpec(width=32, depth=2, bound=SINE_BOUND),
        autoencoder=NoAutoencoderSpec(),
        integrator=integrator,
        normalisation={"x1": "none", "x2": "none"},
        precision="float64",
    )
    training = TrainingSpec(
        iterations=iterations,
        batch=STARTS,
        optimiser="adam",
        learning_rate=0.01,
        loss="uniform",
        refine=1,
        polish="none",
    )
    settings = described(
        surrogate,
        training,
        case=case.title,
        coupling=case.coupling,
        times=list(case.times),
        q=form,
        integrator=integrator,
        seed=seed,
        quick=iterations < ITERATIONS,
    )

    def measure(tell: Tell) -> Numbers:
        system = TransientGrowth(
            coupling=case.coupling,
            strength=STRENGTH,
            nonlinearity="square" if is_square else "sine",
        )
        run = fit(
            _dataset(system, STARTS, seed, np.array(case.times)),
            surrogate,
            training,
            split=SplitSpec(validation=0, test=0),
            seed=seed,
            on_progress=tell,
        )
        return _compared(run.surrogate, system, case, seed)

    shown = "x^2" if is_square else "sin x"
    name = f"{case.title}, {shown}, {integrator}, seed {seed}"
    return Row(name, settings, measure)


def _dataset(system: TransientGrowth, starts: int, seed: int, times: Floats) -> Dataset:
    states = system.reference(system.sample(starts, seed), times)
    return check_arrays(
        {"states": states, "times": times, "names": np.array(system.states)}
    )


def _compared(
    surrogate: Surrogate, system: TransientGrowth, case: Case, seed: int
) -> Numbers:
    """The learned operator against the true one, and rollouts on small steps."""
    is_sine = system.nonlinear is np.sin
    exact = system.matrix + (STRENGTH * np.eye(2) if is_sine else 0.0)
    matrix = np.asarray(surrogate.dynamics.linear.matrix())
    learned = _slope(surrogate) if is_sine else matrix
    times = np.linspace(0.0, case.times[-1], 50)
    unseen = _dataset(system, 100, seed + UNSEEN_SEED, times)
    width = float(times[1])
    fine = TimeGrid(np.array([0.0, width]), uniform=width)
    error = predict(surrogate, unseen, fine) - unseen.states
    size = np.linalg.norm(unseen.states)
    return {
        "matrix": matrix,
        "slope_at_0": _slope(surrogate),
        "error_of_matrix": np.linalg.norm(learned - exact) / np.linalg.norm(exact),
        "mu": log_norm(learned),
        "true_mu": log_norm(exact),
        "peak": flow_norms(learned, np.linspace(0.0, 2.0, 201)).max(),
        "true_peak": flow_norms(exact, np.linspace(0.0, 2.0, 201)).max(),
        "deployed": np.linalg.norm(error) / size,
        "learned": learned,
        "exact": exact,
    }


def _slope(surrogate: Surrogate) -> Floats:
    """``A + f'(0)``, 1/time."""
    none = jnp.zeros(0)
    origin = jnp.zeros(2)
    return np.asarray(
        jax.jacobian(lambda z: surrogate.dynamics.derivative(z, none, none))(origin)
    )


def log_norm(matrix: Floats) -> float:
    """``mu_2``: the largest eigenvalue of the symmetric part (paper, 22)."""
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2).max())


def flow_norms(matrix: Floats, times: Floats) -> Floats:
    """``||e^{t A}||_2`` over time."""
    flows = jax.vmap(lambda t: jax.scipy.linalg.expm(t * matrix))(jnp.asarray(times))
    return np.linalg.norm(np.asarray(flows), 2, axis=(1, 2))


def _tables(records: Records) -> str:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records.values():
        chosen = record.settings
        key = (chosen["case"], chosen["q"], chosen["integrator"])
        groups.setdefault(key, []).append(record)
    rows = [
        (
            case,
            "x²" if form == "square" else "sin x",
            integrator,
            found[0].numbers["true_mu"],
            _all(found, "mu"),
            found[0].numbers["true_peak"],
            _all(found, "peak"),
            _all(found, "error_of_matrix"),
            _all(found, "deployed"),
        )
        for (case, form, integrator), found in groups.items()
    ]
    columns = (
        "matrix, data",
        "q",
        "integrator",
        "true mu",
        "mu by seed",
        "true peak",
        "peak by seed",
        "error of A by seed",
        "deployed",
    )
    return table(columns, rows)


def _all(records: list[Record], key: str) -> list[float]:
    return [record.numbers[key] for record in records]


def _bars(records: Records) -> list[Bar]:
    first = {
        method: select(records, case=FIRST.title, q="square", integrator=method)
        for method in INTEGRATORS
    }
    limit = 0.1 if select(records, quick=True) else 0.02
    etd, imex = (_all(first[method], "mu") for method in INTEGRATORS)
    every = _all(select(records, integrator="etd1"), "error_of_matrix")
    beside = _all(select(records, integrator="imex_ssp2"), "error_of_matrix")
    good = sum(error <= limit for error in every)
    return [
        Bar(
            f"sign of mu, {FIRST.title}, x^2: ETD1",
            "ETD1 learns mu > 0",
            "right (true mu 0.176)",
            _signed(etd),
            min(etd) > 0 if etd else None,
        ),
        Bar(
            f"sign of mu, {FIRST.title}, x^2: IMEX",
            "IMEX does not",
            "wrong",
            _signed(imex),
            max(imex) < 0 if imex else None,
        ),
        Bar(
            "relative error of A, ETD1, all matrices, q, data and seeds",
            "–",
            f"≤ {limit:g}",
            f"{good} of {len(every)}, worst {max(every):.3g}; IMEX {_range(beside)}"
            if every
            else "not run",
            max(every) <= limit if every else None,
        ),
    ]


def _signed(values: list[float]) -> str:
    return ", ".join(f"{value:+.3f}" for value in values) or "not run"


def _range(values: list[float]) -> str:
    return f"{min(values):.2g} to {max(values):.2g}" if values else "not run"


def _draw(records: Records, figure: Any) -> None:
    times = np.linspace(0.0, 2.0, 101)
    titles = list(dict.fromkeys(r.settings["case"] for r in records.values()))
    shown = [case for case in CASES if case.title in titles and len(case.times) == 2]
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, case in zip(panels, shown, strict=True):
        found = select(records, case=case.title, q="square")
        exact = np.array(found[0].numbers["exact"])
        axes.plot(times, flow_norms(exact, times), color="0.2", linewidth=2.2)
        for record in found:
            method = INTEGRATORS.index(record.settings["integrator"])
            learned = np.array(record.numbers["learned"])
            axes.plot(
                times,
                flow_norms(learned, times),
                color=COLOURS[method],
                linestyle=("--", ":")[method],
            )
        axes.set_title(case.title, fontsize=8)
        axes.set_xlabel("time")
    panels[0].set_ylabel("‖exp(tA)‖₂, q = x² (dimensionless)")
    for label, style in (
        ("truth", {"color": "0.2", "linewidth": 2.2}),
        ("ETD1, by seed", {"color": COLOURS[0], "linestyle": "--"}),
        ("IMEX-SSP2, by seed", {"color": COLOURS[1], "linestyle": ":"}),
    ):
        panels[0].plot([], [], label=label, **style)
    panels[0].legend(loc="lower left")


EXAMPLE = Example(
    name="transient-growth",
    title="Transient growth",
    about=_ABOUT,
    rows=_rows,
    tables=_tables,
    bars=_bars,
    draw=_draw,
)
