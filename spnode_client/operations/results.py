"""Operations on the results of rollout jobs: ``/v1/jobs/{id}/result``."""

import contextlib
import hashlib
import json
import math
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from spnode_client.arrays import NPZ, pack, unpack
from spnode_client.calls import Call, OnBytes, Operation, json_call, once, perform
from spnode_client.errors import ClientError
from spnode_client.records import Dataset, Record

# Rows one after another lie in the same chunk, or in the next one.
_CACHED = 2
_ARRAYS = ("parameters", "controls", "control_times")


@dataclass(frozen=True)
class ResultChunk:
    """Some rows of a result.

    Attributes:
        start: The first of them.
        x: ``(row, time, state)``, or ``(row, state)`` of the final time.
        inside: By row, whether it lies inside the training domain.
        failed: Rows of the whole result that left the finite range.
        z: The latent trajectory, where it was asked for.
        spread: Standard deviation over an ensemble's members, where it was asked for.
    """

    start: int
    x: np.ndarray
    inside: np.ndarray
    failed: np.ndarray
    z: np.ndarray | None = None
    spread: np.ndarray | None = None


class Fetched:
    """What is known of a result: its index, and the chunks fetched last.

    Args:
        index: The index, as the service gives it.
        retries: Further tries of each request.
    """

    def __init__(self, index: Record, retries: int) -> None:
        self.index = index
        self.retries = retries
        self._cache: OrderedDict[int, ResultChunk] = OrderedDict()

    @property
    def numbers(self) -> range:
        """The numbers of the chunks."""
        return range(len(self.index["chunks"]))

    def chunk(self, number: int) -> Operation[ResultChunk]:
        """One chunk, fetched unless it was one of the last two.

        Raises:
            ClientError: It did not arrive as it was sent.
        """
        # Threads share it: another one may let go of what this one has found.
        if (known := self._cache.pop(number, None)) is not None:
            self._cache[number] = known
            return known
        described = self.index["chunks"][number]
        call = Call(
            "GET",
            f"/v1/jobs/{self.index['job']}/result/{number}",
            headers={"accept": NPZ},
            timeout_s=600,
        )
        reply = yield from perform(call, self.retries)
        if hashlib.sha256(reply.content).hexdigest() != described["digest"]:
            raise ClientError(f"chunk {number} of {self.index['job']} arrived damaged")
        arrays = unpack(reply.content)
        found = ResultChunk(
            described["start"],
            arrays["x"],
            arrays["inside"],
            arrays["failed"],
            arrays.get("z"),
            arrays.get("spread"),
        )
        self._cache[number] = found
        while len(self._cache) > _CACHED:
            with contextlib.suppress(KeyError):
                self._cache.popitem(last=False)
        return found

    def rows(self, key: Any) -> Operation[np.ndarray]:
        """The rows that an index means, as numpy: only chunks that hold any come.

        Raises:
            IndexError: A row beyond the result.
        """
        key, *rest = key if isinstance(key, tuple) else (key,)
        if key is Ellipsis:
            key, rest = slice(None), [Ellipsis, *rest]
        wanted = _wanted(key, self.index["rows"])
        parts, places = [], []
        for number in self.numbers:
            described = self.index["chunks"][number]
            start, stop = described["start"], described["start"] + described["rows"]
            where = np.flatnonzero((wanted >= start) & (wanted < stop))
            if where.size:
                chunk = yield from self.chunk(number)
                parts.append(chunk.x[wanted[where] - start][(slice(None), *rest)])
                places.append(where)
        if not parts:
            return np.zeros((0, *self.index["shape"][1:]))[(slice(None), *rest)]
        found = np.empty_like(parts[0], shape=(len(wanted), *parts[0].shape[1:]))
        for where, part in zip(places, parts, strict=True):
            found[where] = part
        return found[0] if np.ndim(key) == 0 and not isinstance(key, slice) else found

    def save(self, path: Path, on_bytes: OnBytes | None = None) -> Operation[Path]:
        """Write the whole result to an npz file, a chunk at a time.

        ``states``, ``times`` and ``names`` are those of a dataset's file; beside them
        ``inside``, and where there are any ``failed`` (rows), ``z``, ``spread``, and
        ``sweep`` (JSON). The file takes its name when it is complete.

        Args:
            path: The file.
            on_bytes: Told how many bytes of rows are written, and of how many.
        """
        inside: list[np.ndarray] = []
        failed: list[np.ndarray] = []

        shape = tuple(self.index["shape"])
        arrays: dict[str, tuple[tuple[int, ...], Callable[[ResultChunk], Any]]] = {
            "states": (shape, lambda chunk: chunk.x)
        }
        if (latent := self.index["latent"]) is not None:
            arrays["z"] = ((*shape[:-1], latent), lambda chunk: chunk.z)
        if self.index.get("spread"):
            arrays["spread"] = (shape, lambda chunk: chunk.spread)
        total = 8 * sum(math.prod(each) for each, _ in arrays.values())
        done = 0

        def wrote(name: str, chunk: ResultChunk, size: int) -> None:
            nonlocal done
            done += size
            if name == "states":
                inside.append(chunk.inside)
                failed.append(chunk.failed)
            if on_bytes is not None:
                on_bytes(done, total)

        with _archive(path) as archive:
            for name, (of_all, pick) in arrays.items():
                yield from self._write(archive, name, of_all, pick, wrote)
            members = {
                "times": np.array(self.index["times"]),
                "names": np.array(self.index["states"]),
                "inside": np.concatenate(inside),
            }
            if self.index["failed"]:
                members["failed"] = np.concatenate(failed)
            if self.index.get("sweep"):
                members["sweep"] = np.array(json.dumps(self.index["sweep"]))
            for name, array in members.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        return path

    def _write(
        self,
        archive: zipfile.ZipFile,
        name: str,
        shape: tuple[int, ...],
        pick: Callable[[ResultChunk], Any],
        wrote: Callable[[str, ResultChunk, int], None],
    ) -> Operation[None]:
        """One array of all chunks, none of which is kept."""
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(_as_binary(member), header)
            for number in self.numbers:
                chunk = yield from self.chunk(number)
                rows = np.ascontiguousarray(pick(chunk), "<f8")
                member.write(rows.data)
                wrote(name, chunk, rows.nbytes)


def index(job_id: str, retries: int) -> Operation[Record]:
    """What the chunks of a job's result are together."""
    reply = yield from perform(Call("GET", f"/v1/jobs/{job_id}/result"), retries)
    return reply.json()


def delete(job_id: str, retries: int) -> Operation[None]:
    """Delete the result and the inputs of a job that has ended."""
    yield from perform(Call("DELETE", f"/v1/jobs/{job_id}/result"), retries)


def submit(
    model: str, x0: Any, times: Any, options: Record, retries: int
) -> Operation[Record]:
    """Queue a rollout job; its arrays travel as npz."""
    request: Record = {"kind": "rollout", "model": model}
    arrays: dict[str, np.ndarray] = {}
    given = {"x0": x0, "times": times, **options}
    for name, value in given.items():
        if value is None:
            continue
        if name in ("x0", *_ARRAYS) or (
            name == "times" and not isinstance(value, dict)
        ):
            arrays[name] = np.ascontiguousarray(value, np.float64)
        else:
            request[name] = value.id if isinstance(value, Dataset) else value
    if arrays:
        text = json_call("POST", "", request).content
        assert isinstance(text, bytes)
        content = pack({**arrays, "request": text.decode()})
        headers = {"content-type": NPZ}
        call = Call("POST", "/v1/jobs", headers=headers, content=content, timeout_s=600)
    else:
        call = json_call("POST", "/v1/jobs", request)
    reply = yield from perform(once(call), retries)
    return reply.json()


def _wanted(key: Any, count: int) -> np.ndarray:
    """The rows that an index means, none of them negative."""
    if isinstance(key, slice):
        chosen = range(*key.indices(count))
        return np.arange(chosen.start, chosen.stop, chosen.step)
    rows = np.atleast_1d(np.asarray(key))
    if rows.dtype == bool and rows.shape == (count,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise IndexError(f"{key!r} means no rows: a number, a slice or a list of them")
    beyond = rows[(rows < -count) | (rows >= count)]
    if beyond.size:
        raise IndexError(f"row {beyond[0]} is beyond the {count} rows of the result")
    return np.where(rows < 0, rows + count, rows)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An npz file that takes its name only when it is complete."""
    part = path.with_name(f"{path.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            yield archive
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _as_binary(member: IO[bytes]) -> Any:
    # The type that numpy asks for has methods that a header's writer never calls.
    return member
