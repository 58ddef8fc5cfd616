"""How a surrogate of Kuramoto-Sivashinsky compares with the truth: short and long.

The truth is Krogstad's fourth order method on Fourier modes: with steps of 0.025 for
what is followed point by point, 0.05 for statistics. It is made once and kept in a
cache folder; seeds name it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core import Progress, Surrogate
from spnode_core.atomic import replacing
from spnode_core.attractor import (
    error_curve,
    hellinger_distance,
    joint_density,
    relative_entropy,
    valid_prediction_time,
)
from spnode_core.errors import InvalidInput
from spnode_core.rollout import march
from spnode_core.systems.kuramoto_sivashinsky import KuramotoSivashinsky

Floats = NDArray[np.float64]
Tell = Callable[[Progress], None]

LYAPUNOV_EXPONENT = 0.048
"""The largest one, 1/time; a Lyapunov time is its inverse."""
THRESHOLDS = (0.3, 0.4, 0.5)
STARTS = 50
HORIZON = 240.0
"""Of the comparison point by point: 11.5 Lyapunov times."""
LONG = 10_000.0
BETWEEN = 5.0
"""Time between two fields that enter the statistics."""
LENGTH = 22.0

_UNSEEN_SEED, _STATISTICS_SEED = 2_000_003, 3_000_017
_FINE, _COARSE = 0.025, 0.05
_RTOL_AT_COARSE = 3e-7
_BLOCK = 100
_BOUNDED = 3.0


def evaluate(
    surrogate: Surrogate,
    seed: int,
    cache: Path,
    tell: Tell = lambda _: None,
    *,
    starts: int = STARTS,
    horizon: float = HORIZON,
    long: float = LONG,
) -> dict[str, Any]:
    """Compare a surrogate with the truth on unseen starts.

    Args:
        surrogate: Of Kuramoto-Sivashinsky with L = 22, on uniform steps, without
            parameters and controls.
        seed: Of the unseen starts; never one that training data are made from.
        cache: Folder of the truth; made where it is not there.
        tell: Called with progress.
        starts: Number of unseen starts.
        horizon: Time over which errors are followed.
        long: Time over which statistics are gathered.

    Returns:
        JSON: ``prediction_times`` by threshold (mean, median, least; Lyapunov times),
        ``error_curve`` (mean over the starts), ``projection_error`` (of decoding the
        encoded truth), ``bounded`` (how many starts, of ``starts``), ``hellinger``,
        ``relative_entropy`` and ``hellinger_of_truth`` (between two halves of it).
    """
    tell(Progress("evaluate", message="the truth"))
    times, truth = unseen_truth(seed, cache, starts=starts, horizon=horizon)
    tell(Progress("evaluate", message=f"{starts} rollouts over {horizon:g} units"))
    predicted = np.asarray(surrogate.rollout(truth[:, 0], times))
    short = _followed(predicted, truth, times)
    short["projection_error"] = projection_error(surrogate, truth)
    fields = long_run(surrogate, truth[:, 0], long, tell)
    return {**short, **statistics(fields, seed, cache, starts=starts, long=long)}


def _followed(predicted: Floats, truth: Floats, times: Floats) -> dict[str, Any]:
    found = {}
    for threshold in THRESHOLDS:
        valid = valid_prediction_time(predicted, truth, times, threshold)
        valid = valid * LYAPUNOV_EXPONENT
        found[f"{threshold:g}"] = {
            "mean": valid.mean(),
            "median": np.median(valid),
            "least": valid.min(),
        }
    error = np.minimum(error_curve(predicted, truth), 10.0)
    return {
        "starts": len(truth),
        "prediction_times": found,
        "error_curve": {
            "times": times[::5],
            "mean": error.mean(axis=0)[::5],
            "lower": np.percentile(error, 10, axis=0)[::5],
            "upper": np.percentile(error, 90, axis=0)[::5],
        },
    }


def statistics(
    fields: Floats, seed: int, cache: Path, *, starts: int, long: float
) -> dict[str, Any]:
    """Long runs of a surrogate against the truth's, by the density of (u_x, u_xx)."""
    truth = long_truth(seed, cache, starts=starts, long=long)
    limit = _BOUNDED * np.abs(truth).max()
    size = np.where(np.isfinite(fields), np.abs(fields), np.inf).max(axis=(1, 2))
    bounded = size <= limit
    whole = joint_density(truth, LENGTH)
    half = starts // 2
    halves = [joint_density(part, LENGTH) for part in (truth[:half], truth[half:])]
    found = {
        "bounded": int(bounded.sum()),
        "bounded_limit": limit,
        "long": long,
        "hellinger_of_truth": hellinger_distance(*halves),
        "relative_entropy_of_truth": relative_entropy(*halves),
        "hellinger": None,
        "relative_entropy": None,
    }
    if bounded.any():
        density = joint_density(fields[bounded], LENGTH)
        found["hellinger"] = hellinger_distance(density, whole)
        found["relative_entropy"] = relative_entropy(density, whole)
        found["density"] = _coarse(density)
        found["density_of_truth"] = _coarse(whole)
    return found


def projection_error(surrogate: Surrogate, truth: Floats) -> float:
    """Relative error of ``D(E(x))``: no rollout starts better than this."""
    fields = truth[:, :: max(1, truth.shape[1] // 20)]
    none = jnp.zeros(0)

    @jax.jit
    def reconstruct(x: Float[Array, "field state"]) -> Float[Array, "field state"]:
        def one(v: Float[Array, " state"]) -> Float[Array, " state"]:
            z = surrogate.encode(v, none)
            return surrogate.decode(z, surrogate.conserved_sums(v), none)

        return jax.vmap(one)(x)

    shown = np.asarray(reconstruct(jnp.asarray(fields.reshape(-1, fields.shape[-1]))))
    return float(error_curve(shown.reshape(fields.shape), fields).mean())


def pod_error(
    modes: int,
    seed: int,
    cache: Path,
    *,
    starts: int = STARTS,
    horizon: float = HORIZON,
) -> float:
    """Relative error of the truth's projection on its leading principal directions."""
    _, truth = unseen_truth(seed, cache, starts=starts, horizon=horizon)
    fields = truth.reshape(-1, truth.shape[-1])
    _, vectors = np.linalg.eigh(fields.T @ fields)
    basis = vectors[:, ::-1][:, :modes]
    return float(error_curve(truth @ basis @ basis.T, truth).mean())


def long_run(surrogate: Surrogate, x0: Floats, long: float, tell: Tell) -> Floats:
    """Decoded states of long rollouts, ``(start, field, state)``, ``BETWEEN`` apart.

    The latent state goes on from chunk to chunk; nothing is encoded but ``x0``.

    Raises:
        InvalidInput: The surrogate does not step uniformly, by a part of ``BETWEEN``.
    """
    step = surrogate.grid.uniform
    if step is None or abs(BETWEEN / step - round(BETWEEN / step)) > 1e-9:
        raise InvalidInput(
            "surrogate.steps",
            found=repr(step),
            expected=f"one uniform step, a whole part of {BETWEEN:g}",
        )
    every, blocks = round(BETWEEN / step), round(long / BETWEEN / _BLOCK) or 1
    count = round(long / BETWEEN / blocks)
    none = jnp.zeros(0)
    z = jax.jit(jax.vmap(lambda x: surrogate.encode(x, none)))(jnp.asarray(x0))
    # The decoder sees sums of the start, where it keeps any.
    sums = jax.vmap(surrogate.conserved_sums)(jnp.asarray(x0))
    chunks = []
    for block in range(blocks):
        z, fields = _advance(surrogate, z, sums, step=step, every=every, count=count)
        chunks.append(np.asarray(fields))
        tell(
            Progress(
                "evaluate",
                block + 1,
                blocks,
                message=f"long rollouts, {(block + 1) * count * BETWEEN:g} units",
            )
        )
    return np.concatenate(chunks).swapaxes(0, 1)


@eqx.filter_jit
def _advance(
    surrogate: Surrogate,
    z: Float[Array, "start latent"],
    sums: Float[Array, "start sum"],
    *,
    step: float,
    every: int,
    count: int,
) -> tuple[Float[Array, "start latent"], Float[Array, "field start state"]]:
    latents = march(surrogate, z, step=step, every=every, count=count)
    none = jnp.zeros(0)
    decode = jax.vmap(lambda v, s: surrogate.decode(v, s, none))
    fields = jax.vmap(lambda v: decode(v, sums))(latents)
    return latents[-1], fields.astype(jnp.float32)


def unseen_truth(
    seed: int, cache: Path, *, starts: int = STARTS, horizon: float = HORIZON
) -> tuple[Floats, Floats]:
    """Times each 1.0 and the truth from unseen starts, ``(start, time, state)``."""
    system = KuramotoSivashinsky(length=LENGTH, end=horizon)
    times = system.times()

    def solve() -> Floats:
        x0 = system.sample(starts, seed + _UNSEEN_SEED)
        return system.reference(x0, times, rtol=_rtol(_FINE))

    return times, _cached(cache, f"ks-short-{seed}-{starts}-{horizon:g}", solve)


def long_truth(
    seed: int, cache: Path, *, starts: int = STARTS, long: float = LONG
) -> Floats:
    """Fields of the truth ``BETWEEN`` apart from other starts, for statistics."""
    system = KuramotoSivashinsky(length=LENGTH, end=long, interval=BETWEEN)

    def solve() -> Floats:
        x0 = system.sample(starts, seed + _STATISTICS_SEED)
        states = system.reference(x0, system.times(), rtol=_rtol(_COARSE))
        return states[:, 1:]

    return _cached(cache, f"ks-long-{seed}-{starts}-{long:g}", solve)


def _rtol(step: float) -> float:
    """The tolerance for which the system's solver takes steps of this length."""
    return _RTOL_AT_COARSE * (step / _COARSE) ** 4


def _cached(cache: Path, name: str, solve: Callable[[], Floats]) -> Floats:
    path = cache / f"{name}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Single precision: a tenth of a gigabyte less, and errors start at 1e-7.
        states = solve().astype(np.float32)
        with replacing(path) as file:
            np.save(file, states)
    return np.load(path).astype(np.float64)


def _coarse(density: Floats) -> Floats:
    """Cells in twos, for a figure."""
    half = density.shape[0] // 2
    return density.reshape(half, 2, half, 2).sum(axis=(1, 3))
