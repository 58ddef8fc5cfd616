"""diffrax on our model and SUNDIALS' CVODE on the reaction, as a peer's program."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sksundae.cvode import CVODE

from benchmarks.peers.answering import Contestants, answer_calls
from benchmarks.speed.gradient import gradient_of, step_of
from benchmarks.speed.robertson import ATOL, RTOL, scaled_rms, times, truth, unseen
from benchmarks.speed.turns import repeated
from spnode_core import Surrogate, artifact
from spnode_core.surrogate import cast_networks
from spnode_core.systems.robertson import derivative, jacobian

# Loosest first: the first whose error is no larger than ours is taken.
TOLERANCES = (1.0, 0.3, 0.1, 0.03, 1e-2, 1e-3)
_TIGHT = 1e-7
_NONE = jnp.zeros(0)
_contestants = Contestants()


def prepare_model(path: str, rows: int, error: float) -> dict[str, Any]:
    """Make ready a rollout of the model by Kvaerno5, as accurate as ours.

    Args:
        path: The artifact.
        rows: Initial states.
        error: Ours against the truth.

    Returns:
        The tolerance that was taken, and the error by tolerance.
    """
    surrogate = artifact.load(path).prepared()
    x0 = unseen(rows)
    true, found = truth(x0), {}
    solve = eqx.filter_jit(trajectories)
    for tolerance in TOLERANCES:
        try:
            x = np.asarray(solve(surrogate, x0, jnp.asarray(tolerance)))
        except eqx.EquinoxRuntimeError:
            if not found:
                raise
            break  # it would take too many steps
        found[tolerance] = scaled_rms(x, true)
        if found[tolerance] <= 1.05 * error:
            break
    best = min(found, key=lambda tolerance: found[tolerance])
    call = partial(_run, solve, surrogate, x0, jnp.asarray(best))
    _contestants["model"] = repeated(call)
    return {"tolerance": best, "error": found[best], "errors": found}


def trajectories(surrogate: Surrogate, x0: Any, tolerance: Any) -> Any:
    """States of a batch by Kvaerno5 on the model's own equation, at our times."""
    at = jnp.asarray(times())

    def one(start: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(
                lambda t, z, _: surrogate.dynamics.derivative(z, _NONE, _NONE)
            ),
            diffrax.Kvaerno5(),
            t0=0.0,
            t1=at[-1],
            dt0=None,
            y0=surrogate.encode(start, _NONE),
            saveat=diffrax.SaveAt(ts=at),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=diffrax.RecursiveCheckpointAdjoint(),
            max_steps=4096,
        )
        sums = surrogate.conserved_sums(start)
        decode = partial(surrogate.decode, sums=sums, parameters=_NONE)
        return jax.vmap(decode)(solution.ys)

    return jax.vmap(one)(jnp.asarray(x0))


def prepare_training(path: str, rows: int, tolerance: float) -> dict[str, Any]:
    """Make ready a gradient step through Kvaerno5.

    Args:
        path: The artifact.
        rows: Trajectories.
        tolerance: Relative and absolute.

    Returns:
        The loss, and how far the gradient is from that at a tight tolerance in float64,
        relative to that.
    """
    surrogate = artifact.load(path)
    x0 = unseen(rows)
    true = jnp.asarray(truth(x0))
    roll = partial(trajectories, tolerance=jnp.asarray(tolerance))
    call = step_of(roll, surrogate, x0, true)
    found = call()
    _contestants["training"] = repeated(call, least_s=0.0)
    tight = partial(trajectories, tolerance=jnp.asarray(_TIGHT))
    exact = gradient_of(tight, cast_networks(surrogate, np.float64), x0, true)
    error = np.linalg.norm(gradient_of(roll, surrogate, x0, true) - exact)
    return {"loss": found, "gradient_error": float(error / np.linalg.norm(exact))}


def prepare_cvode(rows: int) -> dict[str, Any]:
    """Make ready CVODE (BDF, dense, analytic Jacobian) on the reaction."""
    x0, at = unseen(rows), times()
    solver = CVODE(_slope, jacfn=_jacobian, rtol=RTOL, atol=ATOL, max_num_steps=100_000)

    def solve() -> np.ndarray:
        return np.stack([solver.solve(at, start).y for start in x0])

    _contestants["cvode"] = repeated(solve)
    return {"error": scaled_rms(solve(), truth(x0))}


def _run(solve: Callable[..., Any], *arguments: Any) -> None:
    np.asarray(solve(*arguments))


def _slope(t: float, y: Any, into: Any) -> None:
    into[:] = derivative(t, y)


def _jacobian(t: float, y: Any, slope: Any, into: Any) -> None:
    into[:] = jacobian(t, y)


def versions() -> dict[str, str]:
    """Those of the peers."""
    names = {"diffrax": "diffrax", "CVODE (scikit-sundae)": "scikit-sundae"}
    found = importlib.import_module("importlib.metadata")
    return {told: found.version(package) for told, package in names.items()}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    answer_calls(
        {
            "prepare_model": prepare_model,
            "prepare_training": prepare_training,
            "prepare_cvode": prepare_cvode,
            "measure": _contestants.measure,
            "versions": versions,
        }
    )
