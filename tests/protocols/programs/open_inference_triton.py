"""What tritonclient's HTTP client calls for models; ends with "ok"."""

import sys
from itertools import product

import numpy as np
import pytest
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
)
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException

URL, KEY, GIVEN, FOUND = sys.argv[1:]
given = dict(np.load(GIVEN))
found = {}


def tensor(name, binary=True, dtype="float64"):
    array = given[name].astype(dtype)
    made = InferInput(
        name,
        list(array.shape),
        {"float64": "FP64", "float32": "FP32"}[array.dtype.name],
    )
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def fails(part, call, *arguments, **options):
    with pytest.raises(InferenceServerException) as raised:
        call(*arguments, **options)
    assert part in raised.value.message()
    return raised.value.status()


address = URL.removeprefix("http://")
# By a header in each call, and by the plugin.
header = {"Authorization": f"Bearer {KEY}"}
with InferenceServerClient(address) as stranger:
    assert stranger.is_server_live()
    # Needs no key, and says no before the champions are compiled.
    stranger.is_server_ready()
    assert fails("no API key", stranger.get_server_metadata) == "401"
    assert stranger.get_server_metadata(headers=header)["name"] == "spnode"

client = InferenceServerClient(address, concurrency=8)
client.register_plugin(BasicAuth("key", KEY))
server = client.get_server_metadata()
assert set(server) == {"name", "version", "extensions"}
assert {"binary_tensor_data", "statistics"} <= set(server["extensions"])

model = client.get_model_metadata("plain")
assert model["versions"] == ["1"]
assert model["inputs"][0] == {"name": "x0", "datatype": "FP64", "shape": [-1, 3]}
assert model["outputs"][0] == {"name": "x", "datatype": "FP64", "shape": [-1, -1, 3]}
assert client.get_model_metadata("plain", "1") == model
forced = client.get_model_metadata("forced@latest")
assert [each["name"] for each in forced["inputs"]] == [
    "x0",
    "parameters",
    "controls",
    "control_times",
    "times",
]
assert client.is_model_ready("plain")
assert client.is_model_ready("plain", "1")
assert not client.is_model_ready("plain", "2")
assert not client.is_model_ready("nothing")
assert client.get_model_config("plain")["input"][0]["dims"] == [-1, 3]
names = {each["name"] for each in client.get_model_repository_index()}
assert {"plain", "kinetics", "forced"} <= names
fails("neither loaded nor unloaded", client.load_model, "plain")
fails("neither loaded nor unloaded", client.unload_model, "plain")


def statistics(*version):
    (found,) = client.get_inference_statistics("plain", *version)["model_stats"]
    assert (found["name"], found["version"]) == ("plain", "1")
    return found


before = statistics("1")
inputs = [tensor("x0"), tensor("times")]
usual = client.infer("plain", inputs, request_id="42")
assert usual.get_response()["id"] == "42"
assert usual.get_response()["model_version"] == "1"
found["binary"] = usual.as_numpy("x")
assert (usual.as_numpy("times") == given["times"]).all()
assert usual.as_numpy("inside").shape == (len(given["x0"]),)

text = [tensor("x0", binary=False), tensor("times", binary=False)]
asked = [InferRequestedOutput("x", binary_data=False)]
for sent, outputs in product((inputs, text), (None, asked)):
    again = client.infer("plain", sent, "1", outputs=outputs)
    assert (again.as_numpy("x") == found["binary"]).all()
    assert (again.as_numpy("times") is None) == (outputs is not None)
mixed = [InferRequestedOutput("times"), *asked]
again = client.infer("plain", [inputs[0], text[1]], outputs=mixed)
assert (again.as_numpy("x") == found["binary"]).all()
assert (again.as_numpy("times") == given["times"]).all()

for one, two in product(("gzip", "deflate", None), repeat=2):
    again = client.infer(
        "plain",
        inputs,
        request_compression_algorithm=one,
        response_compression_algorithm=two,
    )
    assert (again.as_numpy("x") == found["binary"]).all()

waiting = [client.async_infer("plain@latest", inputs) for _ in range(16)]
for each in waiting:
    assert (each.get_result().as_numpy("x") == found["binary"]).all()

single = [tensor("x0", dtype="float32"), tensor("times")]
found["single"] = client.infer("plain", single).as_numpy("x")
narrow = client.infer("plain", inputs, parameters={"datatype": "FP32"})
assert (narrow.as_numpy("x") == found["binary"].astype(np.float32)).all()
assert narrow.as_numpy("x").dtype == np.float32

after = statistics()
calls = {
    name: after["inference_stats"][name]["count"] - each["count"]
    for name, each in before["inference_stats"].items()
}
# One, four in two forms, one of both, nine compressed, sixteen at once, two in float32.
assert (calls["success"], calls["fail"]) == (33, 0)
rows = after["inference_count"] - before["inference_count"]
assert rows == calls["success"] * len(given["x0"])
assert 0 < after["execution_count"] - before["execution_count"] <= calls["success"]
assert after["last_inference"] > before["last_inference"]
assert after in client.get_inference_statistics()["model_stats"]
fails("there is no model 'nothing'", client.get_inference_statistics, "nothing")

kinetics = [tensor(name) for name in ("x0", "parameters", "times")]
found["kinetics"] = client.infer("kinetics", kinetics).as_numpy("x")
by_row = [tensor(name) for name in ("x0", "controls", "control_times", "times")]
one_for_all = InferInput("parameters", [1, 1], "FP64")
one_for_all.set_data_from_numpy(given["parameters"][:1, :1])
exact = {"precision": "float64", "mode": "throughput"}
answer = client.infer("forced", [*by_row, one_for_all], parameters=exact)
found["forced"] = answer.as_numpy("x")

stepped = client.infer("plain", [tensor("x0")], parameters={"dt": 0.5, "steps": 4})
assert stepped.as_numpy("times").tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
ends = client.infer("plain", [tensor("x0")])
assert ends.as_numpy("times").tolist() == [1000.0]

assert fails("there is no model 'nothing'", client.infer, "nothing", inputs) == "404"
assert fails("inputs.x0", client.infer, "plain", kinetics[1:2]) == "400"
fails("deadline", client.infer, "plain", inputs, timeout=1)
fails("sequence_id", client.infer, "plain", inputs, sequence_id=3)
fails("there is nothing at /v2/logging", client.get_log_settings)
fails("there is nothing at /v2/trace", client.get_trace_settings)
np.savez(FOUND, **found)
print("ok")
