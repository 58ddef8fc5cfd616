"""The doors in ``/openapi.json``: what there is, by path and method, with an example.

Their bodies are those of their protocols, which the doors themselves describe in whole;
the schemas here say only whether they are objects or lists.
"""

from typing import Any

from api.protocols.open_inference import routes as open_inference
from api.protocols.tesseract import door as tesseract
from api.protocols.umbridge import door as umbridge

_X0, _TIMES = [0.95, 5e-7, 0.05], [0.1, 1.0]
_CALL = {"name": "robertson", "input": [_X0], "config": {"times": _TIMES}}
_SENS = [0, 0, 0, 0, 0, 1]
_INFER = {
    "inputs": [{"name": "x0", "datatype": "FP64", "shape": [1, 3], "data": _X0}],
    "parameters": {"stop": 100.0, "count": 5},
}
_INPUTS = {"inputs": {"x0": _X0, "times": _TIMES}}
_SHAPES = {"inputs": {**_INPUTS["inputs"], "x0": {"shape": [3], "dtype": "float64"}}}
_MODEL = f"{tesseract.PREFIX}/{{model}}/{{version}}"
# Answered with a list.
_LISTS = ("/v2/repository/index",)
_OF_MODEL = (open_inference.OF_MODEL, f"{open_inference.OF_MODEL}/versions/{{version}}")

# By tag: what the door is, how it refuses, and its operations: method, path, summary
# and an example of what is sent.
_Operation = tuple[str, str, str, dict[str, Any] | None]
_DOORS: dict[str, tuple[str, dict[str, Any], list[_Operation]]] = {
    "UM-Bridge": (
        "UM-Bridge 1.0 of all models; below `/umbridge/{model}` the same of one. A GET "
        "of an address without `Info` describes it, and what `config` may have.",
        {"error": {"type": "InvalidInput", "message": "input: found None; expected …"}},
        [
            ("get", f"{umbridge.PREFIX}/Info", "List the models", None),
            ("get", f"{umbridge.PREFIX}/{{model}}", "Describe a model", None),
            *(
                ("post", f"{umbridge.PREFIX}/{name}", summary, _CALL | fields)
                for name, summary, fields in (
                    ("ModelInfo", "What is computed of a model", {}),
                    ("InputSizes", "Sizes of the inputs", {}),
                    ("OutputSizes", "Sizes of the output", {}),
                    ("Evaluate", "Roll out", {}),
                    (
                        "Gradient",
                        "Gradient of the weighted output",
                        {"outWrt": 0, "inWrt": 0, "sens": _SENS},
                    ),
                    (
                        "ApplyJacobian",
                        "Derivative along an input vector",
                        {"outWrt": 0, "inWrt": 0, "vec": [1, 0, 0]},
                    ),
                    (
                        "ApplyHessian",
                        "Derivative of a gradient",
                        {"outWrt": 0, "inWrt1": 0, "inWrt2": 0}
                        | {"sens": _SENS, "vec": [1, 0, 0]},
                    ),
                )
            ),
        ],
    ),
    "Open Inference Protocol": (
        "Version 2 over HTTP, with JSON or raw tensors. `GET /v2/models/{model}` "
        "describes what a model takes.",
        {"error": "x0: found …; expected …"},
        [
            ("get", "/v2", "Name, version and extensions of the server", None),
            ("get", "/v2/health/live", "Whether the server answers", None),
            ("get", "/v2/health/ready", "Whether it is ready", None),
            *(
                (method, f"{path}{rest}", summary, sent)
                for path in _OF_MODEL
                for method, rest, summary, sent in (
                    ("get", "", "Inputs, outputs and versions of a model", None),
                    ("get", "/ready", "Whether a model is there", None),
                    ("get", "/config", "A model in the form of Triton", None),
                    ("get", "/stats", "Statistics of a model", None),
                    ("post", "/infer", "Roll out", _INFER),
                )
            ),
            ("get", "/v2/models/stats", "Statistics of all models", None),
            ("post", "/v2/repository/index", "List the models", {}),
        ],
    ),
    "Tesseract": (
        "Every version as a Tesseract, which its own `openapi.json` describes.",
        {"detail": [{"loc": ["body", "inputs", "x0"], "msg": "found …; expected …"}]},
        [
            ("get", tesseract.PREFIX, "List the models", None),
            ("get", _MODEL, "What a version takes", None),
            ("get", f"{_MODEL}/health", "Whether a version is there", None),
            ("get", f"{_MODEL}/openapi.json", "Describe a version", None),
            ("post", f"{_MODEL}/apply", "Roll out", _INPUTS),
            ("post", f"{_MODEL}/abstract_eval", "Shapes, and no numbers", _SHAPES),
            (
                "post",
                f"{_MODEL}/jacobian",
                "The derivative by inputs",
                _INPUTS | {"jac_inputs": ["x0"], "jac_outputs": ["x"]},
            ),
            (
                "post",
                f"{_MODEL}/jacobian_vector_product",
                "The derivative along a tangent",
                _INPUTS
                | {"jvp_inputs": ["x0"], "jvp_outputs": ["x"]}
                | {"tangent_vector": {"x0": [1, 0, 0]}},
            ),
            (
                "post",
                f"{_MODEL}/vector_jacobian_product",
                "Gradients of weighted outputs",
                _INPUTS
                | {"vjp_inputs": ["x0"], "vjp_outputs": ["x"]}
                | {"cotangent_vector": {"x": [[0, 0, 0], [0, 0, 1]]}},
            ),
        ],
    ),
}

TAGS = [{"name": tag, "description": about} for tag, (about, _, _) in _DOORS.items()]
"""The doors, each with a sentence about it."""


def listed() -> dict[str, dict[str, Any]]:
    """The operations of all doors by path and method, as OpenAPI has them."""
    paths: dict[str, dict[str, Any]] = {}
    for tag, (about, refusal, operations) in _DOORS.items():
        for method, path, summary, sent in operations:
            paths.setdefault(path, {})[method] = {
                "tags": [tag],
                "summary": summary,
                "description": about,
                "operationId": _name(method, path),
                "responses": {
                    "200": _answer("What was asked for"),
                    "4XX": _answer("A refusal in the form of this door", refusal),
                    "5XX": _answer("A failure in the form of this door", refusal),
                },
            }
            operation = paths[path][method]
            if path in _LISTS:
                operation["responses"]["200"] = _answer("What there is", kind="array")
            if names := [part[1:-1] for part in path.split("/") if part[:1] == "{"]:
                operation["parameters"] = [_in_path(name) for name in names]
            if sent is not None:
                body = {"schema": {"type": "object"}, "example": sent}
                content = {"application/json": body}
                operation["requestBody"] = {"required": bool(sent), "content": content}
            if path.startswith("/v2/health/"):
                operation["security"] = []
    return paths


def _name(method: str, path: str) -> str:
    words = path.translate(str.maketrans({"{": "", "}": "", "/": "_", ".": "_"}))
    return f"{method}{words}"


def _in_path(name: str) -> dict[str, Any]:
    about = {
        "model": "Its name, or `name@alias`.",
        "version": "A number, an alias or `latest`.",
    }
    schema = {"type": "string"}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema,
        "description": about[name],
    }


def _answer(about: str, example: Any = None, *, kind: str = "object") -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": kind}}
    if example is not None:
        content["example"] = example
    return {"description": about, "content": {"application/json": content}}
