"""The callers of the fault command: when they are done."""

import http.server
import json
import threading

import pytest

from deploy.chaos.submissions import Submission
from deploy.chaos.workload import Workload


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
