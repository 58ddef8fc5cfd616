"""Training: the gradient step against the same step through an adaptive solver."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.paper.rows import Numbers
from benchmarks.speed.computing import computing, unseen_truth
from benchmarks.speed.figures import Figure, Group, Options, Tell
from benchmarks.speed.gradient import mean_squared_error, step_of
from benchmarks.speed.robertson import STEPS, Floats, times, unseen
from benchmarks.speed.turns import (
    cpus,
    in_turns,
    in_words,
    median,
    ratios,
    repeated,
    walls,
)
from spnode_core import Surrogate
from spnode_core.rollout import rollout

BATCH = 100
# At the first diffrax's gradient is right to about a hundredth; others are reported.
_TOLERANCES = {1e-3: 100.0, 1e-2: None, 1.0: None}

ABOUT = f"""
Value and gradient, by all trainable arrays, of the mean squared error of {BATCH}
trajectories of {STEPS} steps, in normalised states: the same model, the same loss, the
same data. Ours steps by ETD1 on the model's own times; diffrax integrates
z' = A z + f(z) by Kvaerno5 with `RecursiveCheckpointAdjoint`, at a tolerance (relative
and absolute) that is usual and at looser ones, whose gradients are further from that at
1e-7. Ours is the gradient of the rollout itself. Times are CPU times of all threads.
"""


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """Needs the peer; alone there is the cost of a step over a rollout."""
    found = [
        Figure(
            f"gradient step, batch {BATCH}",
            "loss alone",
            partial(_against_loss, options),
            settings={"batch": BATCH},
        )
    ]
    if options.peers:
        found += [
            Figure(
                f"gradient step, batch {BATCH}, faster than Kvaerno5 at {tolerance:g}",
                "diffrax Kvaerno5, RecursiveCheckpointAdjoint",
                partial(_against_diffrax, options, tolerance),
                at_least=bar,
                settings={"batch": BATCH, "tolerance": tolerance},
                cost=10.0,
            )
            for tolerance, bar in _TOLERANCES.items()
        ]
    return found


def _ours(options: Options) -> tuple[Surrogate, Floats, Floats, Any]:
    surrogate = computing(options).model.surrogate
    plan = jax.tree.map(jnp.asarray, surrogate.grid.plan(times()))
    return surrogate, unseen(BATCH), unseen_truth(BATCH), plan


def _against_loss(options: Options, tell: Tell) -> Numbers:
    surrogate, x0, true, plan = _ours(options)
    step = step_of(lambda model, x: rollout(model, x, plan), surrogate, x0, true)

    @eqx.filter_jit
    def loss(surrogate: Surrogate, x0: Any, true: Any) -> Any:
        return mean_squared_error(surrogate, rollout(surrogate, x0, plan), true)

    arrays = jnp.asarray(x0), jnp.asarray(true)
    taken = in_turns(
        {
            "step": repeated(step),
            "loss": repeated(lambda: float(loss(surrogate, *arrays))),
        },
        computing(options).rounds,
    )
    return {
        "value": ratios(cpus(taken["step"]), cpus(taken["loss"])),
        "ours": in_words(median(taken["step"])),
        "theirs": in_words(median(taken["loss"])),
    }


def _against_diffrax(options: Options, tolerance: float, tell: Tell) -> Numbers:
    surrogate, x0, true, plan = _ours(options)
    step = step_of(lambda model, x: rollout(model, x, plan), surrogate, x0, true)
    loss = step()
    ours = computing(options)
    with ours.program("solvers") as program:
        path = str(ours.model.path)
        ready = program.call(
            "prepare_training", path=path, rows=BATCH, tolerance=tolerance
        )
        taken = in_turns(
            {"ours": repeated(step), "theirs": program.contestant("training")},
            min(5, ours.rounds),
        )
        release = program.call("versions")["diffrax"]
    by_clock = ratios(walls(taken["theirs"]), walls(taken["ours"]))["median"]
    return {
        "value": ratios(cpus(taken["theirs"]), cpus(taken["ours"])),
        "ours": f"{in_words(median(taken['ours']))}, loss {loss:.1e}",
        "theirs": f"{in_words(median(taken['theirs']))}, loss {ready['loss']:.1e}",
        "losses": {"ours": loss, "theirs": ready["loss"]},
        "notes": [
            f"diffrax {release}, tolerance {tolerance:g}; by the clock the "
            f"median is {by_clock:.3g}x. Root mean square of the normalised error: "
            f"{np.sqrt(loss):.1e} against {np.sqrt(ready['loss']):.1e}. Diffrax's "
            f"gradient is off by {100 * ready['gradient_error']:.2g} % of that at 1e-7."
        ],
    }


GROUP = Group("training", "Training", ABOUT, figures)
