"""Sample the initial condition behind noisy observations with PyMC.

The log-likelihood is one request a step, with its gradient, so NUTS works on a
surrogate in the service. Needs ``pip install pymc``, a model of three states and a
running service:

    ./spnode demo
    ./spnode up
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/sample_pymc.py robertson
"""

import os
import sys

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from spnode_client import Client

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
DRAWS = int(sys.argv[2]) if len(sys.argv) > 2 else 300
TIMES = np.geomspace(1e-2, 1e2, 15)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-2
TRUTH = np.array([0.96, 5e-7, 0.04])

client = Client(
    os.environ.get("SPNODE_URL", "http://127.0.0.1:8000"), os.environ.get("SPNODE_KEY")
)
noise = np.random.default_rng(0).normal(size=(TIMES.size, 3)) * NOISE * SCALE
observed = client.rollout(MODEL, TRUTH, TIMES) + noise
objective = {
    "kind": "misfit",
    "observations": observed,
    "weights": 0.5 / (NOISE * SCALE) ** 2,
}


class Misfit(Op):
    """Half the weighted sum of squares at ``x0``, and its gradient."""

    def make_node(self, x0):
        x0 = pt.as_tensor_variable(x0)
        return Apply(self, [x0], [pt.dscalar(), pt.dvector()])

    def perform(self, node, inputs, outputs):
        answer = client.objective(MODEL, inputs[0], TIMES, objective)
        outputs[0][0] = np.asarray(answer["value"])
        outputs[1][0] = np.asarray(answer["gradient"]["x0"])

    def pullback(self, inputs, outputs, cotangents):
        return [cotangents[0] * outputs[1]]

    # Its name before PyTensor 3.
    def L_op(self, inputs, outputs, cotangents):
        return self.pullback(inputs, outputs, cotangents)


with pm.Model():
    y1 = pm.Uniform("y1", 0.9, 1.0)
    y3 = pm.Uniform("y3", 0.0, 0.1)
    pm.Potential("likelihood", -Misfit()(pt.stack([y1, TRUTH[1], y3]))[0])
    trace = pm.sample(
        DRAWS, tune=DRAWS, chains=1, cores=1, random_seed=0, progressbar=False
    )

for name, true in zip(("y1", "y3"), TRUTH[[0, 2]], strict=True):
    draws = trace.posterior[name].to_numpy()
    print(f"{name}: {draws.mean():.6f} ± {draws.std():.6f}, true {true}")
