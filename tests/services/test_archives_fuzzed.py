"""Damaged npz bodies and registry archives: refused in words, nothing half taken."""

import numpy as np
import pydantic
from hypothesis import strategies as st

from services.errors import Invalid
from services.rollouts.archive import write_archive
from services.rollouts.request import from_json, from_npz
from services.transfer.take import import_registry
from spnode_core.errors import InvalidInput
from tests.fuzzing import damaged, damaged_zip, fuzz, in_time
from tests.services.test_transfer_hostile import (  # noqa: F401
    elsewhere,
    made,
)

LIMIT = 2**20
OPERATIONS = ("rollout", "jvp", "vjp", "hvp", "jacobian", "objective")
BODY = {
    "model": "robertson",
    "x0": np.ones((3, 2)),
    "times": np.geomspace(1.0, 9.0, 4),
    "outputs": '{"times": "final", "states": ["a"]}',
    "sweep": '{"parameters": {"k": [1.0, 2.0]}}',
    "parameters": np.ones(2),
    "cotangents": np.ones((3, 2)),
    "tangents.x0": np.ones((3, 2)),
    "objective.kind": "misfit",
    "objective.observations": np.ones((4, 2)),
    "spread": np.array(True),
    "intervals": np.array(0.9),
}
USED = {
    "rollout": ("sweep", "spread", "intervals"),
    "jvp": ("tangents.x0",),
    "vjp": ("cotangents",),
    "hvp": ("cotangents", "tangents.x0"),
    "jacobian": (),
    "objective": ("objective.kind", "objective.observations"),
}
ALWAYS = ("model", "x0", "times", "outputs", "parameters")
JSON = b"""{"model": "m", "x0": [[1.0, 2.0], [3.0, 4.0]], "parameters": [1e-300],
 "times": {"start": 0, "stop": 1e5, "count": 50, "spacing": "log"}, "controls": [[0.5]],
 "control_times": [0.0], "outputs": {"times": "final", "states": ["a"], "latent": true},
 "sweep": {"x0": {"a": {"start": 1, "stop": 2, "count": 3}}}, "cotangents": [[0, 1]],
 "tangents": {"x0": [[0.0, 1.0]]}, "on_error": "mask", "precision": "float64",
 "objective": {"kind": "misfit", "observations": [[null, 1.0]], "weights": [1, 2]}}"""


@st.composite
def bodies(draw):
    operation = draw(st.sampled_from(OPERATIONS))
    given = {name: BODY[name] for name in (*ALWAYS, *USED[operation])}
    left_out = draw(st.sets(st.sampled_from(sorted(given)), max_size=1))
    whole = write_archive({k: v for k, v in given.items() if k not in left_out})
    return operation, draw(damaged(whole) | damaged_zip(whole))


@in_time
def test_no_npz_breaks_a_rollout() -> None:
    outcomes = {"read": 0, "refused": 0}

    def check(operation, body) -> None:
        try:
            from_npz(operation, body, LIMIT)
            outcomes["read"] += 1
        except (InvalidInput, pydantic.ValidationError):
            outcomes["refused"] += 1

    fuzz(bodies(), check, examples=200)
    print(outcomes)
    assert all(outcomes.values())


@in_time
def test_no_json_breaks_a_rollout() -> None:
    def check(operation, body) -> None:
        try:
            from_json(operation, body)
        except (InvalidInput, pydantic.ValidationError):
            return

    fuzz(st.tuples(st.sampled_from(OPERATIONS), damaged(JSON)), check, examples=200)


@in_time
def test_no_archive_breaks_an_import(made, elsewhere, tmp_path) -> None:  # noqa: F811
    whole = (made / "registry.zip").read_bytes()
    path = tmp_path / "damaged.zip"
    outcomes = {"refused": 0, "no version": 0, "taken": 0}
    digest = next((made / "folder" / "artifacts").iterdir()).name

    def versions():
        return elsewhere.versions("small").items if elsewhere.models().items else ()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        for number in [each.number for each in versions()]:
            elsewhere.delete_version("small", number)
        try:
            report = import_registry(elsewhere.database, elsewhere.blobs, path)
        except Invalid:
            outcomes["refused"] += 1
        else:
            outcomes["no version" if report.of("refused") else "taken"] += 1
            if not report.of("refused"):
                # What counts came through whole.
                assert [each.digest for each in versions()] == [digest]
                return
        assert not versions()
        assert not list(elsewhere.blobs.list("artifacts"))

    fuzz(
        (damaged(whole) | damaged_zip(whole)).map(lambda each: (each,)),
        check,
        examples=40,
    )
    print(outcomes)
    assert outcomes["refused"]
