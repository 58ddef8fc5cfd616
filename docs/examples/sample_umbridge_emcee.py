"""Sample the initial condition behind noisy observations with emcee and UM-Bridge.

The walkers of one half move at once, in threads, so that the service computes them in
one batch. Needs ``pip install emcee umbridge``, a model and a running service; any
model of three states that starts near these values will do:

    ./spnode demo
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/sample_umbridge_emcee.py robertson
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import emcee
import numpy as np
import umbridge
from umbridge.emcee import UmbridgeLogProb

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 500
WALKERS = 16
TIMES = np.geomspace(1e-2, 1e2, 15)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-2 * SCALE
TRUTH = np.array([0.96, 5e-7, 0.04])
LOWER, UPPER = np.array([0.9, 0.0]), np.array([1.0, 0.1])

# UM-Bridge's clients can send a key only as the password in an address.
url = os.environ.get("SPNODE_URL", "http://127.0.0.1:8000") + "/umbridge"
if "SPNODE_KEY" in os.environ:
    url = url.replace("://", f"://key:{os.environ['SPNODE_KEY']}@")

trajectory = {"times": TIMES.tolist()}
states = np.array(umbridge.HTTPModel(url, MODEL)([TRUTH.tolist()], trajectory))
states = states.reshape(TIMES.size, 3)
observed = states + NOISE * np.random.default_rng(0).normal(size=states.shape)

# The second state stays what it is; the first and the third are asked for.
likelihood = {
    **trajectory,
    "observations": observed.tolist(),
    "noise": NOISE.tolist(),
    "fixed": {"x0": [None, TRUTH[1], None]},
}
log_likelihood = UmbridgeLogProb(url, MODEL, likelihood)


def log_posterior(theta):
    """Uniform within bounds before anything was observed."""
    if (theta < LOWER).any() or (theta > UPPER).any():
        return -np.inf
    return log_likelihood(theta)[0]


np.random.seed(0)
start = np.clip(
    TRUTH[[0, 2]] + 5e-3 * np.random.normal(size=(WALKERS, 2)), LOWER, UPPER
)
with ThreadPoolExecutor(WALKERS) as pool:
    sampler = emcee.EnsembleSampler(WALKERS, log_likelihood.ndim, log_posterior, pool)
    sampler.run_mcmc(start, STEPS)

draws = sampler.get_chain(discard=STEPS // 3, flat=True)
for index, (name, true) in enumerate(zip(("y1", "y3"), TRUTH[[0, 2]], strict=True)):
    mean, std = draws[:, index].mean(), draws[:, index].std()
    print(f"{name}: {mean:.6f} ± {std:.6f}, true {true}")
