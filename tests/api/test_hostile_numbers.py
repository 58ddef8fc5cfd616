"""Numbers at the ends of what floats are: computed rightly, or refused at their place."""

import io
import json

import numpy as np
import pytest

from tests.api.test_errors import JSON, NPZ, X0, checked, npz

DENORMAL = 5e-324
LARGEST = 1.7976931348623157e308
# JSON's grammar knows no largest number.
TOO_LARGE = {
    "1e400": "1e400",
    "-1e400": "-1e400",
    "exponent": "1e" + "9" * 20,
    "point": "1" + "0" * 400 + ".5",
}
LONG = {"integer": "9" * 5000, "negative": "-" + "9" * 5000}
NOTHING = {"-0.0": "-0.0", "1e-400": "1e-400", "tiny": "0." + "0" * 5000 + "1"}
DENORMALS = {"5e-324": "5e-324", "-5e-324": "-5e-324", "1e-310": "1e-310"}


@pytest.fixture(scope="module")
def usual(client):
    return trajectory(client)


@pytest.fixture(autouse=True)
def served(client, usual):
    """Whatever was sent, the next request gets the same numbers as before."""
    yield
    assert trajectory(client) == usual


def trajectory(client):
    answer = send(client, body_of())
    assert answer.status_code == 200, answer.text
    return answer.json()["x"]


def body_of(x0="1e-5", times="[1.0]"):
    """A rollout as text: json.dumps would not write such numbers."""
    return f'{{"model": "small", "x0": [0.5, {x0}, 0.5], "times": {times}}}'


def send(client, content, path="/v1/rollout"):
    return client.post(path, content=content, headers=JSON)


def forced(parameter="1.0", control="0.5"):
    rest = json.dumps({"model": "forced", "x0": X0, "times": [1.0]})[1:-1]
    return (
        f'{{{rest}, "parameters": [{parameter}], "controls": [[{control}, 0.5]], '
        '"control_times": [0.0]}'
    )


def tangent(value):
    rest = json.dumps({"model": "small", "x0": X0, "times": [1.0]})[1:-1]
    return f'{{{rest}, "tangents": {{"x0": [{value}, 0, 0]}}}}'


@pytest.mark.parametrize("text", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_no_float_holds_is_refused_at_its_place(client, text):
    for content, place in (
        (body_of(x0=text), "/x0/1"),
        (body_of(times=f"[{text}]"), "/times/0"),
        (body_of(times=f'{{"dt": {text}, "steps": 3}}'), "/times/dt"),
        (body_of(times=f'{{"dt": 1.0, "steps": {text}}}'), "/times/steps"),
        (body_of(times=f'{{"stop": {text}, "count": 3}}'), "/times/stop"),
        (forced(parameter=text), "/parameters/0"),
        (forced(control=text), "/controls/0/0"),
    ):
        problem = checked(send(client, content), 422, "invalid", place)
        assert len(problem["detail"]) < 500
    response = send(client, tangent(text), "/v1/rollout/jvp")
    checked(response, 422, "invalid", "/tangents/x0/0")


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_an_integer_of_thousands_of_digits_is_refused(client, text):
    for content in (
        body_of(x0=text),
        body_of(times=f"[{text}]"),
        body_of(times=f'{{"dt": 1.0, "steps": {text}}}'),
        forced(parameter=text),
    ):
        assert (
            len(checked(send(client, content), 400, "malformed_json")["detail"]) < 500
        )
    for field in ("seed", "trajectories"):
        job = f'{{"kind": "dataset", "system": "robertson", "{field}": {text}}}'
        checked(send(client, job, "/v1/jobs"), 400, "malformed_json")
    for name in ("limit", "after"):
        path = "/v1/jobs" if name == "limit" else "/v1/jobs/job_x/events"
        checked(client.get(path, params={name: text}), 422, "invalid", f"/{name}")


@pytest.mark.parametrize("digits", [20, 400, 4000])
def test_an_integer_beyond_64_bits_is_none(client, digits):
    text = "9" * digits
    times = f'{{"dt": 1.0, "steps": {text}}}'
    checked(send(client, body_of(times=times)), 422, "invalid", "/times/steps")
    for field in ("seed", "trajectories"):
        job = f'{{"kind": "dataset", "system": "robertson", "{field}": {text}}}'
        checked(send(client, job, "/v1/jobs"), 422, "invalid", f"/{field}")
    response = client.put(
        "/v1/models/small/aliases/trial",
        content=f'{{"version": {text}}}',
        headers=JSON,
    )
    checked(response, 422, "invalid", "/version")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "1e308"])
def test_no_wait_and_no_deadline_is_without_end(client, value):
    response = client.get("/v1/jobs/job_x", params={"wait": value})
    checked(response, 422, "invalid", "/wait")
    headers = {**JSON, "request-timeout": value}
    response = client.post("/v1/rollout", content=body_of(), headers=headers)
    checked(response, 422, "invalid", "/Request-Timeout")


@pytest.mark.parametrize(
    "text", [*NOTHING.values(), *DENORMALS.values()], ids=[*NOTHING, *DENORMALS]
)
def test_what_is_next_to_nothing_is_as_nothing(client, text):
    for zero, content, path in (
        (body_of(x0="0.0"), body_of(x0=text), "/v1/rollout"),
        (forced(parameter="0.0"), forced(parameter=text), "/v1/rollout"),
        (forced(control="0.0"), forced(control=text), "/v1/rollout"),
        (tangent("0.0"), tangent(text), "/v1/rollout/jvp"),
    ):
        expected, found = (send(client, each, path) for each in (zero, content))
        assert found.status_code == 200, found.text
        for name in {"x", "jvp"} & set(found.json()):
            np.testing.assert_allclose(
                found.json()[name], expected.json()[name], rtol=1e-14, atol=1e-300
            )


@pytest.mark.parametrize("text", [*DENORMALS.values(), *NOTHING.values()])
def test_a_time_next_to_nothing_is_the_beginning(client, text):
    found = send(client, body_of(times=f"[{text}, 1.0]"))
    if text == "-5e-324":
        checked(found, 422, "invalid", "/times/0")
        return
    start = send(client, body_of(times="[0.0, 1.0]"))
    assert found.status_code == 200, found.text
    np.testing.assert_allclose(found.json()["x"], start.json()["x"], rtol=1e-14)
    assert found.json()["times"][0] == float(text)


@pytest.mark.parametrize("value", [1e308, -1e308, LARGEST])
def test_a_state_beyond_all_bounds_names_its_row(client, value):
    problem = checked(send(client, body_of(x0=repr(value))), 422, "rollout_failed")
    assert problem["errors"][0]["pointer"] == "/x0/0"
    masked = json.loads(body_of(x0=repr(value))) | {"on_error": "mask"}
    masked["x0"] = [X0, masked["x0"]]
    answer = client.post("/v1/rollout", json=masked)
    assert answer.status_code == 200, answer.text
    # Its neighbour in the batch is computed as if it were alone.
    assert answer.json()["x"][0] == trajectory_of(client, X0)
    assert answer.json()["x"][1] is None
    response = send(client, tangent(repr(value)), "/v1/rollout/jvp")
    checked(response, 422, "rollout_failed")


def trajectory_of(client, x0):
    body = {"model": "small", "x0": x0, "times": [1.0]}
    return client.post("/v1/rollout", json=body).json()["x"]


def test_time_without_end_is_the_rest_state_and_says_so(client):
    found = send(client, body_of(times=f"[1e30, 1e308, {LARGEST!r}]"))
    assert found.status_code == 200, found.text
    x = np.array(found.json()["x"])
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x[1:], x[:2], rtol=1e-12)
    assert "beyond" in found.json()["warnings"][0]
    steps = send(client, body_of(times='{"dt": 1e308, "steps": 3}'))
    checked(steps, 422, "invalid", "/times/2")


@pytest.mark.parametrize("value", [DENORMAL, -DENORMAL, 1e-310, -0.0])
def test_npz_is_computed_as_json_is(client, value):
    x0 = np.array([0.5, value, 0.5])
    content = npz(model="small", x0=x0, times=np.array([abs(value), 1.0]))
    headers = {**NPZ, "accept": NPZ["content-type"]}
    found = client.post("/v1/rollout", content=content, headers=headers)
    assert found.headers["content-type"] == NPZ["content-type"], found.text
    times = json.dumps([abs(value), 1.0])
    expected = send(client, body_of(x0=repr(value), times=times)).json()
    with np.load(io.BytesIO(found.content), allow_pickle=False) as members:
        np.testing.assert_array_equal(members["x"], expected["x"])
        np.testing.assert_array_equal(members["times"], expected["times"])


@pytest.mark.parametrize(
    ("arrays", "code", "place"),
    [
        ({"x0": np.array([0.5, 1e308, 0.5])}, "rollout_failed", "/x0/0"),
        ({"x0": np.array([0.5, np.inf, 0.5])}, "invalid", "/x0/1"),
        ({"times": np.array([-np.inf])}, "invalid", "/times/0"),
        ({"times": np.array([-DENORMAL])}, "invalid", "/times/0"),
        ({"x0": np.array([0.5, 10**400, 0.5], object)}, "invalid", "/x0"),
        ({"x0": np.array(["9" * 5000] * 3)}, "invalid", "/x0"),
        ({"x0": np.array([0.5, 0.1, 0.5], complex)}, "invalid", "/x0"),
        ({"x0": np.full(3, np.longdouble("1e4000"))}, "invalid", "/x0/0"),
        ({"x0": np.array([0, 2**64 - 1, 0], np.uint64)}, None, None),
        ({"x0": np.array([65504, 6e-8, 1], np.float16)}, None, None),
        ({"outputs": '{"states": [' + "9" * 5000 + "]}"}, "invalid", "/outputs"),
        ({"outputs": '{"latent": 1e400}'}, "invalid", "/outputs/latent"),
        ({"intervals": np.float64(1e308)}, "invalid", "/intervals"),
        ({"intervals": np.float64(DENORMAL)}, "invalid", "/intervals"),
        ({"intervals": np.float64("inf")}, "invalid", "/intervals/0"),
    ],
)
def test_numbers_of_npz_that_are_none_are_refused(client, arrays, code, place):
    given = {"model": "small", "x0": np.array(X0), "times": np.ones(1), **arrays}
    response = client.post("/v1/rollout", content=npz(**given), headers=NPZ)
    if code is None:
        as_json = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in given.items()
        }
        expected = client.post("/v1/rollout", json=as_json)
        assert response.status_code == expected.status_code, response.text
    else:
        checked(response, 422, code, place)
