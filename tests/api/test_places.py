"""Places in refusals: fields that are known there, and no tags of pydantic's unions."""

import numpy as np
import pytest

from api.errors import _TAGS
from api.fields import fields_at
from api.protocols.open_inference.reading import Envelope
from api.protocols.umbridge.config import Body
from services.job_request import JobRequest
from services.rollouts.request import REQUESTS
from services.rollouts.wire import JacobianOptions, Options
from tests.api.test_errors import JSON, NPZ, X0, checked, npz, text

TRAINING = {"kind": "training", "dataset": f"ds_{'0' * 26}", "model": "m"}
MISFIT = {"kind": "misfit", "observations": [[1.0, 1.0, 1.0]]}
UNKNOWN = "found a field that is not known here; expected"


@pytest.mark.parametrize(
    ("path", "change", "pointer", "said"),
    [
        ("rollout", {"parameter": [1.0]}, "/parameter", "parameters, perhaps; one of"),
        ("rollout", {"q": 1}, "/q", "one of model, outputs, on_error, mode, precision"),
        ("rollout", {"outputs": {"time": "all"}}, "/outputs/time", "times, perhaps;"),
        ("rollout", {"times": {"q": 1}}, "/times/q", "one of start, stop, count, spac"),
        (
            "objective",
            {"objective": MISFIT | {"weight": [1.0]}},
            "/objective/weight",
            "weights, perhaps; one of kind, observations, weights",
        ),
    ],
)
def test_a_misspelt_field_is_told_those_of_its_place(
    client, path, change, pointer, said
):
    response = client.post(f"/v1/{path}", content=text(**change), headers=JSON)
    problem = checked(response, 422, "invalid", pointer)
    (place,) = [each for each in problem["errors"] if each["pointer"] == pointer]
    assert place["detail"].startswith(f"{UNKNOWN} {said}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ensemble": 3}, "/ensemble: {} one of schedule, kind, dataset, model, pres"),
        ({"training": {"iteration": 3}}, "/training/iteration: {} iterations, perhaps"),
        ({"x" * 10**5: 3}, f"/{'x' * 10**5}: {{}} one of schedule, kind, dataset"),
    ],
)
def test_a_misspelt_field_of_a_job_is_told_those_of_its_kind(client, change, said):
    response = client.post("/v1/jobs", json=TRAINING | change)
    detail = checked(response, 422, "invalid")["detail"]
    assert detail.startswith(said.format(UNKNOWN))
    assert len(detail) < len(said) + 500


def test_a_field_of_another_kind_of_job_is_not_offered():
    assert "observations" not in fields_at(JobRequest, ("training", "q"))


@pytest.mark.parametrize(
    ("operation", "name", "pointer", "said"),
    [
        (
            "rollout",
            "parameter",
            "/parameter",
            "parameters, perhaps; one of control_times, controls, intervals, mode, "
            "model, on_error, outputs, parameters, precision, spread, sweep, times, x0",
        ),
        ("rollout", "states", "/states", "one of control_times"),
        ("rollout", "inputs", "/inputs", "one of"),
        ("rollout/jvp", "tangent.x0", "/tangent/x0", "tangents.x0, perhaps;"),
        (
            "objective",
            "objective.kinds",
            "/objective/kinds",
            "objective.kind, perhaps; one of",
        ),
        ("rollout/jacobian", "input", "/input", "inputs, perhaps; one of"),
        ("rollout", "an 'x'.npy", "/an/'x'/npy", "one of"),
    ],
)
def test_an_unknown_array_is_told_those_of_its_operation(
    client, operation, name, pointer, said
):
    sent = {"model": "small", "x0": np.array(X0), "times": np.ones(1), name: np.ones(1)}
    response = client.post(f"/v1/{operation}", content=npz(**sent), headers=NPZ)
    (place,) = checked(response, 422, "invalid", pointer)["errors"]
    assert place["detail"].startswith(f"found an unknown array; expected {said}")


def test_no_tag_of_a_union_is_left_in_a_place():
    for model in (*REQUESTS.values(), Options, JacobianOptions, Envelope, Body):
        unnamed, tags = unions(model.__pydantic_core_schema__)
        assert not unnamed, f"{model.__name__}: pydantic names {unnamed} by itself"
        assert tags <= _TAGS, model.__name__


def unions(schema):
    """Choices of unions that have no tags of ours, and the tags that others have."""
    unnamed, tags = [], set()
    if isinstance(schema, dict):
        if schema.get("type") == "union":
            unnamed += [each["type"] for each in schema["choices"]]
        if schema.get("type") == "tagged-union":
            tags |= set(schema["choices"])
        # Metadata hold functions that repeat the schema.
        schema = [value for key, value in schema.items() if key != "metadata"]
    if isinstance(schema, list):
        for each in schema:
            more, others = unions(each)
            unnamed += more
            tags |= others
    return unnamed, tags
