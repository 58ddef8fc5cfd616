"""However many uploads come, and however slowly, a gateway's disk is not filled."""

import asyncio
import contextlib
import gzip
import io
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.auth import Caller
from api.dependencies import Gateway
from api.heads import BoundedHeads
from api.held_bodies import HeldBodies
from api.middleware import MAX_DOCUMENT_BYTES
from api.uploads import UploadRoom
from services.errors import Overloaded, TooManyRequests
from services.settings import Settings
from tests.api.deployment import deployed, wait_for
from tests.api.serving import serving
from tests.api.test_errors import checked

MIB = 2**20
LARGEST, ROOM = 8 * MIB, 12 * MIB
PATHS = ("/v1/datasets", "/v1/models/m/versions", "/v1/jobs")
KINDS = {"/v1/models/m/versions": "application/zip"}


@pytest.fixture(scope="module")
def door():
    limits = {"max_upload_bytes": LARGEST, "upload_space_bytes": ROOM}
    with deployed(**limits) as made, serving(made.settings) as url:
        headers = {"x-api-key": made.key}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield client, made.settings


@pytest.fixture(scope="module")
def others(door):
    """Keys of three others."""
    client, _ = door
    asked = {"name": "other", "scopes": ["datasets:write"]}
    return [client.post("/v1/keys", json=asked).json()["secret"] for _ in range(3)]


def kind_of(path):
    return KINDS.get(path, "application/x-npz")


@contextlib.contextmanager
def slow_upload(client, path, length, kind=None, key=None):
    """An upload that claims its length, sends a little, and waits."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"X-API-Key: {key or client.headers['x-api-key']}",
        f"Content-Type: {kind or kind_of(path)}",
        "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
    )
    port = urlsplit(str(client.base_url)).port
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        one.sendall(b"5\r\nhello\r\n" if length is None else b"hello")
        yield one


def bodies(settings):
    return list((settings.data_folder / "work").glob("body-*/upload"))


def send(client, path, size):
    content = b"\0" * size
    return client.post(path, content=content, headers={"content-type": kind_of(path)})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [LARGEST, None], ids=["by length", "in chunks"])
def test_an_upload_beyond_the_room_is_told_to_come_later(door, others, path, length):
    client, settings = door
    with slow_upload(client, "/v1/datasets", length, key=others[0]):
        wait_for(lambda: len(bodies(settings)) == 1, 20)
        refused = send(client, path, ROOM - LARGEST + 1)
        checked(refused, 503, "overloaded")
        assert float(refused.headers["retry-after"]) > 0
        # What there is room for is read, and refused for what it is.
        assert send(client, path, ROOM - LARGEST).status_code == 422
        assert client.get("/v1/datasets").status_code == 200
    # Whoever goes gives the room back.
    wait_for(lambda: not bodies(settings), 20)
    wait_for(lambda: send(client, path, LARGEST).status_code == 422, 20)


def test_many_slow_uploads_take_no_more_than_the_room(door, others):
    client, settings = door
    size = LARGEST // 2
    with contextlib.ExitStack() as stack:
        for key in 4 * others:
            slow = slow_upload(client, "/v1/datasets", size, key=key)
            one = stack.enter_context(slow)
            with contextlib.suppress(ConnectionError):
                one.sendall(b"\0" * (size - 10))
        wait_for(lambda: sum(p.stat().st_size for p in bodies(settings)) > 2 * size, 20)
        time.sleep(0.5)
        held = [path.stat().st_size for path in bodies(settings)]
        assert len(held) == ROOM // size
        assert sum(held) <= ROOM
    wait_for(lambda: not bodies(settings), 20)


JSON_BYTES = 2 * MIB


@pytest.fixture(scope="module")
def small_door():
    limits = {"max_json_bytes": JSON_BYTES, "max_body_bytes": 4 * MIB}
    limits["body_space_bytes"] = 1
    with deployed(["small"], **limits) as made, serving(made.settings) as url:
        headers = {"x-api-key": made.key, "content-type": "application/json"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield client


ROLLOUT_PATHS = (
    "/v1/rollout",
    "/v1/objective",
    "/v2/models/m/infer",
    "/umbridge/Evaluate",
    "/tesseract/small/latest/apply",
)


@pytest.mark.parametrize("path", ROLLOUT_PATHS)
def test_json_of_rollouts_has_a_limit_of_its_own(small_door, path):
    body = b'{"model": "m", "x0": [' + b"0," * (JSON_BYTES // 2)
    refused = small_door.post(path, content=body)
    assert refused.status_code == 413, refused.text
    assert f"larger than {JSON_BYTES} bytes" in refused.text
    # npz of that size is read, and refused for what it is; elsewhere it is JSON still.
    kind = {"content-type": "application/x-npz"}
    answer = small_door.post(path, content=body, headers=kind)
    assert answer.status_code == (422 if path.startswith("/v1") else 413)
    # Tensors stand behind JSON at one door alone, and it is not taken at its word.
    said = {"inference-header-content-length": str(len(body))}
    assert small_door.post(path, content=body, headers=said).status_code == 413


def test_a_list_of_models_is_asked_for_in_few_bytes(small_door):
    said = {"inference-header-content-length": "1"}
    for headers in ({}, said):
        body = b"[" + b"[]," * MAX_DOCUMENT_BYTES + b"[]]"
        refused = small_door.post("/v2/repository/index", content=body, headers=headers)
        assert refused.status_code == 413, refused.text
        assert f"larger than {MAX_DOCUMENT_BYTES} bytes" in refused.text


def test_json_is_limited_after_it_was_unpacked(small_door):
    body = gzip.compress(b"[" + b"0," * (JSON_BYTES // 2))
    coding = {"content-encoding": "gzip"}
    path = "/v2/models/m/infer"
    refused = small_door.post(path, content=body, headers=coding)
    assert refused.status_code == 413, refused.text


@pytest.fixture
def held(monkeypatch):
    """Those of the gateway that is made next."""
    made = []

    class Noted(HeldBodies):
        def __init__(self, settings):
            super().__init__(settings)
            made.append(self)

    monkeypatch.setattr("api.app.HeldBodies", Noted)
    return made


def test_bodies_in_memory_take_no_more_than_their_room(held):
    limits = {"max_json_bytes": JSON_BYTES, "max_body_bytes": 4 * MIB}
    with deployed(["small"], **limits) as made:
        settings = made.settings.model_copy(update={"body_space_bytes": 1})
        with serving(settings) as url:
            headers = {"x-api-key": made.key, "content-type": "application/json"}
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                for path in ROLLOUT_PATHS:
                    _fill(client, path, held[0])


def _fill(client, path, held):
    # One JSON of the largest size fills it.
    with slow_upload(client, path, JSON_BYTES, "application/json") as one:
        one.sendall(b" " * (JSON_BYTES - 1000))
        wait_for(lambda: held.bytes > 20 * (JSON_BYTES - 2000 - 65536), 20)
        # What is small is served, and what is no rollout.
        assert client.post(path, content=b"{}").status_code in (400, 422)
        assert client.get("/v1/models").status_code == 200
        with contextlib.suppress(httpx.WriteError):  # it is closed amid the body
            refused = client.post(path, content=b" " * (JSON_BYTES // 4) + b"{}")
            assert refused.status_code == 503, refused.text
            assert refused.headers["retry-after"] == "5"
            assert "there is room for" in refused.text
    wait_for(lambda: held.bytes == 0, 20)


@pytest.mark.parametrize("path", ["/v1/jobs", "/jobs"])
def test_a_body_without_a_type_is_json(small_door, path):
    """Only npz is streamed to a file there; all else is read, and limited."""
    request = small_door.build_request("POST", path, content=b" " * (2 * MIB + 1))
    del request.headers["content-type"]
    refused = small_door.send(request)
    assert refused.status_code == 413, refused.text


def test_no_key_has_more_than_half_of_the_memory_for_bodies(tmp_path):
    limits = {"max_body_bytes": 20, "max_json_bytes": 1, "body_space_bytes": 100}
    held = HeldBodies(Settings(data_folder=tmp_path, **limits))
    large = 64 * 1024 + 50
    for caller in ("key:a", "key:b"):
        assert held.hold(caller, large, large, is_json=False) == 50
        with pytest.raises(HTTPException, match="of this key that take 50 bytes"):
            held.hold(caller, 1, large, is_json=False)
    with pytest.raises(HTTPException, match="answers that take 100 bytes"):
        held.check("key:c")
    held.release("key:a", 50)
    held.check("key:c")


def test_an_answer_that_nobody_reads_is_held_and_then_given_up(held, monkeypatch):
    monkeypatch.setattr(BoundedHeads, "patience_s", 2.0)
    states = [[0.5, 0.3, 0.2]] * 2000
    asked = {"model": "small@latest", "x0": states}
    asked["times"] = {"start": 0.0, "stop": 1.0, "count": 500, "spacing": "linear"}
    body = json.dumps(asked).encode()
    with deployed(["small"]) as made, serving(made.settings) as url:
        lines = (
            "POST /v1/rollout HTTP/1.1",
            "Host: x",
            f"X-API-Key: {made.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", urlsplit(url).port))
            one.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            wait_for(lambda: held[0].bytes > 2000 * 500 * 2, 60)
            wait_for(lambda: held[0].bytes == 0, 30)
            came = 0
            with contextlib.suppress(ConnectionError):
                while part := one.recv(65536):
                    came += len(part)
        # Whoever reads has all of it.
        key = {"x-api-key": made.key}
        answer = httpx.post(f"{url}/v1/rollout", json=asked, headers=key, timeout=60)
        assert len(answer.json()["x"]) == 2000
        assert came < len(answer.content)


def test_of_a_download_only_what_waits_to_be_sent_is_held(held, monkeypatch):
    peaks, keep = [], HeldBodies.keep

    def noted(self, caller, counted):
        keep(self, caller, counted)
        peaks.append(self.bytes)

    file = io.BytesIO()
    states = np.random.default_rng(0).random((10, 1000, 500))
    np.savez(file, states=states, times=np.arange(1000.0))
    limits = {"max_upload_bytes": 64 * MIB}
    with deployed(**limits) as made, serving(made.settings) as url:
        headers = {"x-api-key": made.key, "content-type": "application/x-npz"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            sent = client.post("/v1/datasets", content=file.getvalue())
            assert sent.status_code == 201, sent.text
            monkeypatch.setattr(HeldBodies, "keep", noted)
            got = client.get(f"/v1/datasets/{sent.json()['id']}/data")
    assert len(got.content) > 39 * MIB * 0.9
    assert len(peaks) > 1
    assert max(peaks) < len(got.content) / 2
    assert held[0].bytes == 0


def test_room_that_was_used_is_there_again(door):
    client, settings = door
    for _ in range(4):
        assert send(client, "/v1/datasets", LARGEST).status_code == 422
    assert not bodies(settings)


def test_there_is_room_for_the_largest_upload(tmp_path):
    room = UploadRoom(
        Settings(data_folder=tmp_path, max_upload_bytes=20, upload_space_bytes=1)
    )
    with room.claimed(asked_by("key:a")):
        assert room.taken == 20
    assert room.taken == 0


def asked_by(caller, length=None):
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    state = {"caller": Caller(caller, ())}
    return Request({"type": "http", "headers": headers, "state": state})


def test_no_key_has_more_than_half_of_the_room(tmp_path):
    room = UploadRoom(
        Settings(data_folder=tmp_path, max_upload_bytes=20, upload_space_bytes=100)
    )
    with contextlib.ExitStack() as stack:
        for caller in ("key:a", "key:b"):
            stack.enter_context(room.claimed(asked_by(caller)))
            stack.enter_context(room.claimed(asked_by(caller, 30)))
            with pytest.raises(Overloaded, match="of this key take 50 bytes"):
                stack.enter_context(room.claimed(asked_by(caller, 1)))
        with pytest.raises(Overloaded, match="uploads take 100 bytes"):
            stack.enter_context(room.claimed(asked_by("key:c", 1)))
    with room.claimed(asked_by("key:a", 50)):
        assert room.taken == 50


def test_one_key_has_half_of_the_turns_to_have_files_read():
    async def scenario(gateway):
        await gateway.start()
        release = threading.Event()

        async def of(caller, count):
            waiting = (gateway.limited(caller, release.wait) for _ in range(count))
            made = [asyncio.create_task(each) for each in waiting]
            await asyncio.sleep(0)
            return made

        try:
            begun = await of("key:a", 9)
            with pytest.raises(TooManyRequests, match="9 uploads of this key wait"):
                await gateway.limited("key:a", release.wait)
            begun += await of("key:b", 9)
            with pytest.raises(Overloaded, match="18 uploads of all keys wait"):
                await gateway.limited("key:c", release.wait)
            release.set()
            assert await asyncio.gather(*begun) == [True] * 18
            assert await gateway.limited("key:c", release.wait)
        finally:
            release.set()
            await gateway.close()

    with deployed() as made:
        asyncio.run(scenario(Gateway(made.settings)))
