"""The callers of the fault command: when they are done."""

import http.server
import json
import threading

import numpy as np
import pytest

from deploy.chaos.passing import ALIAS, MODEL, Passing
from deploy.chaos.submissions import Submission
from deploy.chaos.workload import Workload
from spnode_client import Client
from tests.api.deployment import deployed


class Service(http.server.BaseHTTPRequestHandler):
    """Has one job, which is cancelled until it is retried."""

    state = "cancelled"

    def do_GET(self) -> None:
        body = json.dumps({"id": "job_1", "state": Service.state}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        Service.state = "succeeded"
        self.do_GET()

    def log_message(self, format, *args) -> None:
        pass


@pytest.fixture
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_job_that_is_to_be_retried_has_not_ended_when_it_is_cancelled(url, tmp_path):
    workload = Workload([url], "key", 0, tmp_path)
    made = Submission({}, "key", "job_1", "asked", "running", "asked")
    workload.submissions.append(made)
    workload.settle(20)
    workload.close()
    assert (made.retry, made.state) == ("taken", "succeeded")
    assert workload.tally.wrong == []


def test_versions_come_and_go_and_the_alias_always_has_one(tmp_path) -> None:
    with deployed(["small"]) as data:
        gateway = data.start_gateway()
        with Client(gateway.url, gateway.key) as client:
            artifact = client.models.download("small/1", tmp_path / "small.spnode")
            versions = Passing(artifact, tmp_path)
            name, start = f"{MODEL}@{ALIAS}", [[0.5, 1e-5, 0.5]]
            expected = client.rollout("small/1", start, [1.0])
            digests = set()
            for number in range(1, 5):
                versions.step(client)
                (left,) = client.models.versions(MODEL)
                assert left.number == number
                digests.add(left.record["digest"])
                np.testing.assert_array_equal(
                    client.rollout(name, start, [1.0]), expected
                )
            assert len(digests) == 3
        store = data.settings.data_folder / "store" / "artifacts"
        kept = {each.name for each in store.iterdir()}
        assert len(kept & digests) == 1, "the others are deleted with their versions"
