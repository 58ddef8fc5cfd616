"""The small versions of all examples: each bar is one that a broken method misses."""

import pytest

from benchmarks.paper.command import EXAMPLES, Request, reproduce
from benchmarks.paper.rows import Options


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", EXAMPLES)
def test_small_version_reaches_its_bars_and_writes_its_page(name, tmp_path, cache):
    request = Request(
        examples=[name],
        options=Options(seeds=(0,), quick=True, cache=cache),
        out=tmp_path,
        command=f"./spnode reproduce {name} --quick",
    )
    bars = reproduce(request)
    assert bars
    assert all(bar["passed"] for bar in bars), bars
    for ending in ("json", "md", "png"):
        assert (tmp_path / f"{name}.{ending}").stat().st_size > 500
