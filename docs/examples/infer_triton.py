"""Roll out with Triton's own client, which knows nothing of this project.

Any client of the Open Inference Protocol does: this one is tritonclient. It sends raw
tensors, asks for a thousand rollouts in one call, and gives numpy arrays. Needs a model
of three states and a running service:

    ./spnode demo
    ./spnode up
    pip install 'tritonclient[http]'
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/infer_triton.py robertson
"""

import os
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.http.auth import BasicAuth

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
URL = os.environ.get("SPNODE_URL", "http://127.0.0.1:8000")

client = InferenceServerClient(URL.removeprefix("http://"))
if key := os.environ.get("SPNODE_KEY"):
    client.register_plugin(BasicAuth("key", key))

described = client.get_model_metadata(MODEL)
print(f"{described['name']} takes {[each['name'] for each in described['inputs']]}")

left = np.random.default_rng(0).uniform(0.9, 1.0, size=1000)
rows = np.stack([left, np.zeros(1000), 1.0 - left], axis=1)
x0 = InferInput("x0", list(rows.shape), "FP64")
x0.set_data_from_numpy(rows)
result = client.infer(
    MODEL,
    [x0],
    parameters={"start": 1e-2, "stop": 1e2, "count": 20, "spacing": "log"},
)
times, x = result.as_numpy("times"), result.as_numpy("x")
print(f"x has shape {x.shape}, from {times[0]:g} to {times[-1]:g}")
print(f"{result.as_numpy('inside').sum()} rows begin where the model was trained")
print(f"mean of the last states: {x[:, -1].mean(axis=0)}")
