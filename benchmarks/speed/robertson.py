"""The model that is measured: Robertson's reaction, modal n = 8, networks of 2 x 100.

It is trained once, from one seed, and kept; the quick version is not trained at all.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from benchmarks.paper.trained import SCALES, UNSEEN_SEED
from benchmarks.speed.figures import Options, Tell
from spnode_core import (
    SplitSpec,
    Surrogate,
    SurrogateSpec,
    TrainingSpec,
    artifact,
    fit,
    generate,
)
from spnode_core.spec import RelaxationSpec, ResidualSpec, UniformStepsSpec
from spnode_core.systems.robertson import Robertson, derivative, jacobian
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.presets import resolve

Floats = NDArray[np.float64]
LATENT, WIDTH, STEPS = 8, 100, 50
LONG_STEPS = 1000
"""Steps of the long version, all of one length, to the same end."""
WIDE_LATENT = 64
"""Latent variables of the models whose linear parts are compared."""
SURROGATE = SurrogateSpec(
    latent=LATENT,
    nonlinear=RelaxationSpec(width=WIDTH),
    autoencoder=ResidualSpec(width=WIDTH),
)
TRAINING = TrainingSpec(iterations=3000, refine=2, polish="none")
_TRAJECTORIES, _QUICK_TRAJECTORIES = 1000, 32
TIGHT_RTOL, TIGHT_ATOL = 1e-11, 1e-15
RTOL, ATOL = 1e-6, 1e-10
"""Tolerances of the solvers that are measured."""


@dataclass(frozen=True)
class Model:
    """The artifact and what it holds.

    Args:
        path: The file.
        digest: Its identity.
        surrogate: What it holds.
    """

    path: Path
    digest: str
    surrogate: Surrogate

    @property
    def flop_per_row(self) -> float:
        """Floating-point operations of a rollout: products of networks alone.

        The encoder runs once, ``g`` at each step, the decoder at each output.
        """
        autoencoder: Any = self.surrogate.autoencoder
        nonlinear: Any = self.surrogate.dynamics.nonlinear
        outputs = STEPS + 1
        return (
            _flop(autoencoder.encoder_network)
            + STEPS * _flop(nonlinear.network)
            + outputs * _flop(autoencoder.decoder_network)
        )


def find_model(options: Options, tell: Tell) -> Model:
    """The trained model, from the folder or trained now."""
    kept = "untrained" if options.quick else _described()
    path = options.folder / f"robertson-{kept}.spnode"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path, tell, quick=options.quick)
    return Model(path, artifact.file_digest(path), artifact.load(path))


def find_long_model(options: Options) -> Model:
    """The same in many steps, untrained: no speed depends on the weights."""
    steps = UniformStepsSpec(step=times()[-1] / LONG_STEPS)
    return _untrained(options, f"{LONG_STEPS}-steps", steps=steps)


def find_wide_model(options: Options, linear: str) -> Model:
    """One of many latent variables, untrained, whose A is of this kind."""
    changes = {"latent": WIDE_LATENT, "linear": {"kind": linear}}
    return _untrained(options, f"{linear}-{WIDE_LATENT}", **changes)


def _untrained(options: Options, name: str, **changes: Any) -> Model:
    """The surrogate with some changes, from the folder or made now."""
    path = options.folder / f"robertson-{name}.spnode"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_untrained(path, SURROGATE.replaced(**changes))
    return Model(path, artifact.file_digest(path), artifact.load(path))


def _described() -> str:
    text = SURROGATE.model_dump_json() + TRAINING.model_dump_json()
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _make(path: Path, tell: Tell, *, quick: bool) -> None:
    if quick:
        _make_untrained(path, SURROGATE)
        return
    dataset = generate("robertson", _TRAJECTORIES, 0)
    split = SplitSpec(validation=0.1, test=0)
    run = fit(dataset, SURROGATE, TRAINING, seed=0, split=split, on_progress=tell)
    artifact.save(run.surrogate, path)


def _make_untrained(path: Path, spec: SurrogateSpec) -> None:
    dataset = generate("robertson", _QUICK_TRAJECTORIES, 0)
    resolved, _, _ = resolve(dataset, spec, TRAINING)
    artifact.save(create_surrogate(dataset, resolved, 0), path)


def unseen(rows: int) -> Floats:
    """Initial states that the model never saw, ``(row, state)``."""
    return Robertson().sample(rows, UNSEEN_SEED)


def times() -> Floats:
    """0 and the fifty logarithmic times on which the model steps."""
    return Robertson().times()


def truth(x0: Floats) -> Floats:
    """The trusted solution from these states, ``(row, time, state)``."""
    return Robertson().reference(x0, times(), rtol=TIGHT_RTOL, atol=TIGHT_ATOL)


def solved_by_odeint(x0: Floats) -> Floats:
    """LSODA by ``scipy.integrate.odeint``, whose loop is compiled."""
    return Robertson().reference(x0, times(), rtol=RTOL, atol=ATOL)


def solved_by_solve_ivp(x0: Floats) -> Floats:
    """LSODA by ``scipy.integrate.solve_ivp``, which makes each step from Python."""
    at = times()
    return np.stack([_solved(start, at) for start in x0])


def _solved(start: Floats, at: Floats) -> Floats:
    found = solve_ivp(
        derivative,
        (at[0], at[-1]),
        start,
        method="LSODA",
        t_eval=at,
        jac=jacobian,
        rtol=RTOL,
        atol=ATOL,
    )
    return found.y.T


def scaled_rms(x: Floats, true: Floats) -> float:
    """Root of the mean squared error, each species divided by its size."""
    return float(np.sqrt(np.mean(((x - true) / SCALES) ** 2)))


def _flop(network: Any) -> float:
    return float(sum(2 * weight.size for weight in network.weights))
