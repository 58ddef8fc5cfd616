"""Following a job: its log, and a gateway that goes away meanwhile."""

import http.server
import json
import threading
import time

import pytest

from spnode_client import Client, terminal

RUNNING = {
    "id": "job_1",
    "state": "running",
    "kind": "unheard_of",
    "progress": {"stage": "optimise", "iteration": 3, "iterations": 9, "seconds": 1.0},
}
DONE = {**RUNNING, "state": "succeeded", "result": {"fine": True}}
CHOICES = [
    {"what": "latent", "value": 4, "why": "four singular values"},
    {"what": "surrogate.linear", "value": {"kind": "modal"}, "why": "[stiff]"},
]
LOG = {"message": "preset auto chose 2 settings", "data": {"choices": CHOICES}}


class Gateway(http.server.ThreadingHTTPServer):
    """Says of its one job that it runs, then what its test made of it."""

    daemon_threads = True
    record = RUNNING
    is_stopped = False

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()

    def stop(self):
        self.is_stopped = True
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_stream = "/events" in self.path
        self.send_response(200)
        kind = "text/event-stream" if is_stream else "application/json"
        self.send_header("content-type", kind)
        self.end_headers()
        if not is_stream:
            self.wfile.write(json.dumps(self.server.record).encode())
            return
        if "last-event-id" not in self.headers:
            self.tell("status", {"data": {"state": "running"}}, "id: 1\n")
            self.tell("log", LOG, "id: 2\n")
        self.tell("progress", {"id": None, "data": self.server.record["progress"]})
        while not self.server.is_stopped:
            if (state := self.server.record["state"]) != "running":
                self.tell("status", {"data": {"state": state}}, "id: 3\n")
                return
            time.sleep(0.02)

    def tell(self, kind, data, id=""):
        self.wfile.write(f"{id}event: {kind}\ndata: {json.dumps(data)}\n\n".encode())

    def log_message(self, format, *args):
        pass


@pytest.fixture
def job():
    gateway = Gateway()
    with Client(f"http://127.0.0.1:{gateway.server_port}", retries=0) as client:
        # As that of the command line, which waits by itself.
        client.patience_s = 0.0
        yield client.jobs.get("job_1"), gateway
    gateway.stop()


def test_what_auto_chose_is_said_with_its_reasons(job, capsys):
    job, gateway = job
    gateway.record = DONE
    assert terminal.follow(job) == {"fine": True}
    said = capsys.readouterr().err
    assert "preset auto chose 2 settings\n    latent: 4 (four singular values)" in said
    assert 'surrogate.linear: {"kind": "modal"} ([stiff])' in said


@pytest.mark.parametrize(("count", "is_said"), [(0, True), (1, False)])
def test_a_job_that_nobody_takes_says_so(job, capsys, count, is_said):
    job, gateway = job
    gateway.record = {**DONE, "workers": {"training.gpu": count}}
    job.record = {**RUNNING, "state": "queued", "queue": "training.gpu"}
    terminal.follow(job)
    said = capsys.readouterr().err
    told = "no worker takes training.gpu now: it waits for one; without --gpu any"
    assert (told in said) is is_said


@pytest.mark.parametrize("quiet", [False, True])
def test_a_gateway_that_starts_anew_ends_nothing(job, capsys, quiet):
    job, gateway = job
    again = []

    def restart():
        time.sleep(0.3)
        gateway.stop()
        time.sleep(1.0)
        again.append(Gateway(gateway.server_port))
        again[0].record = DONE

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        assert terminal.follow(job, quiet=quiet) == {"fine": True}
    finally:
        thread.join()
        again[0].stop()
    said = capsys.readouterr()
    assert "trying again" in said.err
    assert said.out == ""
    assert ("optimise  3 of 9" in said.err) is not quiet


def test_one_that_stays_away_leaves_the_job_going_on(job, capsys, monkeypatch):
    job, gateway = job
    monkeypatch.setattr(terminal, "PATIENCE_S", 0.0)
    gateway.stop()
    with pytest.raises(SystemExit) as ended:
        terminal.follow(job)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "no events from http://127.0.0.1" in said
    assert "the job goes on" in said
    assert "jobs follow job_1" in said
    assert "jobs cancel job_1" in said
