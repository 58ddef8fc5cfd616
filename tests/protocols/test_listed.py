"""What /openapi.json says of the doors: every operation is there, and answers so."""

import pytest

from api.protocols.listed import TAGS, listed
from api.protocols.shapes import SHAPES

OPERATIONS = [
    (method, path, operation)
    for path, item in listed().items()
    for method, operation in item.items()
]


@pytest.fixture(scope="module")
def described(client):
    return client.get("/openapi.json").json()


def door_of(path):
    (prefix,) = (each for each in SHAPES if path.startswith(each))
    return prefix


def test_every_door_is_listed_with_a_tag_of_its_own(described):
    assert {door_of(path) for _, path, _ in OPERATIONS} == set(SHAPES)
    by_tag = {}
    for method, path, operation in OPERATIONS:
        assert described["paths"][path][method] == operation
        (tag,) = operation["tags"]
        by_tag.setdefault(tag, set()).add(door_of(path))
    assert [each["name"] for each in described["tags"]] == [*by_tag]
    assert [each["name"] for each in TAGS] == [*by_tag]
    assert all(len(doors) == 1 for doors in by_tag.values())
    names = [
        operation["operationId"]
        for item in described["paths"].values()
        for operation in item.values()
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [pytest.param(*each, id=each[2]["operationId"]) for each in OPERATIONS],
)
def test_an_operation_takes_its_example_and_refuses_in_its_form(
    client, method, path, operation
):
    sent = None
    if "requestBody" in operation:
        sent = operation["requestBody"]["content"]["application/json"]["example"]
    if sent and "name" in sent:
        sent = sent | {"name": "plain@latest"}
    at = path.replace("{model}", "plain@latest")
    if "{version}" in path:
        at = path.replace("{model}", "plain").replace("{version}", "1")
    answer = client.request(method, at, json=sent)
    assert answer.status_code == 200, answer.text
    assert isinstance(answer.json(), (dict, list))
    refused = operation["responses"]["4XX"]["content"]["application/json"]["example"]
    if "{model}" in path:
        at = path.replace("{model}", "nothing").replace("{version}", "1")
        lost = client.request(method, at, json=sent)
        assert lost.status_code in (400, 404)
        assert set(lost.json()) == set(refused)
