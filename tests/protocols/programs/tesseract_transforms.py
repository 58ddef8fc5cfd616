"""A model through tesseract_jax under JAX's transformations; answers go to a file.

Called with the address of a version, that of the service, a file of inputs and one for
what was found. Prints how many requests each transformation took.
"""

import json
import sys
import urllib.request

import jax
import numpy as np
from tesseract_core import Tesseract
from tesseract_jax import apply_tesseract

jax.config.update("jax_enable_x64", True)
version, service, given, found = sys.argv[1:]
arrays = dict(np.load(given))
tesseract = Tesseract.from_url(version)
rows, parameters, times = arrays["x0"], arrays["parameters"], arrays["times"]
one = rows[0]
tangents = arrays["tangent_x0"][0], arrays["tangent_parameters"]
answers, requests = {}, {}


def rollout(x0, parameters, times=times, method=None, materialize=None):
    inputs = {"x0": x0, "parameters": parameters, "times": times}
    options = {"vmap_method": method, "materialize_jacobian": materialize}
    return apply_tesseract(tesseract, inputs, **options)["x"]


def loss(x0, parameters, method=None):
    return (arrays["cotangent"][0] * rollout(x0, parameters, method=method)).sum()


def computed():
    with urllib.request.urlopen(f"{service}/health/ready") as answer:
        return json.load(answer)["rollouts"]["requests"]


def ask(name, function, *inputs):
    """Keep an answer, or a pair of them by x0 and by the parameters."""
    before = computed()
    answer = jax.block_until_ready(function(*inputs))
    requests[name] = computed() - before
    if isinstance(answer, tuple):
        answers[f"{name}_x0"], answers[f"{name}_parameters"] = answer
    else:
        answers[name] = answer


def over_rows(method, axes=(0, None)):
    return jax.vmap(lambda x0, p: rollout(x0, p, method=method), axes)


def loss_of_rows(x0, parameters):
    return (arrays["cotangent"] * over_rows("auto_experimental")(x0, parameters)).sum()


ask("eager", rollout, one, parameters)
ask("jit", jax.jit(rollout), one, parameters, times)
ask("grad", jax.jit(jax.grad(loss, (0, 1))), one, parameters)
ask("jvp", lambda *a: jax.jvp(rollout, a, tangents)[1], one, parameters)
for method in ("expand_dims", "broadcast_all", "auto_experimental", "sequential"):
    ask(f"vmap_{method}", jax.jit(over_rows(method)), rows, parameters)
nested = jax.vmap(over_rows("expand_dims"), (0, None))
ask("vmap_vmap", nested, rows[:, None], parameters)
all_times = np.stack([times, times])
with_times = jax.vmap(lambda x0, t: rollout(x0, parameters, t, "broadcast_all"))
ask("vmap_times", with_times, rows, all_times)
ask("grad_of_vmap", jax.grad(loss_of_rows, (0, 1)), rows, parameters)
each = jax.vmap(jax.grad(lambda x0, p: loss(x0, p, "broadcast_all"), 1), (0, None))
ask("vmap_of_grad", each, rows, parameters)
both = (0, 1)
ask("jacrev", jax.jacrev(rollout, both), one, parameters)
ask("jacfwd", jax.jacfwd(rollout, both), one, parameters)
ask("jacfwd_of_vmap", jax.jacfwd(over_rows("expand_dims"), both), rows, parameters)
columns = jax.jacfwd(lambda x0: rollout(x0, parameters, times, "expand_dims", False))
ask("vmap_of_jacfwd", jax.vmap(columns), rows)
ask("single", jax.grad(loss), one.astype(np.float32), parameters)
np.savez(found, **answers)
print(json.dumps(requests))
