"""Arrays on the wire."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from spnode_client import Client, DomainWarning
from spnode_client.arrays import pack, unpack
from spnode_client.operations.rollouts import request_body
from tests.client.conftest import Answer


def test_float64_arrays_cross_the_wire_bit_for_bit():
    values = np.random.default_rng(0).normal(size=(7, 5)) * 10.0 ** np.arange(5)
    values[0, 0], values[0, 1] = np.nextafter(1, 2), 5e-324
    assert unpack(pack({"x": values}))["x"].tobytes() == values.tobytes()


ARRAYS = {
    "x": np.arange(6.0).reshape(2, 3),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "none": np.zeros((0, 3)),
    "scalar": np.array(2.5),
    "count": np.array([1, 2], np.int32),
    "text": np.array("a text"),
}


def test_numpy_reads_what_is_packed_and_packs_what_is_read():
    with np.load(io.BytesIO(pack(ARRAYS)), allow_pickle=False) as archive:
        loaded = {name: archive[name] for name in archive.files}
    bodies = [pack(ARRAYS), pack({"x": ARRAYS["x"]})]
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **ARRAYS)
        bodies.append(buffer.getvalue())
    for found in (loaded, *map(unpack, bodies)):
        for name, array in found.items():
            assert array.dtype == ARRAYS[name].dtype
            np.testing.assert_array_equal(array, ARRAYS[name])
            assert array.flags.writeable


def test_damage_of_the_numbers_is_found():
    body = bytearray(pack({"x": np.arange(6.0)}))
    body[body.index(np.arange(6.0).tobytes()) + 9] ^= 1
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        unpack(bytes(body))


def test_pickled_members_are_refused():
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        unpack(buffer.getvalue())


def test_a_rollout_is_asked_and_answered_in_binary(server):
    x = np.arange(6.0).reshape(2, 3)
    members = {
        "x": x,
        "times": [1.0, 2.0],
        "model": "mine",
        "version": 4,
        "digest": "ab",
        "warnings": json.dumps(["the row lies outside"]),
        "domain": json.dumps({"inside": [False]}),
    }
    kind = {"content-type": "application/x-npz"}
    server.answers.append(Answer(200, pack(members), kind))
    with (
        Client(server.url) as client,
        pytest.warns(DomainWarning, match="lies outside") as told,
    ):
        answer = client.rollout_record("mine", [1, 0, 0], [1, 2])
    assert told[0].filename == __file__
    np.testing.assert_array_equal(answer.x, x)
    assert (answer.model, answer.version, answer.digest) == ("mine", 4, "ab")
    asked = unpack(server.asked[0].body)
    assert asked["x0"].dtype == np.float64
    assert str(asked["model"]) == "mine"


def test_times_given_as_a_rule_are_sent_as_json(server):
    members = {"x": [[1.0]], "times": [1.0], "model": "m", "version": 1, "digest": ""}
    kind = {"content-type": "application/x-npz"}
    server.answers.append(Answer(200, pack(members), kind))
    rule = {"start": 1.0, "stop": 10.0, "count": 3, "spacing": "log"}
    with Client(server.url) as client:
        client.rollout("m", np.array([1.0]), rule)
    assert json.loads(server.asked[0].body)["times"] == rule


def test_the_client_loads_no_jax_and_no_pydantic():
    code = (
        "import sys, spnode_client; "
        "print([m for m in ('jax', 'pydantic', 'scipy', 'spnode_core')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("wrong", [{"a": 1.0}, [[1.0, 2.0], [3.0]], ["a"]])
def test_what_is_no_array_is_named(wrong):
    kind = type(wrong).__name__
    with pytest.raises(
        ValueError, match=f"^x0: found {kind} that .*; expected numbers"
    ):
        request_body("m", wrong, [1.0])
    with pytest.raises(ValueError, match=r"^tangents\.x0: found"):
        request_body("m", [1.0], [1.0], tangents={"x0": wrong})
    with pytest.raises(ValueError, match=r"^objective\.observations: found"):
        request_body("m", [1.0], [1.0], objective={"observations": wrong})
