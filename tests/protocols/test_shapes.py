"""Refusals in the form of each door; what each client makes of them, its own test says."""

import json

import httpx
import pytest

from api.protocols.shapes import SHAPES, refusal
from services.errors import NotFound, Overloaded, RolloutFailed
from spnode_core.errors import InvalidInput

WRONG = InvalidInput("x0[1]", found="'a'", expected="a number")


def refused(path, error):
    response = refusal(error, {"type": "http", "path": path, "method": "POST"})
    return response, json.loads(bytes(response.body))


def test_every_door_has_a_form_and_other_paths_are_problems():
    assert set(SHAPES) == {"/umbridge", "/v2", "/tesseract"}
    for path in ("/v1/models", "/v2x", "/"):
        response, found = refused(path, WRONG)
        assert response.media_type == "application/problem+json"
        assert found["code"] == "invalid"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotFound("model", "none"), 400, "ModelNotFound"),
        (WRONG, 400, "InvalidInput"),
        (RolloutFailed(row=0, time=1.0), 400, "InvalidOutput"),
        (Overloaded("full", retry_after_s=3.0), 503, "overloaded"),
        (ZeroDivisionError("x"), 500, "internal_error"),
    ],
)
def test_umbridge_has_a_type_and_a_message(error, status, kind):
    response, found = refused("/umbridge/Evaluate", error)
    assert response.status_code == status
    assert set(found) == {"error"}
    assert set(found["error"]) == {"type", "message"}
    assert found["error"]["type"] == kind


def test_open_inference_has_a_string():
    response, found = refused("/v2/models/m/infer", WRONG)
    assert response.status_code == 400
    assert found == {"error": "x0[1]: found 'a'; expected a number"}
    full, _ = refused("/v2/models/m/infer", Overloaded("full", retry_after_s=3.0))
    assert (full.status_code, full.headers["retry-after"]) == (503, "3")


def test_no_door_names_a_remedy_that_it_does_not_take():
    failed = RolloutFailed(row=1, time=2.0, has_others=True)
    said = "row 1 is not finite from time 2.0 on"
    assert refused("/v1/rollout", failed)[1]["detail"].startswith(f"{said}; on_error")
    assert refused("/v2/models/m/infer", failed)[1] == {"error": said}
    assert refused("/umbridge/Evaluate", failed)[1]["error"]["message"] == said


def test_tesseract_tells_places_as_pydantic_does():
    response, found = refused("/tesseract/m/champion/apply", WRONG)
    assert response.status_code == 422
    (place,) = found["detail"]
    assert place["loc"] == ["body", "x0", "1"]
    assert place["msg"] == "found 'a'; expected a number"
    response, found = refused("/tesseract/m/x/apply", NotFound("model", "m"))
    assert response.status_code == 404
    assert isinstance(found["detail"], str)


@pytest.mark.parametrize("door", SHAPES)
def test_a_door_refuses_strangers_and_unknown_paths_in_its_own_form(service, door):
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        stranger = client.post(f"{door}/nothing", headers={"x-api-key": "wrong"})
        lost = client.post(f"{door}/nothing", headers={"x-api-key": service.key})
    assert stranger.status_code == 401
    assert "basic" in stranger.headers["www-authenticate"].lower()
    assert lost.status_code in (400, 404)
    for answer in (stranger, lost):
        found = answer.json()
        assert set(found) == ({"detail"} if door == "/tesseract" else {"error"})
