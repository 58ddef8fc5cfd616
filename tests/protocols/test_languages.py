"""The page for other languages: its commands run, and its table of bytes is true."""

import json
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

from tests.protocols.environments import ROOT

PAGE = (ROOT / "docs" / "languages.md").read_text()
TIMES = [0.1, 1.0, 10.0]


@pytest.fixture(scope="module")
def folder(service, tmp_path_factory):
    """Where the commands of the page were run."""
    folder = tmp_path_factory.mktemp("curl")
    (commands,) = re.findall(r"```sh[^\n]*\n(.*?)```", PAGE, re.S)
    variables = {"URL": service.url, "KEY": service.key, "MODEL": "plain@latest"}
    done = subprocess.run(
        ["sh", "-euc", commands],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "no_proxy": "*", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def expected(service):
    x0 = np.array([[1.0, 0, 0], [0, 0, 1]])
    return np.array(service.surrogates["plain"].rollout(x0, np.array(TIMES)))


def test_the_three_forms_have_the_same_numbers(folder, expected):
    answer = json.loads((folder / "rollout.json").read_text())
    np.testing.assert_allclose(answer["x"], expected[0], rtol=1e-9, atol=1e-12)
    with np.load(folder / "rollout.npz") as members:
        assert members["x"].tolist() == answer["x"]
    raw = np.fromfile(folder / "x.f64").reshape(2, 3, 3)
    assert raw[0].tolist() == answer["x"]
    np.testing.assert_allclose(raw, expected, rtol=1e-9, atol=1e-12)
    printed = np.array((folder / "printed").read_text().split(), float)
    np.testing.assert_allclose(printed, raw.ravel(), rtol=1e-12)
    # As the page has it for the number (row, time, state).
    place = ((1 * 3 + 2) * 3 + 1) * 8
    found = struct.unpack_from("<d", (folder / "x.f64").read_bytes(), place)
    assert found == (raw[1, 2, 1],)


def told():
    """What stands where in a member, by the page: a formula and a length each."""
    table = PAGE.partition("From the beginning of a member:")[2].partition("\n\n\n")[0]
    rows = re.findall(r"^\| ([\d+nehs]+) \| ([\dnhs-]*) ?\| (.*) \|$", table, re.M)
    return [(offset.replace(" ", ""), length, what) for offset, length, what in rows]


def test_the_bytes_of_npz_are_where_the_page_says(folder):
    content = (folder / "rollout.npz").read_bytes()
    rows = told()
    assert len(rows) == 11
    found, start = {}, 0
    while content[start : start + 4] == b"PK\x03\x04":
        letters, parts, after = {}, {}, len(content)
        for offset, length, what in rows:
            at = start + eval(offset, letters.copy())
            if not length:
                after = at
                continue
            size = eval(length, letters.copy())
            part = content[at : at + size]
            named = re.match(r"`(\w)`: bytes", what)
            if named:
                letters[named[1]] = int.from_bytes(part, "little")
            parts[what.partition(":")[0].partition(";")[0].partition(",")[0]] = part
        assert parts["`\\x93NUMPY`"] == b"\x93NUMPY"
        assert parts["version of the form"] == b"\x01\x00"
        assert letters["e"] == 0
        header = eval(parts["the header"])
        numbers = np.frombuffer(parts["the numbers"], header["descr"])
        name = parts["the name"].decode().removesuffix(".npy")
        found[name] = numbers.reshape(header["shape"])
        start = after
    with np.load(folder / "rollout.npz") as members:
        assert set(found) == set(members)
        for name, array in members.items():
            np.testing.assert_array_equal(found[name], array)
    assert found["x"].dtype == "<f8"
    assert found["model"].dtype.str == "<U5"
    assert json.loads(str(found["domain"]))["inside"] == [True]


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_the_reader_in_c_reads_an_answer(folder):
    program, source = folder / "read_npz", ROOT / "docs" / "examples" / "read_npz.c"
    strict = ("-std=c99", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *strict, source, "-o", program], check=True)

    def read(content):
        return subprocess.run(
            [program], input=content, capture_output=True, check=False
        )

    content = (folder / "rollout.npz").read_bytes()
    done = read(content)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 2) for line in done.stdout.decode().splitlines()]
    told = {name: (descr, rest) for name, descr, rest in lines}
    with np.load(folder / "rollout.npz") as members:
        assert set(told) == set(members)
        descr, rest = told["x"]
        assert descr == "<f8"
        shape, _, numbers = rest.partition(")")
        assert shape + ")" == str(members["x"].shape)
        assert [float(each) for each in numbers.split()] == members[
            "x"
        ].ravel().tolist()
    for damaged in (b"", b"PK", content[:60], content[: len(content) // 2]):
        assert read(damaged).returncode == 1
