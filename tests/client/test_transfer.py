"""What is shown while a large file is sent or fetched."""

import io

import pytest
from rich.console import Console

from spnode_client import Client, transfer
from spnode_client.transfer import downloading, uploading
from tests.client.conftest import Answer
from tests.client.test_command_line import run

MIB = 1 << 20
MADE = b'{"id": "ds_1", "name": "a", "summary": {"states": {}}}'


@pytest.fixture
def screen(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(transfer, "err", console)
    return console.file


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.npz"
    path.write_bytes(bytes(9 * MIB))
    return path


def test_a_large_file_says_how_much_of_it_is_sent(server, screen, large):
    server.answers.append(Answer(201, MADE))
    told = []
    with Client(server.url) as client:
        with uploading(client, large):
            shown = client.transport.on_bytes
            assert shown is not None
            client.transport.on_bytes = lambda *how_far: (
                told.append(how_far),
                shown(*how_far),
            )
            client.datasets.upload(large)
        assert client.transport.on_bytes is None
    assert told == [(n * MIB, 9 * MIB) for n in range(1, 10)]
    assert "checking large.npz" in screen.getvalue()
    assert "9.4/9.4 MB" in screen.getvalue()
    assert server.asked[0].body == large.read_bytes()


def test_another_try_begins_anew(server, screen, large):
    server.answers += [Answer(503, b"{}"), Answer(201, MADE)]
    told = []
    with Client(server.url) as client:
        client.transport.on_bytes = lambda *how_far: told.append(how_far)
        client.datasets.upload(large)
    assert [done // MIB for done, _ in told] == [*range(1, 10)] * 2


def test_a_large_file_says_how_much_of_it_is_fetched(server, screen, tmp_path):
    server.answers.append(Answer(200, bytes(9 * MIB)))
    with Client(server.url) as client, downloading(client, "ds_1"):
        client.datasets.download("ds_1", tmp_path / "data.npz")
    assert "fetching ds_1" in screen.getvalue()
    assert "9.4/9.4 MB" in screen.getvalue()
    assert (tmp_path / "data.npz").stat().st_size == 9 * MIB


@pytest.mark.parametrize(("size", "quiet"), [(MIB, False), (9 * MIB, True)])
def test_a_small_file_and_a_script_show_nothing(server, screen, tmp_path, size, quiet):
    server.answers.append(Answer(200, bytes(size)))
    with Client(server.url) as client, downloading(client, "ds_1", quiet):
        client.datasets.download("ds_1", tmp_path / "data.npz")
    assert "fetching" not in screen.getvalue()


def test_a_pipe_has_the_result_alone(server, large):
    server.answers.append(Answer(201, MADE))
    done = run("datasets", "upload", str(large), "--json", SPNODE_URL=server.url)
    assert (done.returncode, done.stderr) == (0, "")
