"""No key sees, guesses or changes what another project has, by any route.

The routes are those of the OpenAPI description, so a new one fails here until it is
said how it is asked.
"""

import re

import httpx
import pytest

from api.app import create_app
from services.settings import Settings
from tests.api.deployment import Deployment
from tests.api.test_errors import NPZ, checked, npz, trajectories

NOTHING_OF_ANYBODY = {
    *("/health/live", "/health/ready", "/v2", "/v2/health/live", "/v2/health/ready"),
    *("/v1/systems", "/v1/systems/{name}/reference", "/v1/presets", "/v1/limits"),
    "/metrics",
}
FOR_ADMINS = re.compile(r"^/v1/(keys|audit)(/|$)")
LISTS = {
    *("GET /v1/datasets", "GET /v1/jobs", "GET /v1/models"),
    *("GET /umbridge/Info", "GET /tesseract", "GET /v2/models/stats"),
    "POST /v2/repository/index",
}
MAKES = {"POST /v1/datasets", "POST /v1/models/{name}/versions"}
"""What belongs to whoever makes it; tests of their own are below."""
START, TIMES = [0.5, 1e-5, 0.5], [1.0]
CALL = {"name": "$model", "input": [START], "config": {"times": TIMES}}
TENSORS = [
    {"name": "x0", "datatype": "FP64", "shape": [1, 3], "data": START},
    {"name": "times", "datatype": "FP64", "shape": [1], "data": TIMES},
]
POINT = {"inputs": {"x0": START, "times": TIMES}}
ROLLOUT = {"model": "$model", "x0": START, "times": TIMES}
BODIES = {
    "/v1/rollout": ROLLOUT,
    "/v1/rollout/jvp": {**ROLLOUT, "tangents": {"x0": START}},
    "/v1/rollout/vjp": {**ROLLOUT, "cotangents": [START]},
    "/v1/rollout/hvp": {
        **{**ROLLOUT, "cotangents": [START]},
        "tangents": {"x0": [START]},
    },
    "/v1/rollout/jacobian": ROLLOUT,
    "/v1/objective": {
        **ROLLOUT,
        "objective": {"kind": "misfit", "observations": [START]},
    },
    "/v1/jobs/{id}/cancel": None,
    "/v1/jobs/{id}/retry": None,
    "/umbridge/ModelInfo": CALL,
    "/umbridge/InputSizes": CALL,
    "/umbridge/OutputSizes": CALL,
    "/umbridge/Evaluate": CALL,
    "/umbridge/Gradient": {**CALL, "outWrt": 0, "inWrt": 0, "sens": START},
    "/umbridge/ApplyJacobian": {**CALL, "outWrt": 0, "inWrt": 0, "vec": START},
    "/umbridge/ApplyHessian": {
        **CALL,
        **{"outWrt": 0, "inWrt1": 0, "inWrt2": 0, "sens": START, "vec": START},
    },
    "/v2/models/{model}/infer": {"inputs": TENSORS},
    "/v2/models/{model}/versions/{version}/infer": {"inputs": TENSORS},
    "/tesseract/{model}/{version}/apply": POINT,
    "/tesseract/{model}/{version}/abstract_eval": POINT,
    "/tesseract/{model}/{version}/jacobian": {
        **POINT,
        **{"jac_inputs": ["x0"], "jac_outputs": ["x"]},
    },
    "/tesseract/{model}/{version}/jacobian_vector_product": {
        **{**POINT, "jvp_inputs": ["x0"], "jvp_outputs": ["x"]},
        "tangent_vector": {"x0": START},
    },
    "/tesseract/{model}/{version}/vector_jacobian_product": {
        **{**POINT, "vjp_inputs": ["x0"], "vjp_outputs": ["x"]},
        "cotangent_vector": {"x": [START]},
    },
    "PATCH /v1/models/{name}": {"description": "mine now"},
    "PUT /v1/models/{name}/aliases/{alias}": {"version": 1},
}
"""What a POST has in its body, by path; another method by method and path."""
JOBS = [
    {"kind": "training", "dataset": "$dataset", "model": "new"},
    {"kind": "training", "dataset": "$own", "model": "new", "warm_start": "$model"},
    {"kind": "rollout", "model": "$model", "x0": [START], "times": TIMES},
    {"kind": "rollout", "model": "$foreign", "dataset": "$dataset", "times": TIMES},
    {"kind": "evaluation", "models": ["$model", "$model/1"], "dataset": "$own"},
    {"kind": "evaluation", "models": ["mine/1", "mine/2"], "dataset": "$dataset"},
    {
        **{"kind": "sweep", "dataset": "$dataset", "model": "new"},
        "grid": {"seed": [0, 1]},
    },
    {
        **{"kind": "sweep", "dataset": "$own", "model": "new"},
        **{"grid": {"seed": [0, 1]}, "base": {"warm_start": "$model"}},
    },
    {
        **{"kind": "sweep", "dataset": "$own", "model": "new"},
        "candidates": [{}, {"warm_start": "$model@champion"}],
    },
    {
        **{"kind": "sweep", "dataset": "$own", "model": "new"},
        "grid": {"warm_start": [None, "$model/1"]},
    },
    {
        **{"kind": "calibration", "model": "$model/1", "times": TIMES},
        **{"observations": [START], "x0": [None, *START[1:]]},
        "unknowns": {"x0": {"y1": {"lower": 0.0, "upper": 1.0}}},
    },
    {
        **{"kind": "calibration", "model": "$model", "times": TIMES},
        **{"observations": [START], "x0": [None, *START[1:]]},
        "unknowns": {"x0": {"y1": {"lower": 0.0, "upper": 1.0}}},
    },
]
NOWHERE = {
    "model": "nothing",
    "dataset": f"ds_{'0' * 26}",
    "job": f"job_{'0' * 26}",
}


def operations():
    paths = create_app(Settings(data_folder="/nonexistent")).openapi()["paths"]
    return [(m.upper(), path) for path, item in paths.items() for m in item]


OPERATIONS = operations()
ADDRESSES = [
    (method, path)
    for method, path in OPERATIONS
    if path not in NOTHING_OF_ANYBODY
    and not FOR_ADMINS.match(path)
    and f"{method} {path}" not in LISTS | MAKES | {"POST /v1/jobs"}
]


def changes_nothing(operation: tuple[str, str]) -> bool:
    """Whether it may be asked again and again, and has an end."""
    method, path = operation
    last = path.rsplit("/", 1)[1]
    return method in ("GET", "POST") and last not in ("cancel", "retry", "events")


class World:
    """Two projects of one deployment: ours has something, theirs looks for it."""

    def __init__(self, deployment: Deployment) -> None:
        self.ours = deployment.client(deployment.new_key(*EVERY))
        theirs = deployment.new_key(*EVERY, project="theirs")
        self.theirs = deployment.client(theirs)
        self.dataset = self.upload(self.ours)
        self.own = self.upload(self.theirs)
        artifact = self.ours.get("/v1/models/small/versions/1/artifact").content
        sent = {"content": artifact, "headers": {"content-type": "application/zip"}}
        for _ in range(2):
            made = self.theirs.post("/v1/models/mine/versions", **sent)
            assert made.status_code == 201, made.text
        body = filled(JOBS[2], {"model": "small"})
        self.job = self.ours.post("/v1/jobs", json=body).json()["id"]
        self.there = {"model": "small", "dataset": self.dataset, "job": self.job}

    def upload(self, client: httpx.Client) -> str:
        content = npz(**trajectories(count=4))
        return client.post("/v1/datasets", content=content, headers=NPZ).json()["id"]

    def state(self) -> list:
        """All that somebody might have changed."""
        looked = (
            f"/v1/jobs/{self.job}",
            f"/v1/datasets/{self.dataset}",
            "/v1/models/small",
            "/v1/models/small/aliases/champion/history",
        )
        return [self.ours.get(path).json() for path in looked]


EVERY = ("datasets:write", "jobs:write", "models:write", "rollout", "read")


@pytest.fixture(scope="module")
def world(deployment):
    world = World(deployment)
    yield world
    world.ours.close()
    world.theirs.close()


def filled(value, names):
    """A body with names in the place of ``$model``, ``$dataset`` and so on."""
    if isinstance(value, dict):
        return {key: filled(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, names) for each in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\$(\w+)", lambda found: names.get(found[1], found[0]), value)


def asked(client, method, path, names):
    """Ask an operation about what has some names."""
    kind = "dataset" if path.startswith("/v1/datasets") else "job"
    parts = {"id": names[kind], "name": names["model"], "model": names["model"]}
    parts |= {"version": "1", "alias": "champion", "number": "0"}
    parts |= {"plot": "loss"}
    key = path if method == "POST" else f"{method} {path}"
    assert method != "POST" or key in BODIES, f"say in BODIES how {key} is asked"
    body = filled(BODIES.get(key), names)
    headers = {"if-match": "*"} if "/aliases/" in path else {}
    return client.request(
        method,
        path.format(**parts),
        json=body,
        headers=headers,
        params={"wait": 0} if path == "/v1/jobs/{id}" else None,
    )


def told(response, names):
    """A refusal without what differs from one request to the next."""
    text = response.text
    for name in names.values():
        text = text.replace(name, "NAME")
    return response.status_code, re.sub(r"req_\w+", "", text)


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_what_is_another_project_s_is_as_if_it_were_not_there(
    world, method, path
) -> None:
    before = world.state()
    found = asked(world.theirs, method, path, world.there)
    if path.startswith("/umbridge"):
        assert found.json()["error"]["type"] == "ModelNotFound"
    else:
        assert found.status_code == 404, found.text
    missing = asked(world.theirs, method, path, NOWHERE)
    assert told(found, world.there) == told(missing, NOWHERE)
    assert world.state() == before


@pytest.mark.parametrize(("method", "path"), list(filter(changes_nothing, ADDRESSES)))
def test_the_same_request_finds_what_is_one_s_own(world, method, path) -> None:
    """Else the test above would be of requests that nobody is answered."""
    response = asked(world.ours, method, path, world.there)
    # The job has no result yet.
    assert response.status_code == (409 if "/result" in path else 200), response.text


@pytest.mark.parametrize("operation", sorted(LISTS))
def test_lists_hold_what_is_one_s_own_alone(world, operation) -> None:
    method, path = operation.split()
    world.ours.post("/v1/rollout", json=filled(ROLLOUT, world.there))
    ours, theirs = (
        client.request(method, path, json={} if method == "POST" else None).text
        for client in (world.ours, world.theirs)
    )
    assert any(name in ours for name in world.there.values()), ours
    assert not any(name in theirs for name in world.there.values()), theirs
    assert "small" not in theirs


def test_every_field_that_names_something_is_tried() -> None:
    """A new kind of job, or a new reference in one, fails here until it is in JOBS."""
    schemas = create_app(Settings(data_folder="/nonexistent")).openapi()["components"]
    named = {
        (schema["properties"]["kind"]["const"], field)
        for schema in schemas["schemas"].values()
        if "const" in schema.get("properties", {}).get("kind", {})
        for field in schema["properties"]
        if field in ("dataset", "model", "models", "warm_start", "candidates", "base")
    }
    # The name of what a training makes; who has it already is another test.
    made = {("training", "model"), ("sweep", "model")}
    foreign = {
        (job["kind"], field)
        for job in JOBS
        for field, value in job.items()
        if re.search(r"\$(model|dataset|foreign)", str(value))
    }
    assert len(named) > 8
    assert named - made - foreign == set()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job["kind"])
def test_no_job_uses_what_is_another_project_s(world, job) -> None:
    names = {"own": world.own, "foreign": "small"}
    answers = [
        (world.theirs.post("/v1/jobs", json=filled(job, names | each)), each)
        for each in (world.there, NOWHERE | {"foreign": "nothing"})
    ]
    found, missing = (told(response, each) for response, each in answers)
    assert found[0] in (404, 422), found
    assert "not_found" in found[1]
    assert found[1].replace("small", "NAME") == missing[1].replace("nothing", "NAME")


def test_a_name_of_another_project_is_taken(world) -> None:
    """All that a key learns of others: which names of models are not free."""
    for body in (
        {"kind": "training", "dataset": world.own, "model": "small"},
        {
            **{"kind": "sweep", "dataset": world.own, "model": "small"},
            "grid": {"seed": [0, 1]},
        },
    ):
        answer = world.theirs.post("/v1/jobs", json=body)
        problem = checked(answer, 409, "model_name_taken")
        assert "choose another" in problem["detail"]
    artifact = world.ours.get("/v1/models/small/versions/1/artifact").content
    upload = "/v1/models/small/versions"
    checked(world.theirs.post(upload, content=artifact), 409, "model_name_taken")
    made = world.theirs.post("/v1/models/theirs/versions", content=artifact)
    assert made.status_code == 201, made.text
    assert world.theirs.get("/v1/models/theirs").json()["project"] == "theirs"
    checked(world.ours.get("/v1/models/theirs"), 404, "not_found")


def test_an_idempotency_key_is_its_caller_s_own(world) -> None:
    headers = {"idempotency-key": '"the-same"'}
    body = {"kind": "training", "model": "own", "dataset": world.dataset}
    mine = world.ours.post("/v1/jobs", json=body, headers=headers).json()
    body["dataset"] = world.own
    other = world.theirs.post("/v1/jobs", json=body, headers=headers).json()
    assert mine["id"] != other["id"]
    assert (mine["project"], other["project"]) == ("default", "theirs")


def test_an_administrator_sees_every_project(world, client) -> None:
    for id in (world.dataset, world.own):
        assert client.get(f"/v1/datasets/{id}").status_code == 200
    listed = client.get("/v1/datasets").json()["data"]
    assert {"default", "theirs"} <= {each["project"] for each in listed}


def test_keys_are_for_administrators(world) -> None:
    for method, path in OPERATIONS:
        if FOR_ADMINS.match(path):
            response = world.theirs.request(method, path.format(id="x"), json={})
            checked(response, 403, "forbidden")
