"""Data of something that grows by decades before it counts, and how to learn it."""

import numpy as np

from spnode_core import SurrogateSpec, TrainingSpec
from spnode_core.spec import NoNonlinearSpec, ResidualSpec

NONE = NoNonlinearSpec()
TIMES = np.append(0.0, np.geomspace(1e-3, 10.0, 30))
SPEC = SurrogateSpec(
    latent=6,
    nonlinear=NONE,
    autoencoder=ResidualSpec(width=24, logarithms=("seed",)),
    # Else its logarithm is seen without being asked for.
    normalisation={"fuel": "linear", "seed": "linear"},
)
TRAINING = TrainingSpec(
    pairs=True, iterations=1500, batch=256, learning_rate=0.003, refine=1
)


def outbreaks(rows: int = 24, seed: int = 0, **more) -> dict:
    """``seed`` grows by decades unseen, until it uses ``fuel`` up and all stands still.

    Of the logistic equation, ``s' = r s (1 - s / c)``, with ``fuel = c - s``.
    """
    draw = np.random.default_rng(seed)
    capacity = draw.uniform(0.6, 1.0, rows)[:, None]
    rate = 12.0
    first = 10 ** draw.uniform(-7, -5, rows)[:, None]
    grown = first * np.exp(np.minimum(rate * TIMES, 60.0))
    infected = grown / (1 + grown / capacity)
    states = np.stack([np.maximum(capacity - infected, 0.0), infected], axis=-1)
    names = np.array(["fuel", "seed"])
    return {"states": states, "times": TIMES, "names": names, **more}
