"""The same faults at every door: refused in its own form, never a 500, never a problem."""

import gzip
import json

import httpx
import pytest

X0, TIMES = [0.5, 1e-5, 0.5], [0.1, 1.0]
LIMIT_BYTES = 4 * 2**20


def umbridge(model="plain@latest", x0=X0):
    body = {"name": model, "input": [x0], "config": {"times": TIMES}}
    return "/umbridge/Evaluate", body


def open_inference(model="plain@latest", x0=X0):
    tensor = {"name": "x0", "datatype": "FP64", "shape": [1, len(x0)], "data": x0}
    body = {"inputs": [tensor], "parameters": {"stop": 1.0, "count": 2}}
    return f"/v2/models/{model}/infer", body


def tesseract(model="plain@latest", x0=X0):
    return f"/tesseract/{model}/apply", {"inputs": {"x0": x0, "times": TIMES}}


def has_type_and_message(content):
    (error,) = content.values()
    return set(content) == {"error"} and set(error) == {"type", "message"}


def has_string(content):
    return set(content) == {"error"} and isinstance(content["error"], str)


def has_detail(content):
    told = content.get("detail")
    if isinstance(told, list):
        told = all({"type", "loc", "msg"} <= set(each) for each in told)
    return set(content) == {"detail"} and bool(told)


# What asks, what a refusal has, and the status of a model and of a body that are wrong.
DOORS = {
    "umbridge": (umbridge, has_type_and_message, 400, 400),
    "open_inference": (open_inference, has_string, 404, 400),
    "tesseract": (tesseract, has_detail, 404, 422),
}


@pytest.fixture(params=DOORS)
def door(request):
    return DOORS[request.param]


@pytest.fixture
def post(client, door):
    """Sends anything to a door; the answer, which must be as a refusal of it is."""
    ask, is_its_form, *_ = door

    def post(path=None, **sent):
        answer = client.post(path or ask()[0], **sent)
        if answer.status_code != 200:
            assert answer.status_code < 500, answer.text
            assert answer.headers["content-type"] == "application/json"
            assert is_its_form(answer.json()), answer.text
        return answer

    return post


def test_an_unknown_model(door, post):
    ask, _, of_model, _ = door
    for name in ("nothing", "plain@nothing"):
        path, body = ask(model=name)
        assert post(path, json=body).status_code == of_model


def test_a_bad_shape(door, post):
    ask, _, _, of_body = door
    for x0 in ([], [0.1], [0.1] * 4):
        assert post(json=ask(x0=x0)[1]).status_code == of_body


def test_numbers_that_are_not_finite(door, post):
    ask, _, _, of_body = door
    for number in (float("nan"), float("inf")):
        text = json.dumps(ask(x0=[number, 0.0, 0.0])[1])
        assert "NaN" in text or "Infinity" in text
        assert post(content=text).status_code in (400, of_body)
    null = json.dumps(ask(x0=[None, 0.0, 0.0])[1])
    assert post(content=null).status_code == of_body


def test_no_body(door, post):
    _, _, _, of_body = door
    for content in (b"", b"{}", b"null"):
        assert post(content=content).status_code in (400, of_body)


@pytest.mark.parametrize("kind", ["application/xml", "application/x-npz", "text/plain"])
def test_a_wrong_content_type(door, post, kind):
    ask, _, _, of_body = door
    headers = {"content-type": kind}
    # Most clients send none or a wrong one: what can be read is read.
    right = post(content=json.dumps(ask()[1]), headers=headers)
    assert right.status_code in (200, 415)
    for content in (b"<x0>1</x0>", b"PK\x03\x04", b"\xff\xfe"):
        assert post(content=content, headers=headers).status_code in (400, of_body, 415)


def test_a_compressed_body(door, post):
    sent = gzip.compress(json.dumps(door[0]()[1]).encode())
    answer = post(content=sent, headers={"content-encoding": "gzip"})
    assert answer.status_code == (200 if door == DOORS["open_inference"] else 415)


def test_a_body_that_is_too_large(door, post):
    text = json.dumps(door[0]()[1])
    large = text + " " * (LIMIT_BYTES + 1 - len(text))
    assert post(content=large).status_code == 413

    def in_pieces():
        yield from [b" " * 2**16] * 65

    assert post(content=in_pieces()).status_code == 413


def test_a_stranger_and_a_key_that_may_only_read(service, door):
    ask, is_its_form, *_ = door
    path, body = ask()
    reader = service.deployment.new_key("read")
    sent = {"wrong": 401, reader: 403, "": 401}
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        for key, status in sent.items():
            headers = {"authorization": f"Bearer {key}"} if key else {}
            answer = client.post(path, json=body, headers=headers)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/json"
            assert is_its_form(answer.json()), answer.text
