"""npz bodies in memory: the same as numpy's, and nothing that is damaged gets through."""

import io
import zipfile

import numpy as np
import pytest

from services.rollouts.archive import _read_plain, read_archive, write_archive
from spnode_core.errors import InvalidInput
from spnode_core.npz import open_npz

ARRAYS = {
    "x0": np.arange(6.0).reshape(3, 2),
    "times": np.geomspace(1e-3, 1e3, 5),
    "step": np.array(0.25),
    "single": np.arange(4, dtype=np.float32),
    "count": np.array([3], np.int16),
    "turned": np.arange(6.0).reshape(3, 2).T,
    "model": np.array("robertson@champion"),
    "bytes": np.array(b"text"),
}
LIMIT = 10**6


def saved(save=np.savez, **arrays):
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_what_numpy_saves_is_read_plainly():
    body = saved(**ARRAYS)
    found = _read_plain(body, ARRAYS, LIMIT)
    same(found, ARRAYS)
    assert all(array.flags.aligned for array in found.values())


def test_what_is_written_numpy_loads_and_is_read_back():
    arrays = ARRAYS | {"empty": np.zeros((0, 3)), "strided": np.arange(9.0)[::2]}
    body = write_archive(arrays)
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        same({name: archive[name] for name in archive.files}, arrays)
    same(read_archive(body, allowed=arrays, limit_bytes=LIMIT), arrays)
    same(_read_plain(write_archive(ARRAYS), ARRAYS, LIMIT), ARRAYS)


@pytest.mark.parametrize("arrays", [ARRAYS, {"x0": np.zeros((0, 3))}])
def test_other_containers_are_read_too(arrays):
    body = saved(np.savez_compressed, **arrays)
    same(read_archive(body, allowed=arrays, limit_bytes=LIMIT), arrays)


@pytest.mark.parametrize(
    ("arrays", "limit", "said"),
    [
        ({"x9": np.ones(1)}, LIMIT, "unknown array"),
        ({"x0": np.ones(100)}, 500, "after decompression"),
        ({"x0": np.array([{}], object)}, LIMIT, "pickled"),
        ({"x0": np.ones(1, complex)}, LIMIT, "complex"),
    ],
)
def test_what_is_refused_is_named(arrays, limit, said):
    with pytest.raises(InvalidInput, match=said):
        read_archive(saved(**arrays), allowed=ARRAYS, limit_bytes=limit)


def test_no_damage_gets_through():
    """A byte that is changed anywhere is found, or has no meaning for the arrays."""
    body = write_archive({name: ARRAYS[name] for name in ("x0", "model")})
    expected = {name: ARRAYS[name] for name in ("x0", "model")}
    refused = 0
    for place in range(len(body)):
        damaged = bytearray(body)
        damaged[place] ^= 0x11
        try:
            found = read_archive(bytes(damaged), allowed=ARRAYS, limit_bytes=LIMIT)
        except InvalidInput:
            refused += 1
        else:
            # zipfile overlooks members beyond a smaller count; none of them is altered.
            same(found, {name: expected[name] for name in found})
    assert refused > len(body) // 2


def test_no_part_of_a_container_is_taken_for_the_whole():
    body = saved(**ARRAYS)
    for stop in range(0, len(body), 7):
        with pytest.raises(InvalidInput):
            read_archive(body[:stop], allowed=ARRAYS, limit_bytes=LIMIT)


def forged(header, data=bytes(16), compression=zipfile.ZIP_STORED):
    """A container of one array whose npy header says what it is told to."""
    text = header.encode().ljust(117) + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("x0.npy", member)
    return buffer.getvalue()


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"


@pytest.mark.parametrize(
    "body",
    [
        forged(HEADER.format("<f8", "(True,)")),
        forged(HEADER.format("<f8", "(-1, -2)")),
        forged(HEADER.format("<f8", f"({'1, ' * 70})")),
        forged(HEADER.format("<f8", "(0, 4611686018427387904, 4)"), b""),
        forged(HEADER.format("<U0", "(2,)"), b""),
        forged("{'descr': '<f8', 'shape': (2,"),
        forged("[" * 100),
        forged(HEADER.format("<f8", "(2,)"), compression=zipfile.ZIP_LZMA),
        forged(HEADER.format("<f8", "(2,)"), compression=zipfile.ZIP_BZIP2),
    ],
    ids=["bool", "negative", "axes", "huge", "empty", "cut", "deep", "lzma", "bzip2"],
)
def test_a_header_that_lies_is_refused(body, tmp_path):
    with pytest.raises(InvalidInput):
        read_archive(body, allowed=ARRAYS, limit_bytes=LIMIT)
    path = tmp_path / "rows.npz"
    path.write_bytes(body)
    with (
        pytest.raises(InvalidInput),
        open_npz(path, allowed=ARRAYS, limit_bytes=LIMIT) as members,
    ):
        members["x0"].rows(2)
