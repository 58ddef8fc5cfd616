"""``demo``: the main job end to end, on real data, through the service alone.

A stiff system's trajectories are made by a dataset job, a surrogate is trained by a
training job, registered, and asked for rollouts of initial conditions that it never
saw; a stiff solver says how right they are and how long it takes itself.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from deploy import stack
from deploy.folder import Folder
from spnode_client import Client, ModelVersion
from spnode_client.records import statements
from spnode_client.terminal import err, follow, out, print_table
from spnode_core import systems

MODEL = "robertson"
TRAJECTORIES = 1000
UNSEEN = 1000
UNSEEN_SEED = 1_000_003
"""Added to the seed of the training data: other initial conditions."""
GOOD_SCALED_MSE = 1e-6
"""The paper's best is 2.01e-4."""
SOLVER_RTOL, SOLVER_ATOL = 1e-6, 1e-10
TIGHT_RTOL, TIGHT_ATOL = 1e-11, 1e-15
TIMED_ROLLOUTS = 15
"""Enough for the median to leave out the first, beside which tiles are tried."""
SURROGATE = {
    "latent": 8,
    "linear": {"kind": "modal", "rates": {"minimum": 1e-5, "maximum": 1e4}},
    "nonlinear": {"kind": "relaxation", "width": 32, "depth": 2},
    "autoencoder": {"kind": "residual", "width": 32, "depth": 2},
    "integrator": "etd1",
    "conserved": {"mass": {"y1": 1, "y2": 1, "y3": 1}},
}
TRAINING = {
    "iterations": 5000,
    "optimiser": "muon",
    "loss": "log_dt",
    "refine": 2,
    "polish": "none",
}


@dataclass(frozen=True)
class Errors:
    """Distance to the tight reference over all unseen trajectories.

    Args:
        scaled_mse: Mean over trajectories, times and states of the squared error, each
            state divided by its largest value.
        relative_l2: By state, the error's norm over the state's.
        max_scaled: By state, the largest error over the state's largest value.
    """

    scaled_mse: float
    relative_l2: dict[str, float]
    max_scaled: dict[str, float]


@dataclass(frozen=True)
class Result:
    """What the demo found."""

    url: str
    version: str
    surrogate: Errors
    solver: Errors
    rollout_seconds: float
    solver_seconds: float
    training_seconds: float
    total_seconds: float
    certificate: str
    picture: str

    @property
    def speed_ratio(self) -> float:
        """How many times faster the served rollout is than the stiff solver."""
        return self.solver_seconds / self.rollout_seconds

    @property
    def is_good(self) -> bool:
        """Whether the held-out error is as small as promised."""
        return self.surrogate.scaled_mse <= GOOD_SCALED_MSE

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        more = {"speed_ratio": self.speed_ratio, "is_good": self.is_good}
        return {**asdict(self), **more}


def run_demo(folder: Folder, picture: Path | None, seed: int, end: bool) -> Result:
    """Run it all; ``end`` stops the stack at the end if this call started it.

    Raises:
        deploy.stack.StackError: The stack does not start.
        spnode_client.ClientError: A job failed or the service refused.
    """
    began = time.monotonic()
    started = stack.up(folder, lambda text: err.print(f"[dim]{escape(text)}[/]"))
    found = stack.address(folder)
    assert found is not None, "a stack that is up has an address"
    try:
        with Client(*found, timeout_s=300.0) as client:
            return _demonstrate(client, folder, picture, seed, began)
    finally:
        if end and started:
            stack.down(folder)
            err.print("[dim]the stack is stopped[/]")
        elif end:
            err.print("[dim]the stack ran before and stays up[/]")


def tell(result: Result, *, is_up: bool) -> None:
    """Print what the demo found, in words; the address where the stack stays up."""
    surrogate, solver = result.surrogate, result.solver
    table = [
        (
            name,
            f"{surrogate.relative_l2[name]:.1e}",
            f"{surrogate.max_scaled[name]:.1e}",
            f"{solver.relative_l2[name]:.1e}",
            f"{solver.max_scaled[name]:.1e}",
        )
        for name in surrogate.relative_l2
    ]
    print_table(("state", "surrogate L2", "largest", "LSODA 1e-6 L2", "largest"), table)
    out.print(
        f"held-out scaled mean squared error {surrogate.scaled_mse:.2e} "
        f"(LSODA at rtol 1e-6: {solver.scaled_mse:.2e}); "
        f"bar {GOOD_SCALED_MSE:.0e}: {'met' if result.is_good else 'NOT MET'}"
    )
    out.print(
        f"{UNSEEN} rollouts through the service in {result.rollout_seconds * 1e3:.0f} "
        f"ms, LSODA in {result.solver_seconds:.2f} s on the same machine: "
        f"{result.speed_ratio:.0f} times faster"
    )
    out.print(f"certificate: {result.certificate}", markup=False)
    out.print(
        f"picture {result.picture}; trained in {result.training_seconds:.0f} s, "
        f"all in {result.total_seconds:.0f} s",
        markup=False,
    )
    if is_up:
        said = f"`./spnode status` prints the link to the page at {result.url}"
        out.print(said, markup=False)


def _demonstrate(
    client: Client, folder: Folder, picture: Path | None, seed: int, began: float
) -> Result:
    _step(f"data: {TRAJECTORIES} trajectories of Robertson's reaction, t = 0 … 1e5")
    dataset = follow(client.datasets.generate(MODEL, TRAJECTORIES, seed))
    _step("training through POST /v1/jobs")
    start = time.monotonic()
    job = client.train(
        dataset, MODEL, seed=seed, surrogate=SURROGATE, training=TRAINING
    )
    version = follow(job)
    training_seconds = time.monotonic() - start
    _step(f"registered {version}; {UNSEEN} unseen initial conditions")
    system = systems.get(MODEL)
    x0 = system.sample(UNSEEN, seed + UNSEEN_SEED)
    times = system.times()
    x, rollout_seconds = _timed(
        lambda: client.rollout(str(version), x0, times), TIMED_ROLLOUTS
    )
    solved, solver_seconds = _timed(
        lambda: system.reference(x0, times, rtol=SOLVER_RTOL, atol=SOLVER_ATOL), 1
    )
    tight = system.reference(x0, times, rtol=TIGHT_RTOL, atol=TIGHT_ATOL)
    return Result(
        url=client.url,
        version=str(version),
        surrogate=_errors(x, tight, system.states),
        solver=_errors(solved, tight, system.states),
        rollout_seconds=rollout_seconds,
        solver_seconds=solver_seconds,
        training_seconds=training_seconds,
        total_seconds=time.monotonic() - began,
        certificate=_certificate(client, version),
        picture=str(_draw(picture or Path("demo.png"), folder, times, x, tight)),
    )


def _timed(action: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    """The answer and its median wall time; a call before warms what is repeated."""
    if repeats > 1:
        action()
    seconds = []
    answer = np.empty(0)
    for _ in range(repeats):
        start = time.perf_counter()
        answer = action()
        seconds.append(time.perf_counter() - start)
    return answer, statistics.median(seconds)


def _errors(x: np.ndarray, tight: np.ndarray, names: tuple[str, ...]) -> Errors:
    scale = np.abs(tight).max(axis=(0, 1))
    scaled = (x - tight) / scale
    norm = np.sqrt((tight**2).sum(axis=(0, 1)))
    relative = np.sqrt(((x - tight) ** 2).sum(axis=(0, 1))) / norm
    largest = np.abs(scaled).max(axis=(0, 1))
    return Errors(
        scaled_mse=float((scaled**2).mean()),
        relative_l2=dict(zip(names, relative.tolist(), strict=True)),
        max_scaled=dict(zip(names, largest.tolist(), strict=True)),
    )


def _certificate(client: Client, version: ModelVersion) -> str:
    return "\n".join(statements(client.models.certificate(str(version))))


def _draw(
    picture: Path, folder: Folder, times: np.ndarray, x: np.ndarray, tight: np.ndarray
) -> Path:
    # Imported here: matplotlib takes half a second that other commands need not pay.
    from deploy.demo_figure import draw

    return draw(picture, folder, times, x, tight)


def _step(text: str) -> None:
    err.print(f"[bold]{escape(text)}[/]")
