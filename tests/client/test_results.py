"""Results in chunks, against a server of which every request is known."""

import asyncio
import hashlib
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from spnode_client import AsyncClient, Client, ClientError, Conflict
from spnode_client.arrays import pack, unpack
from spnode_client.cli import make_app
from spnode_client.connection import Connection
from spnode_client.labelled import labelled
from spnode_client.progress_line import done_of, rows_done
from tests.client.conftest import Answer

ROWS, CHUNK, TIMES = 10, 4, [1.0, 2.0]
X = np.arange(ROWS * 2 * 3, dtype=float).reshape(ROWS, 2, 3)
INSIDE = np.arange(ROWS) != 5
FAILED = [7]


def files():
    """The chunks as the service sends them."""
    return [
        pack(
            {
                "x": X[start : start + CHUNK],
                "times": TIMES,
                "start": start,
                "inside": INSIDE[start : start + CHUNK],
                "failed": np.array(
                    [r for r in FAILED if start <= r < start + CHUNK], int
                ),
                "failed_times": np.zeros(0),
                "z": X[start : start + CHUNK, :, :1],
            }
        )
        for start in range(0, ROWS, CHUNK)
    ]


def index(**changes):
    described = [
        {
            "number": number,
            "start": number * CHUNK,
            "rows": min(CHUNK, ROWS - number * CHUNK),
            "digest": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
        }
        for number, content in enumerate(files())
    ]
    return {
        "job": "job_1",
        "model": "small",
        "version": 2,
        "rows": ROWS,
        "shape": [ROWS, 2, 3],
        "states": ["a", "b", "c"],
        "times": TIMES,
        "latent": 1,
        "size_bytes": 1000,
        "failed": 1,
        "outside": 1,
        "chunks": described,
        "expires_at": "2026-12-01T00:00:00+00:00",
        **changes,
    }


JOB = json.dumps({"id": "job_1", "kind": "rollout", "state": "succeeded"}).encode()


@pytest.fixture
def result(server):
    server.answers += [Answer(body=JOB), Answer(body=json.dumps(index()).encode())]
    with Client(server.url, retries=1) as client:
        yield client.jobs.get("job_1").result()


def serve(server, *numbers):
    """Answer the next requests with these chunks; forget what was asked before."""
    server.asked.clear()
    contents = files()
    server.answers += [Answer(body=contents[number]) for number in numbers]


def fetched(server):
    return [int(asked.path.rsplit("/", 1)[1]) for asked in server.asked]


def test_the_shape_is_known_before_any_chunk_is_fetched(server, result):
    server.asked.clear()
    assert (result.shape, len(result)) == ((10, 2, 3), 10)
    assert (result.states, result.failed) == (("a", "b", "c"), 1)
    np.testing.assert_array_equal(result.times, TIMES)
    assert "3 chunks" in repr(result)
    assert server.asked == []


@pytest.mark.parametrize(
    ("key", "needed"),
    [
        (slice(4, 8), [1]),
        (slice(3, 5), [0, 1]),
        (9, [2]),
        (-1, [2]),
        (slice(None, None, -3), [0, 1, 2]),
        (slice(20, 30), []),
        ([8, 1, 8], [0, 2]),
        (np.arange(ROWS) == 6, [1]),
        ((slice(0, 2), 1, slice(None, 2)), [0]),
        ((Ellipsis, -1), [0, 1, 2]),
    ],
)
def test_rows_come_as_numpy_slices_them_from_the_chunks_they_lie_in(
    server, result, key, needed
):
    serve(server, *needed)
    found = result[key]
    np.testing.assert_array_equal(found, X[key])
    assert found.shape == X[key].shape
    assert fetched(server) == needed


def test_neighbouring_rows_fetch_their_chunk_once(server, result):
    serve(server, 0, 1)
    for row in range(8):
        np.testing.assert_array_equal(result[row], X[row])
    assert fetched(server) == [0, 1]


@pytest.mark.parametrize("key", [10, -11, [3, 10]])
def test_a_row_beyond_the_result_is_an_index_error(server, result, key):
    with pytest.raises(IndexError, match="10 rows"):
        result[key]


def test_what_means_no_rows_is_an_index_error(result):
    with pytest.raises(IndexError, match="means no rows"):
        result["a"]


def test_iteration_goes_through_the_chunks_and_keeps_two(server, result):
    serve(server, 0, 1, 2)
    starts = [chunk.start for chunk in result]
    assert starts == [0, 4, 8]
    serve(server, 0)
    assert result[0, 0, 0] == X[0, 0, 0]
    assert fetched(server) == [0], "it was forgotten"


def test_a_chunk_that_arrives_damaged_is_refused(server, result):
    server.answers.append(Answer(body=files()[1]))
    with pytest.raises(ClientError, match="chunk 0 of job_1 arrived damaged"):
        result[0]


def test_a_chunk_whose_connection_breaks_is_fetched_again(server, result):
    server.asked.clear()
    contents = files()
    server.answers += [
        Answer(body=contents[0], break_after=50),
        Answer(body=contents[0]),
    ]
    np.testing.assert_array_equal(result[0], X[0])
    assert fetched(server) == [0, 0]


def test_a_result_is_saved_as_one_file_that_numpy_loads(server, result, tmp_path):
    # The latent trajectory is a second pass: two of its chunks are still there.
    serve(server, 0, 1, 2, 0, 1, 2)
    told = []
    result._client.transport.on_bytes = lambda *how_far: told.append(how_far)
    path = result.save(tmp_path / "rows.npz")
    assert told[-1] == (X.nbytes + X[:, :, :1].nbytes,) * 2
    assert len(told) == 6, "after each chunk of both"
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["states"], X)
        np.testing.assert_array_equal(archive["z"], X[:, :, :1])
        np.testing.assert_array_equal(archive["inside"], INSIDE)
        assert archive["failed"].tolist() == FAILED
        assert archive["names"].tolist() == ["a", "b", "c"]
        assert archive["times"].tolist() == TIMES
    assert [each.name for each in tmp_path.iterdir()] == ["rows.npz"]


def test_a_save_that_fails_leaves_no_file(server, result, tmp_path):
    contents = files()
    server.answers += [Answer(body=contents[0]), Answer(body=contents[0])]
    with pytest.raises(ClientError):
        result.save(tmp_path / "rows.npz")
    assert list(tmp_path.iterdir()) == []


def test_rows_without_a_sweep_have_no_grid(server, result):
    serve(server, 0, 1, 2)
    with pytest.raises(ValueError, match="no sweep"):
        result.grid()


def test_the_async_client_does_the_same(server, tmp_path):
    server.answers += [Answer(body=JOB), Answer(body=json.dumps(index()).encode())]

    async def use():
        async with AsyncClient(server.url, retries=1) as client:
            result = await (await client.jobs.get("job_1")).result()
            serve(server, 1, 0, 2, 0, 1, 2, 0, 1, 2)
            np.testing.assert_array_equal(await result.rows(slice(4, 6)), X[4:6])
            np.testing.assert_array_equal(await result.array(), X)
            await result.save(tmp_path / "rows.npz")
            return result.shape

    assert asyncio.run(use()) == (10, 2, 3)
    with np.load(tmp_path / "rows.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["states"], X)


def test_a_job_is_submitted_with_its_arrays_as_npz(server):
    server.answers.append(Answer(202, JOB))
    with Client(server.url) as client:
        job = client.jobs.rollout(
            "small",
            X[:, 0].T.copy().T,
            TIMES,
            on_error="mask",
            outputs={"times": "final"},
        )
    assert job.id == "job_1"
    (asked,) = server.asked
    assert asked.headers["content-type"] == "application/x-npz"
    assert "idempotency-key" in asked.headers
    arrays = unpack(asked.body)
    assert json.loads(str(arrays["request"])) == {
        "kind": "rollout",
        "model": "small",
        "on_error": "mask",
        "outputs": {"times": "final"},
    }
    np.testing.assert_array_equal(arrays["x0"], X[:, 0])
    with np.load(io.BytesIO(asked.body), allow_pickle=False) as archive:
        assert archive["x0"].flags.c_contiguous


def test_a_job_without_arrays_is_json(server):
    server.answers.append(Answer(202, JOB))
    times = {"dt": 0.5, "steps": 10}
    with Client(server.url) as client:
        client.jobs.rollout("small", times=times, dataset="ds_1")
    expected = {"kind": "rollout", "model": "small", "times": times, "dataset": "ds_1"}
    assert json.loads(server.asked[0].body) == expected


@pytest.fixture
def command(server, monkeypatch):
    """The command line, in this process, against the scripted server."""
    with Client(server.url, retries=1) as client:
        monkeypatch.setattr(Connection, "client", lambda _: client)
        yield lambda *words: CliRunner().invoke(make_app(), words)


def test_the_command_line_says_what_a_job_made_and_writes_it(server, command, tmp_path):
    answers = [Answer(body=JOB), Answer(body=json.dumps(index()).encode())]
    server.answers += answers
    told = command("jobs", "result", "job_1")
    assert told.exit_code == 0, told.output
    assert "10 x 2 x 3" in told.output
    assert "1 rows left the finite range" in told.output
    server.answers += answers
    serve(server, 0, 1, 2, 0, 1, 2)
    path = tmp_path / "rows.npz"
    written = command("jobs", "result", "job_1", "--out", str(path), "--json")
    assert written.exit_code == 0, written.output
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["states"], X)


def test_the_command_line_refuses_other_files_and_jobs(server, command, tmp_path):
    server.answers += [Answer(body=JOB), Answer(body=json.dumps(index()).encode())]
    wrong = command("jobs", "result", "job_1", "--out", str(tmp_path / "rows.csv"))
    assert "expected a file that ends in .npz" in str(wrong.exception)
    server.answers.append(
        Answer(body=b'{"id": "job_2", "kind": "evaluation", "result": {}}')
    )
    other = command("jobs", "result", "job_2")
    assert "is no rollout job" in str(other.exception)


def test_a_result_that_is_not_ready_is_a_conflict(server):
    problem = {"status": 409, "code": "result_not_ready", "detail": "job is running"}
    server.answers += [Answer(body=JOB), Answer(409, json.dumps(problem).encode())]
    with Client(server.url) as client, pytest.raises(Conflict, match="running"):
        client.jobs.get("job_1").result()


def test_progress_counts_rows():
    progress = {"rows": 512, "rows_total": 1024, "rows_per_second": 99.7}
    assert done_of(progress) == (512, 1024)
    assert rows_done(progress) == "512 of 1024 rows, 100 rows/s"
    assert rows_done({"iteration": 3}) == ""
    assert done_of({"iteration": 3, "iterations": 9}) == (3, 9)


def test_a_sweep_travels_as_json_and_its_answer_has_axes(server):
    sweep = {"shape": [2, 5], "axes": []}
    answer = {
        "x": X,
        "times": TIMES,
        "model": "small",
        "version": 1,
        "digest": "d",
        "sweep": json.dumps(sweep),
    }
    npz = {"content-type": "application/x-npz"}
    server.answers.append(Answer(body=pack(answer), headers=npz))
    asked = {"x0": {"a": np.linspace(0, 1, 5)}, "parameters": {"k": [1.0, 2.0]}}
    with Client(server.url) as client:
        record = client.rollout_record("small", [0, 0, 0], TIMES, sweep=asked)
    sent = json.loads(str(unpack(server.asked[0].body)["sweep"]))
    assert sent == {"x0": {"a": [0, 0.25, 0.5, 0.75, 1]}, "parameters": {"k": [1, 2]}}
    np.testing.assert_array_equal(record.grid(), X.reshape(2, 5, 2, 3))


def test_rows_of_a_sweep_are_shaped_into_its_grid(server):
    found = index(sweep={"shape": [5, 2], "axes": []})
    server.answers += [Answer(body=JOB), Answer(body=json.dumps(found).encode())]
    with Client(server.url, retries=1) as client:
        result = client.jobs.get("job_1").result()
        serve(server, 0, 1, 2)
        np.testing.assert_array_equal(result.grid(), X.reshape(5, 2, 2, 3))


def test_axes_have_names_where_xarray_is_installed():
    pytest.importorskip("xarray")
    axes = [
        {"field": "parameters", "name": "k", "values": [1.0, 2.0]},
        {"field": "x0", "name": "a", "values": [0.0, 0.1, 0.2, 0.3, 0.4]},
    ]
    grid = labelled(X, TIMES, ("a", "b", "c"), {"shape": [2, 5], "axes": axes})
    assert grid.dims == ("k", "a", "time", "state")
    found = grid.sel(k=2.0, a=0.3, time=2.0, state="b")
    assert float(found) == X.reshape(2, 5, 2, 3)[1, 3, 1, 1]
    axes = [{**axis, "values": list(range(10))} for axis in axes]
    rows = labelled(X[:, 0], TIMES, None, {"shape": [10], "axes": axes})
    assert rows.dims == ("row", "state")
    assert rows.coords["k"].dims == ("row",)
    assert labelled(X, TIMES, None, None).dims == ("row", "time", "state")


def test_the_command_line_queues_a_sweep(server, command):
    signature = {"states": ["a", "b", "c"], "parameters": ["k1"]}
    version = {"model": "small", "number": 1, "signature": signature}
    server.answers += [Answer(body=json.dumps(version).encode()), Answer(202, JOB)]
    words = ("jobs", "rollout", "small", "--times", "1,2", "--x0", "0,0,0")
    done = command(*words, "--sweep", "k1=log:1:100:3", "--sweep", "a=0,1", "--final")
    assert done.exit_code == 0, done.output
    assert "job_1" in done.output
    request = json.loads(str(unpack(server.asked[1].body)["request"]))
    assert request["sweep"]["parameters"]["k1"] == pytest.approx([1, 10, 100])
    assert request["sweep"]["x0"] == {"a": [0, 1]}
    assert request["outputs"] == {"times": "final"}
    server.answers.append(Answer(body=json.dumps(version).encode()))
    wrong = command(*words, "--sweep", "q=1")
    assert "expected NAME=VALUES of k1, a, b, c" in str(wrong.exception)
    missing = command("jobs", "rollout", "small", "--times", "1")
    assert "--x0 gives the rows" in str(missing.exception)
