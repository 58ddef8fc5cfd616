"""Derivatives in float64 by each set of inputs, of final states and of trajectories.

Called with the address of a version, a file of inputs and one for what was found.
"""

import sys

import numpy as np
from tesseract_core import Tesseract

url, given, found = sys.argv[1:]
arrays = dict(np.load(given))
names = ["x0", "parameters", "controls"]
inputs = {name: arrays[name] for name in (*names, "control_times", "times")}
tesseract = Tesseract.from_url(url)
answers = {}
for final in (True, False):
    asked = {**inputs, "final": final, "precision": "float64"}
    weights = {"x": arrays["cotangent"][:, -1] if final else arrays["cotangent"]}
    for by in (names, ["x0", "parameters"], ["controls"]):
        along = {name: arrays[f"tangent_{name}"] for name in by}
        jvp = tesseract.jacobian_vector_product(asked, by, ["x"], along)
        vjp = tesseract.vector_jacobian_product(asked, by, ["x"], weights)
        jacobian = tesseract.jacobian(asked, by, ["x"])["x"]
        key = f"{final} {' '.join(by)}"
        answers[f"{key} jvp"] = jvp["x"]
        assert set(vjp) == set(jacobian) == set(by)
        for name in by:
            answers[f"{key} vjp {name}"] = vjp[name]
            answers[f"{key} jacobian {name}"] = jacobian[name]
np.savez(found, **answers)
