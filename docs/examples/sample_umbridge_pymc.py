"""Sample the initial condition behind noisy observations with PyMC and UM-Bridge.

The service turns the model into a log-likelihood with an exact gradient, so NUTS needs
no code beside UM-Bridge's own. Needs ``pip install pymc umbridge``, a model and a
running service; any model of three states that starts near these values will do:

    ./spnode demo
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/sample_umbridge_pymc.py robertson
"""

import os
import sys

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import umbridge
from umbridge.pymc import UmbridgeOp

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
DRAWS = int(sys.argv[2]) if len(sys.argv) > 2 else 500
TIMES = np.geomspace(1e-2, 1e2, 15)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-2 * SCALE
TRUTH = np.array([0.96, 5e-7, 0.04])

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
log_likelihood = UmbridgeOp(url, MODEL, likelihood)

with pm.Model():
    y1 = pm.Uniform("y1", 0.9, 1.0)
    y3 = pm.Uniform("y3", 0.0, 0.1)
    pm.Potential("likelihood", log_likelihood(pt.stack([y1, y3]))[0])
    trace = pm.sample(
        DRAWS, tune=DRAWS, chains=1, cores=1, random_seed=0, progressbar=False
    )

for name, true in zip(("y1", "y3"), TRUTH[[0, 2]], strict=True):
    draws = trace.posterior[name].to_numpy()
    print(f"{name}: {draws.mean():.6f} ± {draws.std():.6f}, true {true}")
