"""All methods of ``umbridge.HTTPModel``, with 16 threads at the end; prints JSON."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import umbridge

url, name = os.environ["URL"], sys.argv[1]
config = json.loads(sys.argv[2])
given = json.loads(sys.argv[3])
sens, vec = [0.3, -2.0, 1.1], [0.2, -0.5]

assert name in umbridge.supported_models(url)
model = umbridge.HTTPModel(url, name)
found = {
    "supported": [
        model.supports_evaluate(),
        model.supports_gradient(),
        model.supports_apply_jacobian(),
        model.supports_apply_hessian(),
    ],
    "input_sizes": model.get_input_sizes(config),
    "output_sizes": model.get_output_sizes(config),
    "output": model(given, config),
    "gradient": model.gradient(0, 1, given, sens, config),
    "jacobian": model.apply_jacobian(0, 1, given, vec, config),
    "hessian": model.apply_hessian(0, 1, 1, given, sens, vec, config),
}
with ThreadPoolExecutor(16) as pool:
    many = list(pool.map(lambda _: model(given, config), range(48)))
found["all_equal"] = all(each == found["output"] for each in many)
shared = umbridge.HTTPModel(url, name, use_shmem=True)
found["falls_back_to_http"] = not shared.supports_shmem() and shared(given, config)
try:
    model([[1.0]], config)
except Exception as error:
    found["refusal"] = str(error)
try:
    umbridge.HTTPModel(url, "nothing")
except Exception as error:
    found["unknown"] = str(error)
print(json.dumps(found))
