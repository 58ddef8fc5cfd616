"""However many uploads come, and however slowly, a gateway's disk is not filled."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request

from api.uploads import UploadRoom
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


def kind_of(path):
    return KINDS.get(path, "application/x-npz")


@contextlib.contextmanager
def slow_upload(client, path, length):
    """An upload that claims its length, sends a little, and waits."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"X-API-Key: {client.headers['x-api-key']}",
        f"Content-Type: {kind_of(path)}",
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
def test_an_upload_beyond_the_room_is_told_to_come_later(door, path, length):
    client, settings = door
    with slow_upload(client, "/v1/datasets", length):
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


def test_many_slow_uploads_take_no_more_than_the_room(door):
    client, settings = door
    size = LARGEST // 2
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            one = stack.enter_context(slow_upload(client, "/v1/datasets", size))
            with contextlib.suppress(ConnectionError):
                one.sendall(b"\0" * (size - 10))
        wait_for(lambda: sum(p.stat().st_size for p in bodies(settings)) > 2 * size, 20)
        time.sleep(0.5)
        held = [path.stat().st_size for path in bodies(settings)]
        assert len(held) == ROOM // size
        assert sum(held) <= ROOM
    wait_for(lambda: not bodies(settings), 20)


def test_room_that_was_used_is_there_again(door):
    client, settings = door
    for _ in range(4):
        assert send(client, "/v1/datasets", LARGEST).status_code == 422
    assert not bodies(settings)


def test_there_is_room_for_the_largest_upload(tmp_path):
    room = UploadRoom(
        Settings(data_folder=tmp_path, max_upload_bytes=20, upload_space_bytes=1)
    )
    with room.claimed(Request({"type": "http", "headers": []})):
        assert room.taken == 20
    assert room.taken == 0
