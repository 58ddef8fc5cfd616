"""What rows of Robertson's reaction share: data, training, errors, settings as JSON."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core import (
    Dataset,
    Progress,
    Run,
    SplitSpec,
    Surrogate,
    SurrogateSpec,
    TrainingSpec,
    check_arrays,
    fit,
    generate,
)
from spnode_core.metrics import predict
from spnode_core.spec import (
    HurwitzSpec,
    LipschitzSpec,
    NoAutoencoderSpec,
    Preset,
    RatesSpec,
    ResidualSpec,
)
from spnode_core.systems.robertson import Robertson
from spnode_core.training.presets import apply_preset

Tell = Callable[[Progress], None]
Floats = NDArray[np.float64]

UNSEEN_SEED = 1_000_003
"""Added to the seed of the training data: other initial conditions."""
SCALES = np.array([1.0, 3.65e-5, 1.0])
"""Sizes of Robertson's three species; errors are divided by them."""


def described(
    surrogate: SurrogateSpec | None,
    training: TrainingSpec | None,
    preset: Preset = "auto",
    **more: Any,
) -> dict[str, Any]:
    """The settings of a row: all that is asked for, defaults too.

    A row that was measured with other defaults is then seen to be another row. What
    is decided from the data is open here, that is None.
    """
    surrogate, training, _ = apply_preset(surrogate, training, preset)
    return {
        **more,
        "preset": preset,
        "surrogate": surrogate.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
    }


def train(
    dataset: Dataset,
    surrogate: SurrogateSpec | None,
    training: TrainingSpec | None,
    *,
    seed: int,
    tell: Tell,
    **options: Any,
) -> Run:
    """``fit`` with progress and no test part: unseen trajectories judge instead."""
    split = SplitSpec(validation=0.1, test=0)
    return fit(
        dataset,
        surrogate,
        training,
        seed=seed,
        split=split,
        on_progress=tell,
        **options,
    )


PAPER_LINEAR = HurwitzSpec(rates=RatesSpec(minimum=0.1, maximum=10.0))
"""The paper's A: rates of order one at the start, whatever the data."""


def paper_surrogate(
    autoencoder: ResidualSpec | NoAutoencoderSpec,
) -> SurrogateSpec:
    """The paper's model of Robertson's reaction, with or without an autoencoder."""
    return SurrogateSpec(
        latent=3,
        linear=PAPER_LINEAR,
        nonlinear=LipschitzSpec(width=100, depth=2, initial_scale=0.1),
        autoencoder=autoencoder,
        conserved={},
    )


def paper_training(iterations: int) -> TrainingSpec:
    """The paper's training: Adam, its rate times 0.9 for each twentieth of it."""
    return TrainingSpec(
        iterations=iterations,
        batch=100,
        optimiser="adam",
        learning_rate=0.01,
        schedule="exponential",
        decay=0.9,
        decay_iterations=max(1, iterations // 20),
        loss="uniform",
        refine=1,
        polish="none",
    )


def robertson(trajectories: int, seed: int, end: float = 1e5) -> Dataset:
    """Trajectories of Robertson's reaction at 0 and logarithmic times, 5 a decade."""
    if end <= 1e5:
        return generate("robertson", trajectories, seed, end=end)
    # Past 1e5 two species fall by ten decades: an absolute tolerance far below them.
    system = Robertson(points=round(5 * (np.log10(end) + 5)) + 1, end=end)
    times = system.times()
    x0 = system.sample(trajectories, seed)
    arrays = {
        "states": system.reference(x0, times, atol=1e-18),
        "times": times,
        "names": np.array(system.states),
        "positive": np.array(True),
        "conserved_names": np.array(list(system.conserved)),
        "conserved": np.ones((1, 3)),
    }
    return check_arrays(arrays)


def scaled_errors(
    surrogate: Surrogate, dataset: Dataset, refinements: Sequence[int] = (1,)
) -> dict[str, Any]:
    """Errors of rollouts on the model's grid and on refinements of it.

    Returns:
        By refinement (``"h"``, ``"h/2"``, ...): ``mse``, the mean over trajectories,
        times and species of the squared scaled error, and ``largest``, the largest
        scaled error of each species.
    """
    found = {}
    for factor in refinements:
        grid = surrogate.grid.refined(factor)
        error = (predict(surrogate, dataset, grid) - dataset.states) / SCALES
        found["h" if factor == 1 else f"h/{factor}"] = {
            "mse": float(np.mean(error**2)),
            "largest": np.abs(error).max(axis=(0, 1)),
        }
    return found
