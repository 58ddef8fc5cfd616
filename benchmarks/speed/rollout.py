"""Rollouts: share of the matmul peak, cost of derivatives, stiff solvers."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.paper.rows import Numbers
from benchmarks.speed.computing import (
    THROUGHPUT,
    Computing,
    computing,
    peak,
    unseen_truth,
)
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.robertson import (
    RTOL,
    STEPS,
    WIDE_LATENT,
    Floats,
    find_wide_model,
    scaled_rms,
    solved_by_odeint,
    solved_by_solve_ivp,
    unseen,
)
from benchmarks.speed.turns import (
    compared,
    cpus,
    in_turns,
    in_words,
    median,
    ratios,
    repeated,
    spread,
)
from services.devices import cores
from services.rollouts.tiles import pieces
from services.rollouts.work import USUAL, Variant

_MODES = {"usual": USUAL, "throughput": THROUGHPUT}
# Batch, mode, bar in percent of the peak.
_SHARES: Sequence[tuple[int, str, float | None]] = (
    (1, "usual", None),
    (64, "usual", 45.0),
    (64, "throughput", None),
    (1024, "throughput", 55.0),
    (1024, "usual", None),
    (4096, "throughput", 55.0),
    (4096, "usual", None),
)
_QUICK_SHARES = ((1, "usual", None), (64, "usual", 45.0))
_DERIVATIVES = (("vjp", 64), ("vjp", 512), ("hvp", 64), ("hvp", 512))
_DERIVATIVE_BARS = {"vjp": 3.0, "hvp": 6.0}
_LSODA_BARS = {1: 20.0, 64: 75.0}
_LSODA = {"solve_ivp": solved_by_solve_ivp, "odeint": solved_by_odeint}

ABOUT = f"""
Robertson's reaction from 0 to 1e5: modal latent of 8, encoder, g and decoder of
2 x 100, ETD1, {STEPS} logarithmic steps. Ours is `Engine.run`: arrays of the host in
and out, in float64, networks in float32; *usual* is the mode whose bits do not depend
on the batch, *throughput* that of large tiles. Operations are those of the networks'
products, 2.3 MFLOP for a row; the peak is that of a float32 product of two matrices of
2048 x 2048 by JAX, on the same cores, in the same rounds. Times are CPU times of all
threads. Errors are root mean squares over rows, times and species, each species divided
by its size, against LSODA at rtol 1e-11.
"""


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """All that the options ask for."""
    shares = _QUICK_SHARES if options.quick else _SHARES
    derivatives = _DERIVATIVES[:1] if options.quick else _DERIVATIVES
    batches = (1,) if options.quick else tuple(_LSODA_BARS)
    return [
        *(_share(options, *each) for each in shares),
        *(
            _derivative(options, kind, rows, mode)
            for mode in (("usual",) if options.quick else _MODES)
            for kind, rows in derivatives
        ),
        *(_dense(options, rows) for rows in batches),
        *(_lsoda(options, rows, by) for by in _LSODA for rows in batches),
        *(_diffrax(options, rows) for rows in (1, 8, 64) if options.peers),
        *(_cvode(options, rows) for rows in (1, 64) if options.peers),
    ]


def _share(options: Options, rows: int, mode: str, bar: float | None) -> Figure:
    return Figure(
        f"batch {rows}, {mode} mode",
        "matmul peak",
        partial(_measure_share, options, rows, _MODES[mode]),
        at_least=bar,
        unit="%",
        settings={"rows": rows, "mode": mode, "quick": options.quick},
    )


def _measure_share(
    options: Options, rows: int, variant: Variant, tell: Tell
) -> Numbers:
    ours = computing(options)
    product, flop = peak()
    taken = in_turns(
        {
            "rollout": repeated(ours.rollout(rows, variant)),
            "peak": repeated(product),
        },
        ours.rounds,
    )
    work = rows * ours.model.flop_per_row
    share = [
        100 * (work / mine.cpu_s) / (flop / best.cpu_s)
        for mine, best in zip(taken["rollout"], taken["peak"], strict=True)
    ]
    took, best = median(taken["rollout"]), median(taken["peak"])
    return {
        "value": spread(share),
        "ours": f"{in_words(took)}, {number(rows / took)} rows and "
        f"{number(work / took / 1e9)} GFLOP a core-second",
        "theirs": f"{number(flop / best / 1e9)} GFLOP a core-second",
        "seconds": took,
        "notes": [_tiles(ours, rows, variant)],
    }


def _derivative(options: Options, kind: str, rows: int, mode: str) -> Figure:
    return Figure(
        f"{kind} of a final state, batch {rows}, {mode} mode",
        "forward",
        partial(_measure_derivative, options, kind, rows, _MODES[mode]),
        at_most=_DERIVATIVE_BARS[kind],
        settings={"rows": rows, "mode": mode, "quick": options.quick},
    )


def _measure_derivative(
    options: Options, kind: str, rows: int, variant: Variant, tell: Tell
) -> Numbers:
    ours = computing(options)
    make = {"vjp": ours.vjp, "hvp": ours.hvp}[kind]
    taken = in_turns(
        {
            "derivative": repeated(make(rows, variant)),
            "forward": repeated(ours.rollout(rows, variant, final=True)),
        },
        ours.rounds,
    )
    return {
        "value": ratios(cpus(taken["derivative"]), cpus(taken["forward"])),
        "ours": in_words(median(taken["derivative"])),
        "theirs": in_words(median(taken["forward"])),
    }


def _dense(options: Options, rows: int) -> Figure:
    return Figure(
        f"a dense linear part of {WIDE_LATENT} latent variables, batch {rows}",
        "a diagonal one, the same networks",
        partial(_measure_dense, options, rows),
        settings={"rows": rows, "quick": options.quick},
    )


def _measure_dense(options: Options, rows: int, tell: Tell) -> Numbers:
    ours = computing(options)
    dense, diagonal = (find_wide_model(options, kind) for kind in ("hurwitz", "modal"))
    taken = in_turns(
        {
            "dense": repeated(ours.rollout_of(dense, rows)),
            "diagonal": repeated(ours.rollout_of(diagonal, rows)),
        },
        ours.rounds,
    )
    return {
        "value": ratios(cpus(taken["dense"]), cpus(taken["diagonal"])),
        "ours": in_words(median(taken["dense"])),
        "theirs": in_words(median(taken["diagonal"])),
    }


def _lsoda(options: Options, rows: int, by: str) -> Figure:
    return Figure(
        f"faster than LSODA by {by} on the reaction itself, batch {rows}",
        f"scipy LSODA, rtol {RTOL:.0e}",
        partial(_measure_lsoda, options, rows, _LSODA[by]),
        # Users call the first; the second is the leanest that scipy has.
        at_least=_LSODA_BARS[rows] if by == "solve_ivp" else None,
        settings={"rows": rows, "quick": options.quick},
        cost=3.0 if rows > 1 else 1.0,
    )


def _measure_lsoda(
    options: Options, rows: int, solved: Callable[[Floats], Floats], tell: Tell
) -> Numbers:
    ours = computing(options)
    x0 = unseen(rows)
    roll = ours.rollout(rows)
    taken = in_turns(
        {"rollout": repeated(roll), "solver": repeated(lambda: solved(x0))},
        ours.rounds,
    )
    true = unseen_truth(rows)
    errors = {
        "ours": scaled_rms(roll()["x"], true),
        "theirs": scaled_rms(solved(x0), true),
    }
    return compared(taken["rollout"], taken["solver"], errors)


def _diffrax(options: Options, rows: int) -> Figure:
    return Figure(
        f"faster than Kvaerno5 on the same model, batch {rows}",
        "diffrax Kvaerno5, no larger error",
        partial(_measure_diffrax, options, rows),
        at_least=25.0,
        settings={"rows": rows},
        cost=5.0,
    )


def _measure_diffrax(options: Options, rows: int, tell: Tell) -> Numbers:
    ours = computing(options)
    roll = ours.rollout(rows)
    error = scaled_rms(roll()["x"], unseen_truth(rows))
    with ours.program("solvers") as program:
        path = str(ours.model.path)
        ready = program.call("prepare_model", path=path, rows=rows, error=error)
        taken = in_turns(
            {"rollout": repeated(roll), "solver": program.contestant("model")},
            ours.rounds,
        )
        release = program.call("versions")["diffrax"]
    found = compared(
        taken["rollout"], taken["solver"], {"ours": error, "theirs": ready["error"]}
    )
    tried = ", ".join(f"{tol}: {err:.1e}" for tol, err in ready["errors"].items())
    found["notes"].append(
        f"diffrax {release} integrates z' = A z + f(z) of the model with tolerance "
        f"{ready['tolerance']:g}, relative and absolute. Errors against the truth by "
        f"tolerance: {tried}. The step is part of our model, so its own equation, "
        "solved more tightly, is not nearer to the truth."
    )
    return found


def _cvode(options: Options, rows: int) -> Figure:
    return Figure(
        f"faster than CVODE on the reaction itself, batch {rows}",
        f"SUNDIALS CVODE, rtol {RTOL:.0e}",
        partial(_measure_cvode, options, rows),
        settings={"rows": rows},
        cost=3.0,
    )


def _measure_cvode(options: Options, rows: int, tell: Tell) -> Numbers:
    ours = computing(options)
    roll = ours.rollout(rows)
    error = scaled_rms(roll()["x"], unseen_truth(rows))
    with ours.program("solvers") as program:
        ready = program.call("prepare_cvode", rows=rows)
        taken = in_turns(
            {"rollout": repeated(roll), "solver": program.contestant("cvode")},
            ours.rounds,
        )
    return compared(
        taken["rollout"], taken["solver"], {"ours": error, "theirs": ready["error"]}
    )


def _tiles(ours: Computing, rows: int, variant: Variant) -> str:
    """In what the rows were computed: a tile that rounds otherwise is not used."""
    shapes = {
        shape.variant: tiles
        for model in ours.engine.resident.models
        for shape, tiles in model.tiles.items()
        if shape.operation == "rollout" and shape.plan[1] == STEPS
    }
    cut = pieces(rows, shapes[variant], cores())
    used = [stop - start for start, stop, _ in cut]
    return (
        f"Tiles allowed on this machine: {', '.join(map(str, shapes[variant]))}; "
        + (f"{len(used)} used.")
    )


GROUP = Group("rollout", "Rollouts", ABOUT, figures)
