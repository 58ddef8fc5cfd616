"""A surrogate in the service as a component of an OpenMDAO problem.

The component gives the trajectory and its Jacobian, one request each, so that OpenMDAO
has exact derivatives of whatever stands behind it: here a misfit under a constraint on
the sum of the states, minimised by SLSQP. Needs ``pip install openmdao``, a model of
three states and a running service:

    ./spnode demo
    ./spnode up
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/openmdao_component.py robertson
"""

import os
import sys

import numpy as np
import openmdao.api as om

from spnode_client import Client

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
TIMES = np.geomspace(1e-2, 1e2, 15)
SCALE = np.array([1.0, 3.65e-5, 1.0])
NOISE = 1e-3
TRUTH = np.array([0.96, 5e-7, 0.04])
START = np.array([0.92, 5e-7, 0.08])

client = Client(
    os.environ.get("SPNODE_URL", "http://127.0.0.1:8000"), os.environ.get("SPNODE_KEY")
)


class Surrogate(om.ExplicitComponent):
    """Trajectories of a model, in units of ``SCALE``, by its initial condition."""

    def setup(self):
        self.add_input("x0", val=START)
        self.add_output("x", shape=(TIMES.size, 3))

    def setup_partials(self):
        self.declare_partials("x", "x0")

    def compute(self, inputs, outputs):
        x = client.rollout(MODEL, inputs["x0"], TIMES, precision="float64")
        outputs["x"] = x / SCALE

    def compute_partials(self, inputs, partials):
        given = (MODEL, inputs["x0"], TIMES, ["x0"])
        jacobian = client.jacobian(*given, precision="float64")["jacobian"]["x0"]
        partials["x", "x0"] = (jacobian / SCALE[:, None]).reshape(-1, 3)


noise = np.random.default_rng(0).normal(size=(TIMES.size, 3)) * NOISE
observed = client.rollout(MODEL, TRUTH, TIMES, precision="float64") / SCALE + noise

problem = om.Problem(reports=False)
problem.model.add_subsystem("surrogate", Surrogate(), promotes=["*"])
misfit = om.ExecComp(
    "misfit = sum((x - observed)**2) / noise**2",
    x={"shape": observed.shape},
    observed={"val": observed},
    noise={"val": NOISE},
)
problem.model.add_subsystem("misfit", misfit, promotes=["*"])
total = om.ExecComp("total = sum(x0)", x0={"val": START})
problem.model.add_subsystem("total", total, promotes=["*"])
# The second state stays what it is.
problem.model.add_design_var(
    "x0", indices=[0, 2], lower=[0.9, 0.0], upper=[1.0, 0.1], scaler=100.0
)
problem.model.add_constraint("total", equals=TRUTH.sum())
problem.model.add_objective("misfit", scaler=1e-3)
problem.driver = om.ScipyOptimizeDriver(optimizer="SLSQP", tol=1e-10, disp=False)
problem.setup()
problem.run_model()
before = problem.get_val("misfit").item()
problem.run_driver()

# Central differences of the service against its derivatives.
step = {"method": "fd", "form": "central", "step": 1e-7}
problem.model.surrogate.set_check_partial_options("x0", **step)
checked = problem.check_partials(out_stream=None, includes=["surrogate"])
(by_x0,) = checked["surrogate"].values()
exact, differences = by_x0["J_fwd"], by_x0["J_fd"]
error = np.abs(exact - differences).max() / np.abs(exact).max()

after = problem.get_val("misfit").item()
print(f"misfit {before:.4g} -> {after:.4g} of {observed.size} numbers")
print(f"partials differ from differences by {error:.1e} of the largest")
found = problem.get_val("x0")
for name, each, true in zip(("y1", "y3"), found[[0, 2]], TRUTH[[0, 2]], strict=True):
    print(f"{name} at the start: found {each:.4f}, true {true}")
assert after < 2 * observed.size, "the minimum explains the data to the noise"
assert error < 1e-6
