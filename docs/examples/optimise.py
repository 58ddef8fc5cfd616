"""Find the initial condition behind noisy observations, with exact gradients.

SciPy minimises a misfit of Robertson observations over ``x0``; each evaluation is one
request to the service, which returns the misfit and its gradient (reverse mode through
the surrogate). Needs a model and a running service:

    ./spnode demo
    ./spnode up
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        .venv/bin/python docs/examples/optimise.py robertson
"""

import os
import sys

import numpy as np
from scipy.optimize import minimize

from spnode_client import Client

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
TIMES = np.geomspace(1e-2, 1e4, 25)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-3
TRUTH = np.array([0.96, 5e-7, 0.04])

client = Client(
    os.environ.get("SPNODE_URL", "http://127.0.0.1:8000"), os.environ.get("SPNODE_KEY")
)
noise = np.random.default_rng(0).normal(size=(TIMES.size, 3)) * NOISE * SCALE
observed = client.rollout(MODEL, TRUTH, TIMES) + noise


def misfit(y: np.ndarray) -> tuple[float, np.ndarray]:
    """Half the weighted sum of squares, and its gradient; ``x0 = (y1, 5e-7, y3)``."""
    x0 = np.array([y[0], TRUTH[1], y[1]])
    weights = 0.5 / (NOISE * SCALE) ** 2
    objective = {"kind": "misfit", "observations": observed, "weights": weights}
    answer = client.objective(MODEL, x0, TIMES, objective)
    return answer["value"], answer["gradient"]["x0"][[0, 2]]


start = np.array([0.92, 0.08])
found = minimize(
    misfit, start, jac=True, method="L-BFGS-B", bounds=[(0.9, 1), (0, 0.1)]
)
print(f"misfit {misfit(start)[0]:.4g} -> {found.fun:.4g} in {found.nfev} evaluations")
print(f"y1, y3 at the start: found {found.x.round(4)}, true {TRUTH[[0, 2]]}")
assert found.fun < 2 * observed.size, "the minimum explains the data to the noise"
assert np.abs(found.x - TRUTH[[0, 2]]).max() < 0.01
