"""Damaged and forged artifacts: what does not load says why, and nothing is run."""

import json

import jax
import numpy as np
from hypothesis import strategies as st

from spnode_core import artifact
from spnode_core.artifact_file import MANIFEST
from spnode_core.errors import ArtifactError
from tests.core.test_artifact import CARD, build, forge, members_of
from tests.fuzzing import damaged, damaged_zip, fuzz, in_time


def _changed(draw, value):
    """A JSON value with another one somewhere in it."""
    other = st.none() | st.booleans() | st.text(max_size=8)
    other |= st.sampled_from([0, -1, 2**70, 1e308, [], {}, "os.system", [[]], 10**6])
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: _changed(draw, value[name])}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(value) - 1))
        changed = _changed(draw, value[place])
        return [*value[:place], changed, *value[place + 1 :]]
    return draw(other)


def _other_header(draw, tensors):
    """The same arrays below a header that was changed."""
    end = 8 + int.from_bytes(tensors[:8], "little")
    header = json.dumps(_changed(draw, json.loads(tensors[8:end]))).encode()
    return len(header).to_bytes(8, "little") + header + tensors[end:]


@in_time
def test_no_artifact_breaks_the_loader(tmp_path) -> None:
    path = tmp_path / "whole.spnode"
    artifact.save(build(), path, card=CARD)
    whole, members = path.read_bytes(), members_of(path)

    @st.composite
    def forged(draw):
        """A member with damage, under a manifest that agrees with it."""
        name = draw(st.sampled_from(sorted(set(members) - {MANIFEST})))
        if name.endswith(".safetensors") and draw(st.booleans()):
            return forge(path, {name: _other_header(draw, members[name])}).read_bytes()
        if name.endswith(".json") and draw(st.booleans()):
            spec = _changed(draw, json.loads(members[name]))
            return forge(path, {name: json.dumps(spec).encode()}).read_bytes()
        return forge(path, {name: draw(damaged(members[name]))}).read_bytes()

    outcomes = {"loaded": 0, "refused": 0}

    def check(content: bytes) -> None:
        broken = tmp_path / "broken.spnode"
        broken.write_bytes(content)
        try:
            artifact.read_card(broken)
            loaded = artifact.load(broken)
        except ArtifactError:
            outcomes["refused"] += 1
            return
        # What loads repeats the rollout that it was saved with, so it is the same model.
        leaves = jax.tree.leaves(loaded)
        assert all(np.isfinite(each).all() for each in leaves if hasattr(each, "dtype"))
        outcomes["loaded"] += 1

    drawn = damaged(whole) | damaged_zip(whole) | forged()
    fuzz(drawn.map(lambda content: (content,)), check, examples=40)
    print(outcomes)
    assert outcomes["refused"]
