"""Calls of the command line and the client that are wrong: said before anything is."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from spnode_client import Client, ClientError
from spnode_client.arrays import pack
from spnode_client.cli import make_app
from spnode_client.commands.rollout_file import draw_rollout
from spnode_client.connection import Connection
from spnode_client.records import ModelVersion, Rollout
from spnode_client.terminal import UsageError
from tests.client.conftest import Answer

NPZ = {"content-type": "application/x-npz"}


@pytest.fixture
def command(server, monkeypatch):
    """The command line, in this process, against the scripted server."""
    with Client(server.url, retries=0) as client:
        monkeypatch.setattr(Connection, "client", lambda _: client)
        yield lambda *words: CliRunner().invoke(make_app(), words)


@pytest.fixture
def refused(server, command, tmp_path, monkeypatch):
    """What a command refuses, without a word to the service."""
    (tmp_path / "big.npz").write_bytes(b"npz")
    (tmp_path / "run.zarr").mkdir()
    monkeypatch.chdir(tmp_path)

    def ask(*arguments):
        found = command(*arguments).exception
        assert isinstance(found, UsageError), found
        assert not server.asked
        return str(found)

    return ask


@pytest.mark.parametrize("field", ["model", "dataset", "kind"])
def test_a_field_that_has_an_option_is_not_set(refused, field):
    assert "expected another field" in refused(
        "train", "big.npz", "--set", f"{field}=x"
    )


@pytest.mark.parametrize("field", ["alias", "ensemble", "grid", "model"])
def test_of_sweeps_too(refused, field):
    vary = ("--vary", "seed=0,1")
    assert "expected another" in refused(
        "sweep", "big.npz", *vary, "--set", f"{field}=x"
    )


def test_a_name_that_is_given_twice_is_not_lost(refused):
    vary = ("--vary", "seed=0,1", "--vary", "seed=2,3")
    assert "--vary: found 'seed' twice" in refused("sweep", "big.npz", *vary)
    sums = ("--conserved", "mass=a+b", "--conserved", "mass=c+d")
    assert "--conserved: found 'mass' twice" in refused("train", "big.npz", *sums)


def test_a_folder_is_sent_as_a_zip(refused):
    assert "send it as a zip" in refused("datasets", "upload", "run.zarr")


def test_a_schedule_is_said_in_both_ways(server, command, tmp_path):
    path = tmp_path / "big.npz"
    path.write_bytes(b"npz")
    server.answers += [
        Answer(200, b'{"id": "ds_1", "summary": {}}'),
        Answer(409, b"{}"),
    ]
    rule = ("--set", "schedule.deadline_seconds=3600", "--gpu")
    command("sweep", str(path), "--vary", "seed=0,1", *rule, "--json")
    assert json.loads(server.asked[-1].body)["schedule"] == {
        "deadline_seconds": 3600,
        "device": "gpu",
    }


@pytest.mark.parametrize("url", ["http://h:80x0", "h:8000", "ftp://h", "http://", ""])
def test_an_address_that_is_none_is_said(url):
    with pytest.raises(ClientError, match=r"url: found .* expected an address"):
        Client(url)


@pytest.mark.parametrize("key", ["spn_a\nspn_b", "spn_\N{ZERO WIDTH SPACE}a", "spn a"])
def test_a_key_that_no_header_takes_is_not_told(key):
    with pytest.raises(
        ClientError, match=r"key: character [45]|key: character 6"
    ) as told:
        Client(key=key)
    assert "spn" not in str(told.value)


def test_blanks_around_a_key_are_none_of_it(server):
    with Client(server.url, " secret\n") as client:
        server.answers += [Answer(200, b'{"id": "job_1", "state": "running"}')]
        client.jobs.get("job_1")
    assert server.asked[0].headers["authorization"] == "Bearer secret"


def test_complex_states_are_refused_as_all_complex_inputs(server):
    with Client(server.url) as client, pytest.raises(ValueError, match="complex128"):
        client.rollout("m", np.array([1.0, 1e-20j]), [1.0])
    assert not server.asked


def test_a_rollout_has_all_that_was_asked_for(server):
    inside = '{"inside": [true]}'
    x = {"x": np.zeros((1, 1)), "z": np.ones((1, 4)), "times": np.ones(1)}
    about = {"model": "m", "version": 1, "digest": "d"}
    content = pack({**x, **about, "domain": inside, "rows": '[{"ok": true}]'})
    server.answers += [Answer(200, content, NPZ)]
    with Client(server.url) as client:
        found = client.rollout_record("m", [1.0], [1.0], outputs={"latent": True})
    assert found.z is not None
    assert found.z.shape == (1, 4)
    assert found.domain == {"inside": [True]}
    assert found.rows == [{"ok": True}]


def test_a_warning_reaches_code_that_has_no_name(server):
    about = {"model": "m", "version": 1, "digest": "d", "warnings": '["far away"]'}
    content = pack({"x": np.zeros((1, 1)), "times": np.ones(1), **about})
    server.answers += [Answer(200, content, NPZ)]
    with Client(server.url) as client, pytest.warns(UserWarning, match="far away"):
        exec("found = client.rollout('m', [1.0], [1.0])", {"client": client})


@pytest.mark.parametrize(
    ("shape", "spread", "said"),
    [
        ((20, 5, 2), True, "the first 8 rows of 20, without the spread"),
        ((3, 5, 2), False, ""),
        ((3, 5, 40), False, "the first row of 3"),
    ],
)
def test_what_a_picture_leaves_out_is_said(tmp_path, shape, spread, said):
    x = np.random.default_rng(0).normal(size=shape)
    answer = Rollout(x, np.arange(5.0), "m", 1, "", spread=x if spread else None)
    names = [f"y{i}" for i in range(shape[-1])]
    record = {"signature": {"states": names, "units": []}}
    made = ModelVersion("m", 1, "", record)
    assert draw_rollout(answer, made, tmp_path / "x.png") == said
