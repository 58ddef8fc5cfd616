"""``openapi.json`` of a version: all that clients of Tesseract learn about it.

They read the arguments from ``Apply_InputSchema`` and ``Apply_OutputSchema``, what can
be differentiated from ``ApplyInputSchema`` and ``ApplyOutputSchema`` (with and without
the underscore), the endpoints from the paths and the encodings from ``x-supported-…``.
An array without a shape may have leading axes: ``auto_experimental`` then batches.
"""

from typing import Any

from api.protocols.tesseract.arrays import DTYPES, FORMATS
from api.protocols.tesseract.call import CHOICES, OPERATIONS, OUTPUT
from services.rollouts.request import DIFFERENTIABLE
from services.rollouts.served import Served
from spnode_core.spec import Signature

GET_ENDPOINTS = ("health", "openapi.json")
POST_ENDPOINTS = (*OPERATIONS, "abstract_eval")
_REF = "#/components/schemas/{}"
_SUMMARIES = {
    "apply": "Roll out",
    "jacobian": "Derivative of x by every number of some inputs",
    "jacobian_vector_product": "Derivative of x along tangents",
    "vector_jacobian_product": "Gradient of the sum of cotangents times x",
    "abstract_eval": "Shape of x for shapes of inputs",
}
_BODIES = {
    "apply": ("ApplyInputSchema", "ApplyOutputSchema"),
    "jacobian": ("JacobianInputSchema", "JacobianOutputSchema"),
    "jacobian_vector_product": ("JVPInputSchema", "JVPOutputSchema"),
    "vector_jacobian_product": ("VJPInputSchema", "VJPOutputSchema"),
    "abstract_eval": ("AbstractEvalInputSchema", "AbstractEvalOutputSchema"),
}
# What the choices that are no arrays mean.
_ABOUT = {
    "precision": "float64: networks compute in float64 whatever they were trained in.",
    "mode": "throughput: large tiles, more rows a second, bits depend on the batch.",
    "final": "Whether x has the last time alone, and no axis of times.",
}


def describe(served: Served, reference: str, *, jacobian: bool) -> dict[str, Any]:
    """The description of a version.

    Args:
        served: The version.
        reference: How it is called in the address.
        jacobian: Whether the endpoint ``jacobian`` is named.
    """
    endpoints = [name for name in POST_ENDPOINTS if jacobian or name != "jacobian"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": served.model,
            "version": str(served.version),
            "description": f"Rollouts of {served.model}, version {served.version}, "
            f"artifact {served.digest}.",
        },
        "servers": [{"url": f"/tesseract/{reference}"}],
        "paths": {
            **{f"/{name}": {"post": _operation(name)} for name in endpoints},
            "/health": {
                "get": {
                    "operationId": "health",
                    "responses": {"200": {"description": "The version is served"}},
                }
            },
        },
        "components": {"schemas": _schemas(served.signature)},
        "x-supported-output-formats": list(FORMATS),
        "x-supported-gpu-transports": ["none"],
        "x-supported-compressions": ["none"],
    }


def inputs_of(signature: Signature) -> dict[str, str]:
    """The arrays that a version takes, each in words."""
    units = signature.units or ("",) * len(signature.states)
    states = ", ".join(
        f"{name} [{unit}]" if unit else name
        for name, unit in zip(signature.states, units, strict=True)
    )
    unit = f" [{signature.time_unit}]" if signature.time_unit else ""
    found = {
        "x0": f"State at the start: {states}. Any leading axes.",
        "times": f"Times of x{unit} from the start, increasing; the same for all rows.",
    }
    if signature.parameters:
        names = ", ".join(signature.parameters)
        found["parameters"] = f"{names}; one vector for all rows, or leading axes."
    if signature.controls:
        names = ", ".join(signature.controls)
        found["controls"] = f"(control_time, control): {names}, held from each on."
        found["control_times"] = f"When controls switch{unit}; the first is 0."
    return found


def _operation(name: str) -> dict[str, Any]:
    request, answer = (_content(schema) for schema in _BODIES[name])
    return {
        "operationId": name,
        "summary": _SUMMARIES[name],
        "requestBody": {"required": True, "content": request},
        "responses": {"200": {"description": "What was computed", "content": answer}},
    }


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(schema)}}}


def _schemas(signature: Signature) -> dict[str, Any]:
    inputs = inputs_of(signature)
    can = [name for name in DIFFERENTIABLE if name in inputs]
    whole = {"inputs": {"$ref": _REF.format("Apply_InputSchema")}}
    array, values = {"$ref": _REF.format("Array")}, {"dtype": "float64"}
    by_input = _object(dict.fromkeys(can, array))
    by_output = _object({OUTPUT: array})
    return {
        "Array": _array([]),
        "DifferentiableArray": _array(["differentiable"]),
        "ShapeDType": _object({"shape": _shape(), "dtype": _dtype()}),
        "Apply_InputSchema": _inputs(inputs, ("DifferentiableArray", "Array")),
        "Apply_OutputSchema": _object(
            {OUTPUT: {"$ref": _REF.format("DifferentiableArray")}}
        ),
        "ApplyInputSchema": _object(whole)
        | {"differentiable_arrays": dict.fromkeys(can, values)},
        "ApplyOutputSchema": {
            "$ref": _REF.format("Apply_OutputSchema"),
            "differentiable_arrays": {OUTPUT: values},
        },
        "AbstractEval_InputSchema": _inputs(inputs, ("ShapeDType", "ShapeDType")),
        "AbstractEvalInputSchema": _object(
            {"inputs": {"$ref": _REF.format("AbstractEval_InputSchema")}}
        ),
        "AbstractEvalOutputSchema": _object(
            {OUTPUT: {"$ref": _REF.format("ShapeDType")}}
        ),
        "JacobianInputSchema": _object(whole | _chosen("jac", can)),
        "JacobianOutputSchema": _object({OUTPUT: by_input | {"required": []}}),
        "JVPInputSchema": _object(
            whole
            | _chosen("jvp", can)
            | {"tangent_vector": by_input | {"required": []}}
        ),
        "JVPOutputSchema": by_output,
        "VJPInputSchema": _object(
            whole | _chosen("vjp", can) | {"cotangent_vector": by_output}
        ),
        "VJPOutputSchema": by_input | {"required": []},
    }


def _inputs(inputs: dict[str, str], kinds: tuple[str, str]) -> dict[str, Any]:
    """The schema of ``inputs``: arrays by name, then what is no array."""
    differentiable, other = kinds
    arrays = {
        name: {
            "$ref": _REF.format(differentiable if name in DIFFERENTIABLE else other),
            "description": about,
        }
        for name, about in inputs.items()
    }
    choices = {
        name: {
            "type": "boolean" if isinstance(allowed[0], bool) else "string",
            "enum": list(allowed),
            "default": allowed[0],
            "description": _ABOUT[name],
        }
        for name, allowed in CHOICES.items()
    }
    required = [name for name in inputs if name != "control_times"]
    return _object(arrays | choices) | {"required": required}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _chosen(prefix: str, can: list[str]) -> dict[str, Any]:
    return {
        f"{prefix}_inputs": _names(can),
        f"{prefix}_outputs": _names([OUTPUT]),
    }


def _names(allowed: list[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"enum": allowed}, "minItems": 1}


def _array(flags: list[str]) -> dict[str, Any]:
    data = _object({"buffer": {}, "encoding": {"enum": ["json", "raw", "base64"]}})
    fields = {
        "object_type": {"const": "array", "default": "array"},
        "shape": _shape(),
        "dtype": _dtype(),
        "data": data,
    }
    return _object(fields) | {
        "required": ["shape", "dtype", "data"],
        "array_flags": flags,
    }


def _shape() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "integer", "minimum": 0}}


def _dtype() -> dict[str, Any]:
    return {"enum": list(DTYPES), "examples": ["float64"]}
