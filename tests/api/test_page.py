"""The page's files, and what it asks for beside what every caller does."""

import io
import re
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.api.deployment import ROOT

WEB = ROOT / "api" / "web"


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/vendor/uPlot.min.js"])
def test_files_need_no_key_and_load_nothing_from_elsewhere(deployment, path):
    response = httpx.get(deployment.url + path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    again = {"if-none-match": response.headers["etag"]}
    assert httpx.get(deployment.url + path, headers=again).status_code == 304


@pytest.mark.parametrize(
    "path", ["/page/../auth.py", "/page/%2e%2e/auth.py", "/page/", "/page/nothing.js"]
)
def test_nothing_else_is_served(deployment, path):
    # httpx would resolve the dots itself.
    url = urlsplit(deployment.url)
    connection = HTTPConnection(url.hostname, url.port)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


def test_a_page_cannot_be_posted_to(deployment):
    assert httpx.post(deployment.url + "/").status_code in (401, 405)
    assert httpx.post(deployment.url + "/page/main.js").status_code in (401, 405)


def test_every_module_is_there_and_none_makes_markup_of_text():
    for path in WEB.glob("*.js"):
        text = path.read_text()
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert (WEB / name).is_file(), (path.name, name)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|eval\(", text)


def test_what_helps_a_failed_job_is_what_the_documentation_says():
    said = (ROOT / "docs" / "jobs.md").read_text().split("## Why a job failed")[1]
    rows = [line.split("|")[1:4] for line in said.splitlines() if line[:3] == "| `"]
    helped = {
        code
        for codes, _, helps in rows
        if helps.strip()
        for code in re.findall("`([a-z_]+)`", codes)
    }
    text = (WEB / "progress.js").read_text().split("HELPS = {")[1]
    assert set(re.findall(r"^  ([a-z_]+): ", text, re.MULTILINE)) == helped


@pytest.fixture(scope="module")
def dataset(client):
    states = np.cumsum(np.ones((3, 50, 2)), axis=1)
    states[1, 10, 0] = np.nan
    states[1, 30:] = np.nan
    controls = np.ones((3, 50, 1))
    # One change where no state was measured, one after the last of them.
    controls[1, 20:] = 2.0
    controls[1, 40:] = 3.0
    states[1, 20] = np.nan
    controls[2] = np.arange(50.0)[:, None]
    arrays = {
        "states": states,
        "times": np.arange(50.0) + 5.0,
        "mask": np.isfinite(states),
        "parameters": np.array([[1.0], [2.0], [3.0]]),
        "controls": controls,
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    sent = {"content-type": "application/x-npz"}
    response = client.post("/v1/datasets", content=file.getvalue(), headers=sent)
    return response.json()["id"]


def read(client, dataset, number, **query):
    return client.get(f"/v1/datasets/{dataset}/trajectories/{number}", params=query)


def test_a_trajectory_is_read_from_its_start_with_what_is_missing(client, dataset):
    found = read(client, dataset, 1).json()
    assert found["samples"] == 29
    assert found["times"] == [time for time in np.arange(30.0) if time != 20.0]
    assert found["states"][10] == [None, 11.0]
    assert found["parameters"] == [2.0]
    assert (found["control_times"], found["controls"]) == ([0.0, 20.0], [[1.0], [2.0]])
    assert found["names"] == ["x1", "x2"]
    assert (found["parameter_names"], found["control_names"]) == (["p1"], ["u1"])


def test_a_long_trajectory_is_thinned_to_its_ends(client, dataset):
    found = read(client, dataset, 2, samples=4).json()
    assert found["samples"] == 50
    assert found["times"] == [0.0, 16.0, 33.0, 49.0]
    assert (found["switches"], len(found["controls"])) == (50, 4)


@pytest.mark.parametrize(
    ("number", "query", "status"),
    [(3, {}, 404), (-1, {}, 422), (0, {"samples": 1}, 422)],
)
def test_a_trajectory_that_is_not_there_is_refused(
    client, dataset, number, query, status
):
    response = read(client, dataset, number, **query)
    assert response.status_code == status
    if status == 404:
        assert "numbered from 0 to 2" in response.json()["detail"]
