"""Damaged datasets: whatever is uploaded, the answer says what is wrong with it."""

import json
import multiprocessing
import resource
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from services.errors import Invalid
from services.parsing import parse
from services.settings import Settings
from spnode_core.dataset import check_arrays, save_dataset
from tests.core.test_formats import WRITERS, arrays
from tests.fuzzing import damaged, damaged_zip, fuzz, in_time

LIMIT = 2**20
MEMORY = 4 * 2**30
SECONDS = 30.0


def write_npz(path, given):
    save_dataset(check_arrays(given), path)


def write_foreign_npz(path, given):
    with path.open("wb") as file:
        np.savez_compressed(file, **given)


KINDS = {"npz": write_npz, "npz of others": write_foreign_npz, **WRITERS}
ZIPS = ("npz", "npz of others", "Zarr", "Zarr in a folder")


class Reader:
    """The function of the parser's process, called again and again in one of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = self._new()
        self.deaths = 0

    def read(self, content: bytes) -> str:
        """``"read"``, what it refused, or how the process ended."""
        source = self.folder / "file"
        source.write_bytes(content)
        try:
            return self._pool.submit(_read, source).result(SECONDS)
        except (BrokenProcessPool, TimeoutError):
            for process in list(self._pool._processes.values()):
                process.kill()
            self._pool.shutdown(wait=False)
            self._pool = self._new()
            self.deaths += 1
            return "died"

    def close(self) -> None:
        self._pool.shutdown()

    def _new(self) -> ProcessPoolExecutor:
        # Not forked: this process has threads of JAX.
        start = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, start, initializer=_limited)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(source: Path) -> str:
    from services.dataset_parser import _parse
    from spnode_core.errors import InvalidInput

    with tempfile.TemporaryDirectory() as folder:
        try:
            summary = _parse(source, Path(folder) / "kept", LIMIT, 1000)
        except InvalidInput as error:
            said = (error.field, error.found, error.expected)
            return f"refused: {error}" if all(said) else f"refused in silence: {said}"
        json.dumps(summary, allow_nan=False)
        return "read"


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    made = Reader(tmp_path_factory.mktemp("read"))
    yield made
    made.close()


@in_time
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_breaks_the_parser(kind, reader, tmp_path) -> None:
    path = tmp_path / "whole"
    KINDS[kind](path, arrays(ragged=True, missing=True))
    whole = path.read_bytes()
    assert reader.read(whole) == "read"
    outcomes: Counter[str] = Counter()

    def check(content: bytes) -> None:
        said = reader.read(content)
        outcome = said.partition(":")[0]
        outcomes[outcome] += 1
        if outcome != "died":
            return
        # In a process of its own that is a refusal as any other.
        path.write_bytes(content)
        settings = Settings(
            parser_memory_bytes=MEMORY, parser_seconds=SECONDS, max_upload_bytes=LIMIT
        )
        try:
            parse(path, tmp_path / "kept", settings)
        except Invalid as refused:
            # How a process of its own ends that is no longer shared: of itself, by a
            # limit, or by a signal of a library that cannot take damage.
            outcomes[refused.found[:60]] += 1

    drawn = damaged(whole)
    if kind in ZIPS:
        drawn |= damaged_zip(whole)
    fuzz(drawn.map(lambda content: (content,)), check, examples=25)
    print(kind, dict(outcomes))
    assert outcomes["refused"], "nothing was found to be wrong"
