"""Checkpoints: exact, of one run only, and never half written."""

import numpy as np
import pytest

from spnode_core.errors import InvalidInput
from spnode_core.training.checkpoint import load_checkpoint, save_checkpoint

IDENTITY = {"seed": 3, "dataset": "abc"}


def test_arrays_keep_their_bits_and_shapes(tmp_path):
    path = tmp_path / "run.ckpt"
    random = np.random.default_rng(0)
    arrays = {
        "a": random.normal(size=(3, 2)),
        "b": np.float32(random.normal(size=4)),
        "c": np.array(7, np.int32),
        "d": np.array([np.nan, np.inf, -0.0]),
    }
    save_checkpoint(path, arrays, {**IDENTITY, "loss": 0.1 + 0.2})
    loaded = load_checkpoint(path, IDENTITY)
    assert loaded is not None
    assert loaded[1]["loss"] == 0.1 + 0.2
    for name, array in arrays.items():
        assert loaded[0][name].tobytes() == array.tobytes()
        assert loaded[0][name].shape == array.shape
        assert loaded[0][name].dtype == array.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


def test_no_file_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path / "none", IDENTITY) is None


def test_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    save_checkpoint(path, {"a": np.ones(1)}, {**IDENTITY, "seed": 4})
    with pytest.raises(InvalidInput, match="a run with another seed"):
        load_checkpoint(path, IDENTITY)


def test_damaged_checkpoint_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "run.ckpt"
    save_checkpoint(path, {"a": np.ones(100)}, IDENTITY)
    whole = path.read_bytes()
    for content in (b"", whole[:50], whole[:-8], b"\x80\x04pickle"):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="remove the file"):
            load_checkpoint(path, IDENTITY)
