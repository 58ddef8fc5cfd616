"""Calls through the UM-Bridge door, and what a refusal must be."""

import contextlib
import json

import httpx

OPERATIONS = ("Evaluate", "Gradient", "ApplyJacobian", "ApplyHessian")


@contextlib.contextmanager
def opened_door(service):
    """A client whose key is a password, as UM-Bridge's sends it."""
    with httpx.Client(
        base_url=f"{service.url}/umbridge",
        auth=("key", service.key),
        timeout=120,
        trust_env=False,
    ) as client:
        yield client


def ask(door, operation, **fields):
    """As its clients and its suite do: JSON without a content type."""
    return door.post(f"/{operation}", content=json.dumps(fields))


def answer(door, operation, **fields):
    """The one field of a success."""
    response = ask(door, operation, **fields)
    assert response.status_code == 200, response.text
    (content,) = response.json().values()
    return content


def refused(response, kind="InvalidInput", status=400):
    """The message of a refusal in the protocol's exact form."""
    assert response.status_code == status, response.text
    content = response.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"type", "message"}
    assert content["error"]["type"] == kind, content
    return content["error"]["message"]
