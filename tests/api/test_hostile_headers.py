"""Tricks with the head of a request end with it: nothing is smuggled past the key."""

import contextlib
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

import psutil
import pytest

from api.heads import MAX_HEAD_BYTES

LINE = "GET /v1/models HTTP/1.1"
FEWER = f"found more than {MAX_HEAD_BYTES} bytes of headers; expected fewer"
SMUGGLED = "GET /v1/limits HTTP/1.1\r\nHost: x\r\nX-Request-Id: smuggled\r\n\r\n"
EMPTY_CHUNK = "0\r\n\r\n"


class Door:
    """A gateway as whoever writes bytes sees it."""

    def __init__(self, deployment) -> None:
        self.port = urlsplit(deployment.url).port
        self.key = f"X-API-Key: {deployment.key}"

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ask(self, *lines: str, body: str = "") -> bytes:
        """What comes back until the connection ends, which the request asks for."""
        with self.connected() as one:
            one.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1"))
            return everything(one)

    def get(self, *headers: str, line: str = LINE, key: bool = True) -> bytes:
        keys = (self.key,) if key else ()
        return self.ask(line, "Host: x", *keys, "Connection: close", *headers)

    def post(self, *headers: str, body: str) -> bytes:
        kind = "Content-Type: application/json"
        line = "POST /v1/jobs HTTP/1.1"
        return self.ask(line, "Host: x", self.key, kind, *headers, body=body)


def everything(one: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := one.recv(65536):
            parts.append(part)
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def door(deployment, client):
    yield Door(deployment)
    assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (("Content-Length: 2", "Content-Length: 2"), "{}"),
        (("Content-Length: 2", f"Content-Length: {2 + len(SMUGGLED)}"), "{}"),
        (("Content-Length: 2, 2",), "{}"),
        (("Content-Length: +2",), "{}"),
        (("Content-Length: -2",), "{}"),
        (("Content-Length: 0x2",), "{}"),
        ((f"Content-Length: {'9' * 5000}",), "{}"),
        (("Content-Length: 5", "Transfer-Encoding: chunked"), EMPTY_CHUNK),
        (("Transfer-Encoding: chunked", "Content-Length: 5"), EMPTY_CHUNK),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), EMPTY_CHUNK),
        (("Transfer-Encoding: chunked, identity",), EMPTY_CHUNK),
        (("Transfer-Encoding: xchunked",), EMPTY_CHUNK),
        (("Transfer-Encoding : chunked",), EMPTY_CHUNK),
        (("Transfer-Encoding: chunked",), f"{'F' * 17}\r\n{{}}\r\n{EMPTY_CHUNK}"),
        (("Transfer-Encoding: chunked",), f"-2\r\n{{}}\r\n{EMPTY_CHUNK}"),
        (("Transfer-Encoding: chunked",), "2\n{}\n0\n\n"),
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(door, headers, body) -> None:
    answer = door.post(*headers, body=body + SMUGGLED)
    # One answer, and the connection with whatever follows is gone.
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in answer


@pytest.mark.parametrize(
    "header",
    [
        "X-A: b\r\n c",
        "X-A: b\r\n\tc",
        "X-A: b\nX-B: c",
        "X-A: b\rX-B: c",
        "X-A: b\0c",
        "X-A\0: b",
        "X A: b",
        "X-\xe9: b",
        ": b",
        "no colon",
        "Idempotency-Key: a\r\n b",
    ],
)
def test_a_header_with_a_newline_or_another_control_is_refused(door, header) -> None:
    assert status_of(door.get(header)) == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        # An address in full is the same as its path, whoever it names.
        ("GET http://evil.example/v1/models HTTP/1.1", 200),
        ("GET http://u:p@evil.example/v1/models HTTP/1.1", 200),
        ("GET http://evil.example:99999/v1/models HTTP/1.1", 400),
        ("GET //evil.example/v1/models HTTP/1.1", 404),
        ("GET /v1/../v1/models HTTP/1.1", 404),
        ("GET /v1/models\xff HTTP/1.1", 400),
        ("GET /v1/models HTTP/3.7", 400),
        ("PRI * HTTP/2.0", 400),
        ("CONNECT evil.example:443 HTTP/1.1", 400),
        ("BREW /v1/models HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 404),
    ],
)
def test_a_strange_request_line_leads_nowhere_else(door, line, status) -> None:
    answer = door.get(line=line)
    assert status_of(answer) == status
    assert b"evil.example:443" not in answer


@pytest.mark.parametrize("line", [LINE, "GET http://127.0.0.1/v1/models HTTP/1.1"])
@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1;host=localhost",
        "X-Real-IP: 127.0.0.1",
        "X-Original-URL: /health/live",
        "X-Rewrite-URL: /health/live",
        "X-HTTP-Method-Override: OPTIONS",
        "Authorization: Basic \xe9\xff",
        "Authorization: Bearer \xe9\xff",
        "Authorization: Digest a",
        "X-API-Key: \xe9\xff",
    ],
)
def test_no_header_of_a_proxy_stands_for_a_key(door, line, header) -> None:
    assert status_of(door.get(header, line=line, key=False)) == 401


@pytest.mark.parametrize(
    "host", ["evil.example", 'x"><script>alert(1)</script>', "", "a b"]
)
def test_no_host_gets_into_an_answer(door, host) -> None:
    forwarded = ("X-Forwarded-Host: evil.example", "X-Forwarded-Proto: gopher")
    for path, status in (("/docs", 307), ("/v1/models/", 404), ("/openapi.json", 200)):
        line = f"GET {path} HTTP/1.1"
        answer = door.ask(
            line, f"Host: {host}", *forwarded, door.key, "Connection: close"
        )
        assert status_of(answer) == status
        for word in (b"evil.example", b"alert(1)", b"gopher"):
            assert word not in answer


def test_an_upgrade_is_an_ordinary_request(door) -> None:
    for protocol in ("websocket", "h2c"):
        headers = ("Connection: Upgrade, close", f"Upgrade: {protocol}")
        answer = door.ask(LINE, "Host: x", door.key, *headers)
        assert status_of(answer) == 200


def test_thousands_of_headers_are_read(door) -> None:
    assert status_of(door.get(*(f"X-{k}: 1" for k in range(4000)))) == 200


@pytest.mark.parametrize(
    "beginning",
    ["GET /", f"{LINE}\r\nX-A: ", f"{LINE}\r\n" + "X-A: b\r\n" * 100],
    ids=["line", "header", "headers"],
)
def test_a_head_that_grows_is_refused_without_a_key(door, beginning) -> None:
    with door.connected() as one:
        one.sendall(beginning.encode())
        one.sendall(b"a" * (MAX_HEAD_BYTES - 10_000))
        time.sleep(0.3)
        one.sendall(b"a" * 20_000)
        answer = everything(one)
    assert status_of(answer) == 431
    assert b"application/problem+json" in answer


FORMS = {
    "umbridge": {"error": {"type": "head_too_large", "message": FEWER}},
    "v2": {"error": FEWER},
    "tesseract": {"detail": FEWER},
}


def grown(one: socket.socket, beginning: str, part: str = "a") -> tuple[str, dict]:
    """Type and content of the answer to a head that begins like this and goes on."""
    one.sendall(beginning.encode() + part.encode() * (MAX_HEAD_BYTES - 10_000))
    time.sleep(0.3)
    one.sendall(part.encode() * 20_000)
    answer = everything(one)
    assert status_of(answer) == 431
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ") for line in head.lower().split(b"\r\n")[1:])
    assert int(fields[b"content-length"]) == len(body)
    assert fields[b"connection"] == b"close"
    return fields[b"content-type"].decode(), json.loads(body)


@pytest.mark.parametrize(
    ("target", "form"),
    [
        ("/umbridge/Evaluate HTTP/1.1\r\nX-A: ", "umbridge"),
        ("/umbridge HTTP/1.1\r\nX-A: ", "umbridge"),
        ("http://x/umbridge/Info HTTP/1.1\r\nX-A: ", "umbridge"),
        ("/v2/models/m/infer HTTP/1.1\r\nX-A: ", "v2"),
        ("/%76%32/models/m/infer HTTP/1.1\r\nX-A: ", "v2"),
        ("/v2?", "v2"),
        ("/tesseract/m/3/apply HTTP/1.1\r\nX-A: ", "tesseract"),
        ("/tesseract/", "tesseract"),
    ],
)
def test_a_door_refuses_a_head_that_grows_in_its_own_form(door, target, form) -> None:
    with door.connected() as one:
        assert grown(one, f"POST {target}") == ("application/json", FORMS[form])


@pytest.mark.parametrize(
    "beginning",
    [
        *("GET /v2", "GET /umbridges/"),
        "GET /v1/models?/v2/ HTTP/1.1\r\nX-A: ",
    ],
)
def test_elsewhere_it_is_a_problem(door, beginning) -> None:
    with door.connected() as one:
        kind, found = grown(one, beginning)
    assert kind == "application/problem+json"
    assert (found["code"], found["detail"]) == ("head_too_large", FEWER)


def test_the_form_is_that_of_the_last_request(door) -> None:
    def ask(one: socket.socket, path: str) -> None:
        head = (f"GET {path} HTTP/1.1", "Host: x", door.key)
        one.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        with one.makefile("rb") as answer:
            assert answer.readline().split()[1] == b"200"
            length = http.client.parse_headers(answer)["content-length"]
            answer.read(int(length or 0))

    for first, begun, kind in (
        ("/v1/presets", "POST /v2/models/m/infer HTTP/1.1\r\nX-A: ", "json"),
        ("/v2", "GET /v1/models HTTP/1.1\r\nX-A: ", "problem+json"),
    ):
        with door.connected() as one:
            ask(one, first)
            assert grown(one, begun)[0] == f"application/{kind}"
    # Of what comes before a request nobody knows where it leads.
    with door.connected() as one:
        ask(one, "/v2")
        assert grown(one, "", "\n")[0] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/umbridge/Evaluate", lambda content: content["error"]["message"]),
        ("/v2/models/m/infer", lambda content: content["error"]),
        ("/tesseract/m/3/apply", lambda content: content["detail"]),
        ("/v1/rollout", lambda content: content["detail"]),
    ],
)
@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (("no colon",), ""),
        (("Host: x", "Transfer-Encoding: chunked"), f"-2\r\n{{}}\r\n{EMPTY_CHUNK}"),
    ],
    ids=["head", "body"],
)
def test_what_is_no_http_is_refused_in_the_form_of_the_door(
    door, lines, body, path, place
) -> None:
    answer = door.ask(f"POST {path} HTTP/1.1", door.key, *lines, body=body)
    assert status_of(answer) == 400
    content = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert place(content).startswith("found bytes that are no HTTP request")
    is_problem = b"content-type: application/problem+json" in answer
    assert is_problem == (path == "/v1/rollout") == ("code" in content)


def test_what_ends_with_its_head_is_counted(door) -> None:
    def counted(code: str) -> float:
        answer = door.get(line="GET /metrics HTTP/1.1").decode()
        name = f'spnode_problems_total{{code="{code}"}} '
        found = [line for line in answer.splitlines() if line.startswith(name)]
        return float(found[0].removeprefix(name)) if found else 0.0

    before = counted("head_too_large"), counted("bad_request")
    with door.connected() as one:
        grown(one, "GET /v1/models HTTP/1.1\r\nX-A: ")
    door.get("no colon")
    after = counted("head_too_large"), counted("bad_request")
    assert after == (before[0] + 1, before[1] + 1)


def test_trailers_that_grow_end_the_connection(door) -> None:
    chunked = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    head = "\r\n".join(("POST /v1/jobs HTTP/1.1", "Host: x", door.key, *chunked))
    assert ends(door, f"{head}\r\n\r\n2\r\n{{}}\r\n0\r\nX-A: ")


def test_a_flood_of_one_header_costs_neither_time_nor_memory(door, deployment) -> None:
    gateway = psutil.Process(deployment.processes["gateway"].pid)
    before, spent = gateway.memory_info().rss, sum(gateway.cpu_times()[:2])
    assert ends(door, f"{LINE}\r\nX-A: ", megabytes=100)
    # Unbounded it were 150 MB and 70 s.
    assert gateway.memory_info().rss - before < 30 * 2**20
    assert sum(gateway.cpu_times()[:2]) - spent < 10


def ends(door, beginning: str, megabytes: int = 10) -> bool:
    """Whether the gateway closes a connection that goes on and on."""
    with door.connected() as one:
        one.sendall(beginning.encode())
        try:
            for _ in range(megabytes):
                one.sendall(b"a" * 2**20)
        except (BrokenPipeError, ConnectionResetError):
            return True
    return False
