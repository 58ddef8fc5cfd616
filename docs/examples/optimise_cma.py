"""Find the initial condition behind noisy observations without gradients, by CMA-ES.

The strategy asks for a generation of candidates at a time, and the service rolls all of
them out in one request: thirty-two cost little more than one. Needs ``pip install
cma``, a model of three states and a running service:

    ./spnode demo
    ./spnode up
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/optimise_cma.py robertson
"""

import os
import sys

import cma
import numpy as np

from spnode_client import Client

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
TIMES = np.geomspace(1e-2, 1e2, 15)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-3
TRUTH = np.array([0.96, 5e-7, 0.04])
START, WIDTH = np.array([0.92, 0.08]), 0.02

client = Client(
    os.environ.get("SPNODE_URL", "http://127.0.0.1:8000"), os.environ.get("SPNODE_KEY")
)
noise = np.random.default_rng(0).normal(size=(TIMES.size, 3)) * NOISE * SCALE
observed = client.rollout(MODEL, TRUTH, TIMES) + noise


def misfits(candidates: np.ndarray) -> np.ndarray:
    """The weighted sums of squares of a generation, ``x0 = (y1, 5e-7, y3)`` each."""
    x0 = np.insert(candidates, 1, TRUTH[1], axis=1)
    x = client.rollout(MODEL, x0, TIMES, mode="throughput")
    return (((x - observed) / (NOISE * SCALE)) ** 2).sum(axis=(1, 2))


strategy = cma.CMAEvolutionStrategy(
    START,
    WIDTH,
    {
        "bounds": [[0.9, 0.0], [1.0, 0.1]],
        "popsize": 32,
        "maxiter": 60,
        "tolx": 1e-5,
        "seed": 1,
        "verbose": -9,
    },
)
while not strategy.stop():
    generation = strategy.ask()
    strategy.tell(generation, misfits(np.array(generation)).tolist())

best = strategy.result
print(f"misfit {best.fbest:.4g} of {observed.size} numbers")
print(f"{best.evaluations} rollouts in {best.iterations} requests")
for name, found, true in zip(("y1", "y3"), best.xbest, TRUTH[[0, 2]], strict=True):
    print(f"{name} at the start: found {found:.4f}, true {true}")
assert best.fbest < 2 * observed.size, "the minimum explains the data to the noise"
