import subprocess
import sys
from typing import get_args

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from api.app import create_app
from api.auth import needed_scope
from api.errors import CODES
from api.problem_codes import NARROW
from api.routes.catalogue import PRESETS
from deploy.site.rest import narrow_codes
from services import errors
from services.job_request import JobRequest
from services.rollouts.request import REQUESTS
from services.settings import Settings
from spnode_core.spec import Preset
from tests.api.deployment import ROOT, clean_environment

# What a failed sweep and an import on the machine itself say.
NOT_OF_REST = {
    *("no_candidate_is_finite", "no_candidate_succeeded"),
    *("dataset_differs", "invalid_archive", "version_differs"),
}


@pytest.fixture(scope="module")
def schema():
    return create_app(Settings(data_folder="/nonexistent")).openapi()


def operations(schema):
    return [
        (path, method, operation)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    ]


def test_the_gateway_never_imports_jax():
    code = "import api.app, sys; assert 'jax' not in sys.modules, 'jax'"
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean_environment(), check=True
    )


def test_every_operation_is_described(schema):
    for path, method, operation in operations(schema):
        assert operation.get("summary"), (method, path)
        assert operation.get("description"), (method, path)
        assert operation["responses"]["4XX"], (method, path)


def test_every_json_body_has_a_filled_in_example(schema):
    for path, method, operation in operations(schema):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            continue
        body = content["application/json"]
        assert examples(schema, body), (method, path)


def examples(schema, body):
    """Examples at the body itself, or at each of the schemas that it may be."""
    if "example" in body:
        return [body["example"]]
    kinds = body["schema"].get("oneOf", [body["schema"]])
    found = []
    for kind in kinds:
        component = schema["components"]["schemas"][kind["$ref"].rsplit("/", 1)[1]]
        assert component.get("examples"), kind
        found += component["examples"]
    return found


def test_the_examples_are_valid_requests(schema):
    paths = schema["paths"]
    for name, model in REQUESTS.items():
        path = f"/v1/rollout/{name}"
        if name in ("rollout", "objective"):
            path = f"/v1/{name}"
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]
        for example in examples(schema, body):
            model.model_validate(example)
    jobs = paths["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    for example in examples(schema, jobs):
        TypeAdapter(JobRequest).validate_python(example)


def test_every_reference_leads_somewhere(schema):
    known = schema["components"]["schemas"]

    def walk(node):
        if isinstance(node, dict):
            reference = node.get("$ref")
            if reference is not None:
                assert reference.rsplit("/", 1)[1] in known, reference
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(schema)


def test_every_code_of_a_problem_is_told_with_its_meaning(schema):
    told = {(each["code"], each["status"]) for each in schema["x-problems"]}
    assert len(told) == len(schema["x-problems"])
    assert all(each["means"].endswith(".") for each in schema["x-problems"])
    raised = {
        (code, getattr(errors, name))
        for code, name in narrow_codes()
        if hasattr(errors, name) and code not in NOT_OF_REST
    }
    assert raised == set(NARROW)
    assert {(code, status) for status, code in CODES.items()} <= told
    assert ("malformed_json", 400) in told
    assert ("gate_failed", 409) in told


def test_only_reading_is_open_to_a_key_that_reads():
    app = create_app(Settings(data_folder="/nonexistent"))
    for route in app.routes:
        if isinstance(route, APIRoute):
            for method in (route.methods or set()) - {"GET", "HEAD"}:
                assert needed_scope(method, route.path) != "read", route.path


def test_every_preset_is_explained():
    assert set(PRESETS) == set(get_args(Preset))
