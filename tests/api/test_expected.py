"""What a refused field expects is said in words, not in those of a library."""

import pytest

from tests.api.test_errors import JSON, checked, text

DATASET = f"ds_{'0' * 26}"
TRAINING = {"kind": "training", "dataset": DATASET, "model": "m"}
CALIBRATION = {"kind": "calibration", "model": "small"}
NUMBERS = "a list of numbers in the order of names"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"parameters": {"Te": 10}},
            f"/parameters: found {{'Te': 10}}; expected {NUMBERS}, or rows of them",
        ),
        ({"x0": "no"}, f"/x0: found 'no'; expected {NUMBERS}, or rows of them"),
        ({"x0": [[1.0], 2.0]}, "/x0/1: found 2.0; expected a list"),
        ({"model": ""}, "/model: found ''; expected at least 1 character"),
    ],
)
def test_a_rollout_says_what_its_fields_expect(client, change, said):
    response = client.post("/v1/rollout", content=text(**change), headers=JSON)
    assert checked(response, 422, "invalid")["detail"] == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {**TRAINING, "model": "No Name"},
            "/model: found 'No Name'; expected lower case letters, digits, - and _, "
            "64 at most, the first a letter or a digit",
        ),
        (
            {**TRAINING, "dataset": "mine"},
            "/dataset: found 'mine'; expected the id of a dataset: ds_, then 26 "
            "letters and digits",
        ),
        (
            {"kind": "evaluation", "dataset": DATASET, "models": ["oreg/1"]},
            "/models: found ['oreg/1']; expected at least 2 versions",
        ),
    ],
)
def test_a_job_says_what_its_fields_expect(client, body, said):
    response = client.post("/v1/jobs", json=body)
    assert checked(response, 422, "invalid")["detail"] == said


def test_a_calibration_takes_one_row(client):
    response = client.post("/v1/jobs", json={**CALIBRATION, "parameters": {"k": 1}})
    found = checked(response, 422, "invalid", "/parameters")["errors"]
    (said,) = [each["detail"] for each in found if each["pointer"] == "/parameters"]
    assert said == f"found {{'k': 1}}; expected {NUMBERS}"
