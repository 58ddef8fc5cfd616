"""Delayed acceptance with tinyDA: the surrogate proposes, a stiff solver decides.

Most proposals are refused by the surrogate, which costs a millisecond, so the expensive
model is asked only for the others, and the samples are those of the expensive model's
posterior. Needs ``pip install tinyda umbridge``, a model and a running service:

    ./spnode demo
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/multilevel_tinyda.py robertson

Another model than ``robertson`` has itself as the fine level, in float64 and at all
times of observation, while the coarse one sees every third time.
"""

import os
import sys

import numpy as np
import tinyDA
import umbridge
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
SAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 500
TIMES = np.geomspace(1e-2, 1e2, 15)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 2e-2
TRUTH = np.array([0.96, 5e-7, 0.04])

# UM-Bridge's clients can send a key only as the password in an address.
url = os.environ.get("SPNODE_URL", "http://127.0.0.1:8000") + "/umbridge"
if "SPNODE_KEY" in os.environ:
    url = url.replace("://", f"://key:{os.environ['SPNODE_KEY']}@")
served = umbridge.HTTPModel(url, MODEL)


def surrogate(times, precision):
    """The states in units of their size, of the first and the third at the start."""
    config = {
        "times": times.tolist(),
        "fixed": {"x0": [None, TRUTH[1], None]},
        "precision": precision,
    }
    model = tinyDA.UmBridgeModel(served, umbridge_config=config)
    return lambda theta: (model(theta).reshape(-1, 3) / SCALE).ravel()


def solver(theta):
    """The same by a stiff solver."""

    def rates(_, y):
        slow, fast, back = 0.04 * y[0], 3e7 * y[1] ** 2, 1e4 * y[1] * y[2]
        return [back - slow, slow - back - fast, fast]

    start = [theta[0], TRUTH[1], theta[1]]
    found = solve_ivp(
        rates, (0, TIMES[-1]), start, "Radau", TIMES, rtol=1e-8, atol=1e-12
    )
    return (found.y.T / SCALE).ravel()


few = TIMES[::3]
coarse = surrogate(few, "model")
is_known = MODEL.partition("@")[0] == "robertson"
fine = solver if is_known else surrogate(TIMES, "float64")
random = np.random.default_rng(0)
observed = fine(TRUTH[[0, 2]])
observed += NOISE * random.normal(size=observed.size)
seen = {coarse: observed.reshape(-1, 3)[::3].ravel(), fine: observed}
prior = multivariate_normal([0.95, 0.05], np.diag([0.02**2, 0.02**2]))
levels = [
    tinyDA.Posterior(
        prior, tinyDA.GaussianLogLike(data, NOISE**2 * np.eye(data.size)), model
    )
    for model, data in seen.items()
]

np.random.seed(0)
chain = tinyDA.sample(
    levels,
    tinyDA.GaussianRandomWalk(np.diag([6e-3**2, 6e-3**2])),
    iterations=SAMPLES,
    n_chains=1,
    initial_parameters=TRUTH[[0, 2]],
    subchain_length=5,
    force_sequential=True,
)
links = chain["chain_fine_0"][SAMPLES // 4 :]
draws = np.array([link.parameters for link in links])
moved = (np.diff(draws, axis=0) != 0).any(axis=1).mean()
for index, (name, true) in enumerate(zip(("y1", "y3"), TRUTH[[0, 2]], strict=True)):
    mean, std = draws[:, index].mean(), draws[:, index].std()
    print(f"{name}: {mean:.6f} ± {std:.6f}, true {true}")
print(f"accepted by the fine level: {moved:.2f}")
