import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.api.deployment import deployed, wait_for
from tests.api.test_errors import NPZ, checked, npz, trajectories

MADE = {"kind": "dataset", "system": "transient_growth", "trajectories": 2, "seed": 0}


@pytest.fixture(scope="module")
def quiet():
    """A gateway without models and, until ``worker``, without workers."""
    with deployed() as deployment:
        yield deployment.start_gateway()


@pytest.fixture(scope="module")
def client(quiet):
    with quiet.client() as client:
        yield client


@pytest.fixture(scope="module")
def worker(quiet):
    """A worker that takes the jobs from now on."""
    return quiet.start("worker", "worker")


def submit(client, body=MADE, path="/v1/jobs", **headers):
    response = client.post(path, json=body, headers=headers)
    assert response.status_code == 202, response.text
    return response


def lines_of(client, job, **headers):
    url = f"/v1/jobs/{job}/events"
    with client.stream("GET", url, headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from response.iter_lines()


def events_of(client, job, **headers):
    """(id, kind, data) of every event until the stream ends."""
    found, event = [], {}
    for line in lines_of(client, job, **headers):
        name, _, value = line.partition(": ")
        if line:
            event[name] = value
        elif "id" in event:
            found.append((int(event["id"]), event["event"], json.loads(event["data"])))
            event = {}
    return found


def test_a_job_is_accepted_and_says_where_it_is(client):
    response = submit(client)
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert float(response.headers["retry-after"]) > 0
    assert job["state"] == "queued"
    found = client.get(response.headers["location"])
    assert found.json()["id"] == job["id"]
    assert float(found.headers["retry-after"]) > 0


def test_the_short_form_queues_too(client):
    assert submit(client, path="/jobs").json()["kind"] == "dataset"


@pytest.mark.parametrize("key", ["3f0c-1", '"3f0c-2"'])
def test_an_idempotency_key_returns_the_first_job(client, key):
    first = submit(client, **{"idempotency-key": key})
    again = submit(client, **{"idempotency-key": key})
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    other = client.post(
        "/v1/jobs", json={**MADE, "seed": 1}, headers={"idempotency-key": key}
    )
    checked(other, 422, "idempotency_key_reused")


def test_an_idempotency_key_that_is_none_is_refused(client):
    response = client.post("/v1/jobs", json=MADE, headers={"idempotency-key": '""'})
    checked(response, 422, "invalid", "/Idempotency-Key")


def test_validate_only_queues_nothing(client):
    before = client.get("/v1/jobs").json()
    response = client.post("/v1/jobs?validate_only=true", json=MADE)
    assert response.status_code == 200
    assert response.json() == {"valid": True, "request": MADE}
    assert client.get("/v1/jobs").json() == before


def test_what_needs_no_data_is_refused_before_the_dataset_is_looked_for(client):
    """So that the command line asks before it sends a file."""
    job = {"kind": "training", "dataset": f"ds_{'0' * 26}", "model": "m"}
    wrong = {**job, "training": {"learning_rate": -1}}
    for asked, code, place in (
        (wrong, "invalid", "/training/learning_rate"),
        ({**job, "sed": 1}, "invalid", "/sed"),
        (job, "dataset_not_found", "/dataset"),
    ):
        response = client.post("/v1/jobs?validate_only=true", json=asked)
        checked(response, 422, code, place)


def test_a_queued_job_is_cancelled_at_once_and_its_events_end(client):
    job = submit(client).json()["id"]
    cancelled = client.post(f"/v1/jobs/{job}/cancel")
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] == "cancelled"
    events = events_of(client, job)
    states = [data["data"]["state"] for _, kind, data in events if kind == "status"]
    assert states == ["queued", "cancelled"]
    rest = events_of(client, job, **{"last-event-id": str(events[0][0])})
    assert rest == events[1:]
    assert events_of(client, job, **{"last-event-id": str(events[-1][0])}) == []
    wrong = client.get(f"/v1/jobs/{job}/events", headers={"last-event-id": "yesterday"})
    checked(wrong, 422, "invalid", "/Last-Event-ID")


def test_waiting_is_bounded_and_ends_with_the_job(client):
    job = submit(client).json()["id"]
    began = time.monotonic()
    assert client.get(f"/v1/jobs/{job}?wait=0.6").json()["state"] == "queued"
    assert 0.5 < time.monotonic() - began < 5
    timer = threading.Timer(0.5, lambda: client.post(f"/v1/jobs/{job}/cancel"))
    timer.start()
    began = time.monotonic()
    assert client.get(f"/v1/jobs/{job}?wait=30").json()["state"] == "cancelled"
    assert time.monotonic() - began < 10
    checked(client.get(f"/v1/jobs/{job}?wait=1e9"), 422, "invalid", "/wait")


def test_a_poller_that_knows_the_state_gets_no_body(client):
    job = submit(client).json()["id"]
    etag = client.get(f"/v1/jobs/{job}").headers["etag"]
    same = client.get(f"/v1/jobs/{job}", headers={"if-none-match": etag})
    assert same.status_code == 304
    client.post(f"/v1/jobs/{job}/cancel")
    changed = client.get(f"/v1/jobs/{job}", headers={"if-none-match": etag})
    assert changed.json()["state"] == "cancelled"
    # The same state of the same attempt, but not the same end.
    etag = changed.headers["etag"]
    client.post(f"/v1/jobs/{job}/retry")
    again = client.post(f"/v1/jobs/{job}/cancel").json()
    later = client.get(f"/v1/jobs/{job}", headers={"if-none-match": etag})
    assert later.status_code == 200
    assert later.json() == again
    assert again["finished_at"] != changed.json()["finished_at"]


def test_pages_follow_each_other_without_gap_or_repetition(client):
    made = [submit(client).json()["id"] for _ in range(5)]
    found, after = [], None
    while True:
        query = {"limit": 2, **({"after": after} if after else {})}
        page = client.get("/v1/jobs", params=query).json()
        found += [job["id"] for job in page["data"]]
        after = page["next"]
        if after is None:
            break
    assert len(found) == len(set(found))
    assert found[:5] == made[::-1]


def test_a_job_that_has_not_ended_badly_cannot_be_retried(client):
    job = submit(client).json()["id"]
    checked(client.post(f"/v1/jobs/{job}/retry"), 409, "job_not_retriable")
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.post(f"/v1/jobs/{job}/retry").json()["state"] == "queued"


def test_a_dataset_is_uploaded_looked_at_downloaded_and_deleted(client):
    arrays = trajectories(count=5)
    content = npz(**arrays, names=np.array(["u", "v"]))
    response = client.post("/v1/datasets?name=mine", content=content, headers=NPZ)
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert dataset["name"] == "mine"
    assert list(dataset["summary"]["states"]) == ["u", "v"]
    assert dataset["summary"]["trajectories"] == 5
    path = response.headers["location"]
    assert client.get(path).json() == dataset
    assert dataset["id"] in [
        each["id"] for each in client.get("/v1/datasets").json()["data"]
    ]
    data = client.get(f"{path}/data")
    assert data.headers["content-type"] == "application/x-npz"
    with np.load(io.BytesIO(data.content), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["states"], arrays["states"])
    known = client.get(f"{path}/data", headers={"if-none-match": data.headers["etag"]})
    assert known.status_code == 304
    assert client.delete(path).status_code == 204
    checked(client.get(path), 404, "not_found")


def test_a_table_is_the_dataset_that_its_npz_file_is(client):
    arrays = trajectories(count=3)
    states, times = (
        arrays["states"],
        np.broadcast_to(arrays["times"], arrays["states"].shape[:2]),
    )
    rows = [
        ",".join(map(repr, [i, times[i, k].item(), *states[i, k].tolist()]))
        for i, k in np.ndindex(*times.shape)
    ]
    table = "\n".join(["trajectory,time,x1,x2", *rows])
    headers = {"content-type": "text/csv"}
    first = client.post("/v1/datasets", content=npz(**arrays), headers=NPZ).json()
    second = client.post("/v1/datasets", content=table, headers=headers).json()
    assert second["digest"] == first["digest"]
    lines = table.splitlines()
    lines[4] = "0,99.0,cold,1.0"
    response = client.post("/v1/datasets", content="\n".join(lines), headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/row/4/column/x1"


def test_a_dataset_that_a_job_needs_is_kept(client):
    content = npz(**trajectories(count=20))
    dataset = client.post("/v1/datasets", content=content, headers=NPZ).json()["id"]
    body = {"kind": "training", "dataset": dataset, "model": "mine"}
    job = submit(client, body).json()
    assert job["request"]["dataset"] == dataset
    response = client.delete(f"/v1/datasets/{dataset}")
    checked(response, 409, "dataset_in_use")
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 204


def test_a_made_dataset_comes_with_its_events(client, worker):
    response = client.post("/v1/datasets", json={**MADE, "seed": 5})
    assert response.status_code == 202
    job = response.json()["id"]
    listeners = [[] for _ in range(3)]
    threads = [
        threading.Thread(
            target=lambda found=found: found.extend(events_of(client, job))
        )
        for found in listeners
    ]
    for thread in threads:
        thread.start()
    ended = client.get(f"/v1/jobs/{job}?wait=60").json()
    assert ended["state"] == "succeeded", ended
    for thread in threads:
        thread.join(20)
    assert listeners[0] == listeners[1] == listeners[2]
    ids = [id for id, _, _ in listeners[0]]
    assert ids == sorted(set(ids))
    assert listeners[0][-1][2]["data"]["state"] == "succeeded"
    dataset = client.get(f"/v1/datasets/{ended['result']['dataset']}").json()
    assert dataset["summary"]["trajectories"] == 2
    assert client.get(f"/v1/jobs/{job}/history").json() == {"data": []}
    checked(client.post(f"/v1/jobs/{job}/cancel"), 409, "job_succeeded")


def test_readiness_names_the_workers(client, worker):
    def named():
        return client.get("/health/ready").json()["workers"]["training"] == 1

    wait_for(named, 30)


@pytest.fixture(scope="module")
def idle():
    """A gateway that no worker belongs to, and what it runs on."""
    with deployed() as data:
        yield data, data.start_gateway()


def test_a_key_that_is_revoked_hears_no_more(idle):
    _, gateway = idle
    with gateway.client() as client:
        job = submit(client).json()["id"]
        key = client.post("/v1/keys", json={"name": "ear", "scopes": ["read"]}).json()
        with gateway.client(key["secret"]) as ear:
            lines = lines_of(ear, job)
            assert next(lines) == "id: 1"
            with ThreadPoolExecutor(1) as threads:
                waiting = threads.submit(ear.get, f"/v1/jobs/{job}?wait=50")
                time.sleep(0.5)
                client.delete(f"/v1/keys/{key['id']}")
                began = time.monotonic()
                checked(waiting.result(), 401, "unauthorised")
            assert [line for line in lines if line.startswith("id:")] == []
            assert time.monotonic() - began < 10, "not at the next keep-alive"
        lines = lines_of(client, job)
        assert next(lines) == "id: 1"
        time.sleep(2.0)
        client.post(f"/v1/jobs/{job}/cancel")
        assert '"cancelled"' in "".join(lines), "others hear on"


def test_a_gateway_that_stops_ends_its_streams_and_waits(idle):
    data, quiet = idle
    with quiet.client() as client:
        job = submit(client).json()["id"]
        found = []
        listening = threading.Thread(
            target=lambda: found.extend(events_of(client, job))
        )
        listening.start()
        waiting = threading.Thread(
            target=lambda: found.append(client.get(f"/v1/jobs/{job}?wait=50"))
        )
        waiting.start()
        time.sleep(1.0)
        began = time.monotonic()
        assert data.stop("gateway") == 0
        assert time.monotonic() - began < 6
        listening.join(5)
        waiting.join(5)
    assert len(found) == 2


def test_a_job_says_where_it_stands_in_its_queue(client) -> None:
    schedule = {"priority": 2, "deadline_seconds": 3600.0}
    job = submit(client, {**MADE, "schedule": schedule}).json()
    assert (job["queue"], job["priority"]) == ("datasets", 2)
    assert job["deadline"] > job["created_at"]
    assert job["request"]["schedule"] == schedule
    plain = submit(client).json()
    assert (plain["priority"], plain["deadline"]) == (0, None)
    for each in (job, plain):
        client.post(f"/v1/jobs/{each['id']}/cancel")


def test_only_an_administrator_goes_before_others(quiet) -> None:
    with quiet.client(quiet.new_key("read", "jobs:write")) as client:
        body = {**MADE, "schedule": {"priority": 1}}
        refused = client.post("/v1/jobs", json=body)
        checked(refused, 403, "forbidden")
        assert "/schedule/priority" in refused.json()["detail"]
        with quiet.client(quiet.new_key("datasets:write")) as other:
            made = {name: MADE[name] for name in MADE if name != "kind"}
            body = {**made, "schedule": {"priority": 1}}
            checked(other.post("/v1/datasets", json=body), 403, "forbidden")
        behind = submit(client, {**MADE, "schedule": {"priority": -1}}).json()
        client.post(f"/v1/jobs/{behind['id']}/cancel")


@pytest.mark.parametrize("kind", ["training", "sweep"])
def test_an_alias_is_moved_by_who_may_move_it(quiet, kind) -> None:
    with quiet.client(quiet.new_key("read", "jobs:write")) as client:
        grid = {"grid": {"seed": [0, 1]}} if kind == "sweep" else {}
        body = {"kind": kind, "dataset": "ds_" + "0" * 26}
        body |= {"model": "m", "alias": "champion"}
        refused = client.post("/v1/jobs", json={**body, **grid})
        checked(refused, 403, "forbidden")
        assert "/alias" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("schedule", "place"),
    [
        ({"priority": 11}, "/schedule/priority"),
        ({"deadline_seconds": 0}, "/schedule/deadline_seconds"),
        ({"deadline_seconds": True}, "/schedule/deadline_seconds"),
        ({"device": "tpu"}, "/schedule/device"),
        ({"device": "gpu"}, "/schedule"),
        ({"nice": 1}, "/schedule/nice"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(client, schedule, place) -> None:
    refused = client.post("/v1/jobs", json={**MADE, "schedule": schedule})
    problem = checked(refused, 422, "invalid")
    assert [each["pointer"] for each in problem["errors"]] == [place]
