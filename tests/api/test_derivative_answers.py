"""Answers of derivatives: JSON and npz, masked rows, both clients, what is refused."""

import asyncio

import numpy as np
import pytest

from spnode_client import AsyncClient, InvalidRequest
from tests.api.differentiable import GIVEN, ROWS, SCALE, TIMES, directions, options


def as_json(value):
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def bodies():
    """What is asked of each route beside the rollout, by route."""
    draws = np.random.default_rng(8)
    cotangents = draws.normal(size=(3, ROWS, 3, 3))
    return {
        "/v1/rollout/jvp": {"tangents": directions(8, 7)},
        "/v1/rollout/vjp": {"cotangents": cotangents},
        "/v1/rollout/hvp": {"cotangents": cotangents[0], "tangents": directions(2, 7)},
        "/v1/rollout/jacobian": {"inputs": ["controls", "x0", "parameters"]},
        "/v1/objective": {
            "objective": {
                "kind": "quadratic",
                "target": np.full(3, 0.1),
                "final_weights": SCALE**-2.0,
            }
        },
    }


def posted(exact, path, **body):
    common = {"model": "etd1@latest", "times": TIMES, **options(x0=GIVEN["x0"])}
    response = exact.transport.http.post(path, json=as_json({**common, **body}))
    return response.status_code, response.json()


@pytest.mark.parametrize("path", bodies())
def test_json_and_npz_give_the_same_numbers(exact, path):
    kind = path.rpartition("/")[2]
    status, text = posted(exact, path, **bodies()[path])
    assert status == 200, text
    binary = getattr(exact, kind)(
        "etd1@latest", GIVEN["x0"], TIMES, **options(**bodies()[path])
    )
    for field in {"x", "jvp", "vjp", "hvp", "jacobian", "values", "gradient"} & {*text}:
        parts = text[field] if isinstance(text[field], dict) else {None: text[field]}
        for part, each in parts.items():
            found = binary[field] if part is None else binary[field][part]
            np.testing.assert_array_equal(found, np.array(each))


@pytest.mark.parametrize("path", bodies())
def test_a_row_that_fails_is_null_in_every_direction_and_in_no_sum(exact, path):
    whole = posted(exact, path, **bodies()[path])[1]
    x0 = GIVEN["x0"].copy()
    x0[1] = 1e308
    status, problem = posted(exact, path, **bodies()[path], x0=x0)
    assert status == 422
    assert problem["code"] == "rollout_failed"
    status, masked = posted(exact, path, **bodies()[path], x0=x0, on_error="mask")
    assert status == 200, masked
    assert [each["row"] for each in masked["rows"]] == [1]
    one = posted(
        exact,
        path,
        **bodies()[path],
        x0=np.stack([x0[0], GIVEN["x0"][1]]),
    )[1]
    many = {"jvp": ("jvp",), "vjp": ("vjp",), "hvp": ("hvp",)}.get(path[12:], ())
    for field in {"x", "jvp", "vjp", "hvp", "jacobian", "values", "gradient"} & {*one}:
        parts = one[field] if isinstance(one[field], dict) else {None: one[field]}
        for part, each in parts.items():
            found = masked[field] if part is None else masked[field][part]
            if part == "parameters" and field != "jacobian":
                assert np.isfinite(np.array(found, float)).all()
                assert found != each
                continue
            pairs = zip(found, each, strict=True) if field in many else [(found, each)]
            for rows, expected in pairs:
                assert rows[1] is None
                assert rows[0] == expected[0]
    if "value" in masked:
        assert masked["value"] == whole["values"][0]


def test_a_sum_over_no_row_at_all_is_an_error(exact):
    x0 = np.full((ROWS, 3), 1e308)
    for path in ("/v1/rollout/vjp", "/v1/objective"):
        status, problem = posted(exact, path, **bodies()[path], x0=x0, on_error="mask")
        assert status == 422
        assert problem["code"] == "rollout_failed"


def test_the_async_client_asks_the_same(exact):
    body = bodies()

    async def ask():
        url, key = exact.url, exact.transport.http.headers["authorization"][7:]
        async with AsyncClient(url, key, retries=0) as same:
            given = ("etd1@latest", GIVEN["x0"], TIMES)
            return [
                await getattr(same, path.rpartition("/")[2])(
                    *given, **options(**body[path])
                )
                for path in body
            ]

    for path, answer in zip(body, asyncio.run(ask()), strict=True):
        again = getattr(exact, path.rpartition("/")[2])(
            "etd1@latest", GIVEN["x0"], TIMES, **options(**body[path])
        )
        field = {"/v1/objective": "gradient"}.get(path, path.rpartition("/")[2])
        parts = again[field]
        if isinstance(parts, dict):
            for part, each in parts.items():
                np.testing.assert_array_equal(answer[field][part], each)
        else:
            np.testing.assert_array_equal(answer[field], parts)


def test_what_is_wrong_is_named_to_the_client(exact):
    with pytest.raises(InvalidRequest, match="inputs"):
        exact.jacobian("etd1@latest", GIVEN["x0"], TIMES, ["x1"], **options())
    with pytest.raises(InvalidRequest, match="objective"):
        exact.objective(
            "etd1@latest", GIVEN["x0"], TIMES, {"kind": "cubic"}, **options()
        )
    status, problem = posted(exact, "/v1/objective", objective={"kind": "misfit"})
    assert status == 422
    assert problem["errors"][0]["pointer"] == "/objective/observations"
