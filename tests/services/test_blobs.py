import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.peers.ports import free_ports
from services.blobs import LARGE_BYTES, Blobs, Damaged
from services.errors import NotFound, Unavailable

MIB = 1 << 20
# A file that can be opened, of which no byte can be read.
UNREADABLE = Path("/proc/self/mem")
GROWTH = """
import sys
from pathlib import Path
from services.blobs import Blobs

def peak():
    # The peak that getrusage tells may be of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

blobs, file = Blobs(sys.argv[1]), Path(sys.argv[2])
blobs.put_content("small", b"x")
before = peak()
digest = blobs.put_content("things", file)
print(digest, peak() - before)
"""


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_contents_come_back_under_their_digest(
    blobs: Blobs, tmp_path: Path, monkeypatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc" * 100_000)
    digest = blobs.put_content("things", file)
    assert digest == digest_of(file.read_bytes())
    assert blobs.get(f"things/{digest}") == file.read_bytes()
    assert blobs.size(f"things/{digest}") == 300_000
    blobs.download(f"things/{digest}", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert b"".join(blobs.stream(f"things/{digest}")) == file.read_bytes()
    part = b"".join(blobs.stream(f"things/{digest}", start=1, end=4))
    assert part == b"bca"
    monkeypatch.setattr("services.blobs._PIECE_BYTES", 70_000)
    pieces = list(blobs.stream(f"things/{digest}", start=2))
    assert [len(piece) for piece in pieces] == [70_000] * 4 + [19_998]
    assert b"".join(pieces) == file.read_bytes()[2:]
    assert list(blobs.list("things")) == [f"things/{digest}"]


def test_a_key_is_written_once(blobs: Blobs) -> None:
    blobs.put("a/key", b"first")
    blobs.put("a/key", b"other")
    assert blobs.get("a/key") == b"first"


def test_many_writers_of_one_content_all_succeed(blobs: Blobs) -> None:
    content = os.urandom(1 << 20)
    with ThreadPoolExecutor(8) as threads:
        made = [threads.submit(blobs.put_content, "things", content) for _ in range(16)]
    assert {each.result() for each in made} == {digest_of(content)}
    assert blobs.get(f"things/{digest_of(content)}") == content


def test_a_damaged_content_is_never_given_out(blobs: Blobs, tmp_path: Path) -> None:
    digest = blobs.put_content("things", b"right")
    assert blobs.root is not None
    (blobs.root / "things" / digest).write_bytes(b"wrong")
    with pytest.raises(Damaged, match=digest):
        blobs.get(f"things/{digest}")
    with pytest.raises(Damaged, match=digest):
        blobs.download(f"things/{digest}", tmp_path / "copy")
    given: list[bytes] = []
    with pytest.raises(Damaged, match=digest):
        given.extend(blobs.stream(f"things/{digest}"))
    assert not given, "the last piece is held back until all of it is known"
    assert list(tmp_path.glob("copy*")) == []


def test_a_content_cut_short_by_a_power_failure_is_put_right(blobs: Blobs) -> None:
    digest = blobs.put_content("things", b"whole")
    assert blobs.root is not None
    (blobs.root / "things" / digest).write_bytes(b"")
    assert blobs.put_content("things", b"whole") == digest
    assert blobs.get(f"things/{digest}") == b"whole"


@pytest.mark.parametrize("size", [1000, LARGE_BYTES + 1])
def test_a_damaged_content_of_the_right_length_is_put_right(
    blobs: Blobs, size: int
) -> None:
    content = os.urandom(size)
    key = f"things/{blobs.put_content('things', content)}"
    assert blobs.root is not None
    (blobs.root / key).write_bytes(bytes(size))
    assert not blobs.is_whole(key)
    blobs.put(key, content)
    assert blobs.get(key) == content


def test_a_content_that_is_whole_is_not_written_again(blobs: Blobs) -> None:
    key = f"things/{blobs.put_content('things', b'content')}"
    assert blobs.root is not None
    before = (blobs.root / key).stat()
    blobs.put_content("things", b"content")
    blobs.put(key, b"another")
    after = (blobs.root / key).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_many_writers_put_a_damaged_content_right(blobs: Blobs) -> None:
    """Whoever reads meanwhile gets the damage told or the whole, never a part."""
    content = os.urandom(MIB)
    key = f"things/{blobs.put_content('things', content)}"
    assert blobs.root is not None
    (blobs.root / key).write_bytes(bytes(MIB))
    with ThreadPoolExecutor(8) as threads:
        puts = [threads.submit(blobs.put, key, content) for _ in range(16)]
        reads = [threads.submit(blobs.is_whole, key) for _ in range(16)]
    assert [each.result() for each in puts] == [None] * 16
    assert reads[-1].result()
    assert [each.name for each in (blobs.root / "things").iterdir()] == [
        key.removeprefix("things/")
    ]


def growth_of_a_put(url: str, tmp_path: Path) -> int:
    """By how much the peak memory of a process grows that puts 200 MB."""
    file = tmp_path / "large"
    with file.open("wb") as to:
        for _ in range(200):
            to.write(os.urandom(MIB))
    command = [sys.executable, "-c", GROWTH, url, str(file)]
    said = subprocess.run(command, check=True, capture_output=True, timeout=120)
    digest, grown = said.stdout.decode().split()
    assert Blobs(url).is_whole(f"things/{digest}")
    file.unlink()
    return int(grown)


@pytest.mark.parametrize("times", [1, 5])
def test_a_content_that_others_delete_is_put_again_or_refused(
    blobs: Blobs, monkeypatch, times
) -> None:
    key = f"things/{blobs.put_content('things', b'abc')}"
    looks = 0

    def is_kept_until_now(self: Blobs, key: str) -> bool:
        nonlocal looks
        looks += 1
        if looks <= times:
            self.delete(key)
            return True
        return self.is_whole(key)

    monkeypatch.setattr(Blobs, "_is_kept", is_kept_until_now)
    if times < 5:
        blobs.put(key, b"abc")
        assert blobs.get(key) == b"abc"
    else:
        with pytest.raises(Unavailable, match="again and again"):
            blobs.put(key, b"abc")


def test_a_large_file_is_not_put_through_memory(blobs: Blobs, tmp_path: Path) -> None:
    assert growth_of_a_put(blobs.url, tmp_path) < 32 * MIB


def test_a_put_that_fails_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for source, why in ((tmp_path / "folder", "directory"), (UNREADABLE, "Errno 5")):
        with pytest.raises(Unavailable, match=why):
            blobs.put(f"things/{digest_of(b'')}", source)
    assert blobs.root is not None
    assert list((blobs.root / "things").iterdir()) == []


def test_what_is_not_there_is_not_found(blobs: Blobs, tmp_path: Path) -> None:
    for ask in (blobs.get, blobs.size, lambda key: blobs.download(key, tmp_path / "x")):
        with pytest.raises(NotFound, match="no blob 'a/b'"):
            ask("a/b")
    assert not blobs.exists("a/b")
    blobs.delete("a/b")


def test_what_cannot_be_written_here_is_not_lost(blobs: Blobs, tmp_path: Path) -> None:
    key = f"things/{blobs.put_content('things', b'right')}"
    with pytest.raises(Unavailable, match=r"to this host's disk: .*No such file"):
        blobs.download(key, tmp_path / "swept" / "copy")
    (tmp_path / "copy.part").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match=r"no room on this host's disk"):
        blobs.download(key, tmp_path / "copy")
    blobs.download(key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"right"


def test_a_key_cannot_leave_the_store(blobs: Blobs) -> None:
    for key in ("../x", "a/../../x"):
        with pytest.raises((ValueError, Unavailable, NotFound)):
            blobs.get(key)
    for key in ("../x", "a/../../x", "/x", f"../{digest_of(b'x')}"):
        with pytest.raises(ValueError, match="leads out of the store"):
            blobs.put(key, b"x")


def test_the_store_is_private(blobs: Blobs) -> None:
    assert blobs.root is not None
    assert blobs.root.stat().st_mode & 0o077 == 0


@pytest.fixture
def seaweed(tmp_path: Path, monkeypatch) -> Iterator[str]:
    """A real S3 server; another set of ports where one was taken meanwhile."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        ports = free_ports(8)
        server = _start_weed(folder, ports)
        try:
            if not _bucket_was_made(server, ports[6]):
                continue
            monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{ports[6]}")
            monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
            monkeypatch.setenv("AWS_REGION", "us-east-1")
            yield "s3://spnode/prefix"
            return
        finally:
            server.kill()  # it takes half a minute to go when it is asked to
            server.wait(30)
    logs = [each.read_text(errors="replace") for each in tmp_path.glob("*/weed.log")]
    said = "\n".join(log[-2000:] for log in logs)
    raise TimeoutError(f"the S3 server did not start three times:\n{said}")


def _start_weed(folder: Path, ports: list[int]) -> subprocess.Popen:
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    names += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
    given = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    local = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64"]
    local += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # fixed ports by default
    local += ["-master.telemetry=false"]
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed is not None
    with (folder / "weed.log").open("wb") as log:
        return subprocess.Popen(
            [weed, "server", f"-dir={folder}", *local, "-s3", *given],
            stdout=log,
            stderr=log,
        )


def _bucket_was_made(server: subprocess.Popen, port: int) -> bool:
    """Whether the server took a bucket within a minute of its start."""
    import httpx

    end = time.monotonic() + 60.0
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.put(f"http://127.0.0.1:{port}/spnode").is_success:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    return False


def test_contents_lie_in_s3_alike(seaweed: str, tmp_path: Path, monkeypatch) -> None:
    blobs = Blobs(seaweed)
    blobs.ping()
    test_contents_come_back_under_their_digest(blobs, tmp_path, monkeypatch)
    test_a_key_is_written_once(blobs)
    test_many_writers_of_one_content_all_succeed(blobs)
    test_what_is_not_there_is_not_found(blobs, tmp_path)
    for size in (1000, LARGE_BYTES + 1):
        content = os.urandom(size)
        key = f"things/{digest_of(content)}"
        for there in (bytes(size), b"short"):
            blobs.delete(key)
            blobs.put(key, there)
            assert not blobs.is_whole(key)
            blobs.put(key, content)
            assert blobs.is_whole(key)
            blobs.put(key, there)
            assert blobs.is_whole(key), "what is whole is left alone"
    # Four parts of 8 MiB on their way, and what verifies them.
    assert growth_of_a_put(seaweed, tmp_path) < 100 * MIB


class Skewed(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does where the clock of the caller is an hour off."""

    status, code = 403, "RequestTimeTooSkewed"

    def do_PUT(self) -> None:
        body = f"<Error><Code>{self.code}</Code></Error>".encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT

    def log_message(self, format: str, *args) -> None:
        """Nothing: pytest shows standard error."""


class Bucketless(Skewed):
    """Answers as S3 does where the bucket has been deleted."""

    status, code = 404, "NoSuchBucket"


@contextmanager
def answering(monkeypatch, answers: type[Skewed]) -> Iterator[Blobs]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        try:
            yield Blobs("s3://spnode")
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "call",
    [
        lambda blobs: blobs.get("a/b"),
        lambda blobs: blobs.put("a/b", b"content"),
        lambda blobs: blobs.exists("a/b"),
        lambda blobs: blobs.delete("a/b"),
        lambda blobs: list(blobs.list("a")),
    ],
    ids=["get", "put", "exists", "delete", "list"],
)
def test_a_store_that_finds_our_clock_wrong_is_unavailable(monkeypatch, call) -> None:
    with (
        answering(monkeypatch, Skewed) as blobs,
        pytest.raises(Unavailable, match=r"TooSkewed|403"),
    ):
        call(blobs)


@pytest.mark.parametrize("key", ["a/b", "a/" + digest_of(b"content")])
@pytest.mark.parametrize("large_bytes", [LARGE_BYTES, 1], ids=["small", "large"])
def test_a_put_without_a_bucket_is_unavailable(monkeypatch, key, large_bytes) -> None:
    monkeypatch.setattr("services.blobs.LARGE_BYTES", large_bytes)
    with (
        answering(monkeypatch, Bucketless) as blobs,
        pytest.raises(Unavailable, match="the store takes no"),
    ):
        blobs.put(key, b"content")


def test_a_file_that_is_not_there_is_no_fault_of_the_store(blobs, tmp_path) -> None:
    for key in ("things/key", "things/" + digest_of(b"content")):
        with pytest.raises(FileNotFoundError, match="absent"):
            blobs.put(key, tmp_path / "absent")
    assert list(blobs.list("things")) == []


def test_a_store_that_does_not_answer_is_unavailable(monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with pytest.raises(Unavailable, match="the store does not answer"):
        Blobs("s3://spnode").get("a/b")
