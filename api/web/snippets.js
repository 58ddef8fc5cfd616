// The rollout on the page as a caller would write it. Keys stay out of what is copied.

const plain = (value) => JSON.stringify(value);
const INPUTS = ["parameters", "controls", "control_times"];

export function asCurl(request) {
  return `curl -sS --fail-with-body ${location.origin}/v1/rollout \\
    -H "Authorization: Bearer $SPNODE_KEY" -H 'Content-Type: application/json' \\
    -d '${plain(request)}'
`;
}

export function asPython(request) {
  return `import os

import numpy as np
from spnode_client import Client

client = Client(${plain(location.origin)}, key=os.environ.get("SPNODE_KEY"))
times = ${timesOf(request.times)}
x0 = ${plain(request.x0)}
${inputs(request, "np")}${rolledOut(request)}`;
}

/** The call: of the states alone, or of all that was asked for beside them. */
function rolledOut(request) {
  const call = `${plain(request.model)}, x0, times${named(request)}`;
  const beside = [request.intervals && `intervals=${request.intervals}`, request.spread && "spread=True"].filter(Boolean);
  if (!beside.length) return `x = client.rollout(${call})\nprint(x.shape, x[-1])\n`;
  const names = [request.intervals && "rollout.lower[-1], rollout.upper[-1]", request.spread && "rollout.spread[-1]"].filter(Boolean);
  return `rollout = client.rollout_record(${call}, ${beside.join(", ")})\nprint(rollout.x[-1], ${names.join(", ")})\n`;
}

export function asJax(request) {
  return `import os

import jax
import jax.numpy as jnp
import numpy as np
from spnode_client import Client

jax.config.update("jax_enable_x64", True)
client = Client(${plain(location.origin)}, key=os.environ.get("SPNODE_KEY"))
surrogate = client.model(${plain(request.model)}).as_jax()${request.intervals || request.spread ? "  # of the states alone" : ""}
times = ${timesOf(request.times)}
x0 = jnp.array(${plain(request.x0)}, dtype=float)
${inputs(request, "jnp")}

def final(x0):
    return surrogate(x0, times${named(request)})[-1]


print(final(x0))
print(jax.jacobian(final)(x0))
`;
}

function timesOf({ start, stop, count, spacing }) {
  return `np.${spacing === "log" ? "geomspace" : "linspace"}(${start}, ${stop}, ${count})`;
}

function inputs(request, module) {
  return INPUTS.filter((name) => request[name]).map((name) => `${name} = ${module}.array(${plain(request[name])}, dtype=float)\n`).join("");
}

function named(request) {
  return INPUTS.filter((name) => request[name]).map((name) => `, ${name}=${name}`).join("");
}
