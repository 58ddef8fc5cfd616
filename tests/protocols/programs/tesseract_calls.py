"""Every endpoint by the client of tesseract-core; answers go to a file.

Called with the address of a version, the same without a key, a file of inputs and one
for what was found. Prints what it was told.
"""

import json
import sys

import jsonschema
import numpy as np
import pydantic
from tesseract_core import Tesseract

signed, unsigned, given, found = sys.argv[1:]
arrays = dict(np.load(given))
inputs = {name: arrays[name] for name in ("x0", "parameters", "times")}
tangents = {"x0": arrays["tangent_x0"], "parameters": arrays["tangent_parameters"]}
names = ["x0", "parameters"]
tesseract = Tesseract.from_url(signed)
plain = tesseract.with_encoding(output_format="json")
abstract = {
    name: {"shape": each.shape, "dtype": each.dtype.name}
    for name, each in inputs.items()
}


def refused(call):
    """The kind of an error and what it says."""
    try:
        call()
    except (pydantic.ValidationError, RuntimeError, ValueError) as error:
        if isinstance(error, pydantic.ValidationError):
            (each,) = error.errors()
            return ["ValidationError", ".".join(map(str, each["loc"])), each["msg"]]
        return [type(error).__name__, str(error)]
    raise AssertionError("not refused")


jvp = tesseract.jacobian_vector_product(inputs, names, ["x"], tangents)
vjp = tesseract.vector_jacobian_product(
    inputs, names, ["x"], {"x": arrays["cotangent"]}
)
jacobian = tesseract.jacobian(inputs, names, ["x"])["x"]
np.savez(
    found,
    x=tesseract.apply(inputs)["x"],
    x_as_json=plain.apply(inputs)["x"],
    x_by_lists=tesseract.apply({n: a.tolist() for n, a in inputs.items()})["x"],
    jvp=jvp["x"],
    **{f"vjp_{name}": vjp[name] for name in names},
    **{f"jacobian_{name}": jacobian[name] for name in names},
)


def fits(body):
    """Whether the description of the endpoint apply takes a body."""
    schemas = tesseract.openapi_schema["components"]["schemas"]
    whole = json.dumps({"$defs": schemas, **schemas["ApplyInputSchema"]})
    whole = json.loads(whole.replace("#/components/schemas/", "#/$defs/"))
    return jsonschema.Draft202012Validator(whole).is_valid(body)


def encoded(array):
    data = {"buffer": array.tolist(), "encoding": "json"}
    return {"shape": list(array.shape), "dtype": "float64", "data": data}


sent = {name: encoded(array) for name, array in inputs.items()}
short = {**inputs, "x0": inputs["x0"][:, :2]}
told = {
    "health": tesseract.health(),
    "endpoints": tesseract.available_endpoints,
    "fits": [
        fits({"inputs": sent | {"precision": "float64"}}),
        fits({"inputs": sent | {"precision": "float16"}}),
        fits({"inputs": {"x0": sent["x0"]}}),
    ],
    "abstract": tesseract.abstract_eval(abstract),
    "short": refused(lambda: tesseract.apply(short)),
    "nan": refused(lambda: tesseract.apply({**inputs, "x0": inputs["x0"] * np.nan})),
    "unknown": refused(lambda: tesseract.apply({**inputs, "y0": inputs["x0"]})),
    "output": refused(lambda: tesseract.jacobian(inputs, names, ["y"])),
    "stranger": refused(Tesseract.from_url(unsigned).health),
    "lost": refused(Tesseract.from_url(f"{signed}9").health),
    "compressed": refused(lambda: tesseract.with_encoding(compression="lz4")),
}
print(json.dumps(told))
