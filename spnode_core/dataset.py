"""Datasets: trajectories of one system, each on its own times, with names and units.

A dataset is checked once, when it is made, and is right from then on: states that are
missing are NaN and False in ``mask``, everything else is finite, times increase, and
the first sample of every trajectory is complete. Nothing here imports JAX.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from spnode_core.dataset_checks import checked
from spnode_core.errors import InvalidInput, counted
from spnode_core.formats.reading import read_arrays
from spnode_core.npz import write_npz
from spnode_core.spec import LEAST_AHEAD, SplitSpec

DEFAULT_LIMIT_BYTES = 4 * 1024**3
_LATEST_START = 0.6


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories with names and units; build it with ``check_arrays``.

    Args:
        states: ``(trajectory, time, state)``, NaN where ``mask`` is False.
        times: ``(trajectory, time)``, strictly increasing over the samples of a
            trajectory; behind its last sample the last time repeats or goes on.
        mask: ``(trajectory, time, state)``, True where a sample is present.
        names: Name of each state.
        units: Unit of each state, or empty.
        time_unit: Unit of time, or empty.
        parameters: ``(trajectory, parameter)``.
        parameter_names: Name of each parameter.
        controls: ``(trajectory, time, control)``, each held until the next time.
        control_names: Name of each control.
        conserved: Named sums that each trajectory keeps: name to state to coefficient.
        positive: Whether the states are known to stay positive.
    """

    states: np.ndarray
    times: np.ndarray
    mask: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...] = ()
    time_unit: str = ""
    parameters: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    parameter_names: tuple[str, ...] = ()
    controls: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros((0, 0, 0))
    )
    control_names: tuple[str, ...] = ()
    conserved: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    positive: bool = False

    @property
    def trajectories(self) -> int:
        """Number of trajectories."""
        return self.states.shape[0]

    @cached_property
    def elapsed(self) -> np.ndarray:
        """Times since the start of each trajectory, ``(trajectory, time)``."""
        return self.times - self.times[:, :1]

    @cached_property
    def present(self) -> np.ndarray:
        """Where any state was sampled, ``(trajectory, time)``."""
        return np.asarray(self.mask.any(axis=2))

    @cached_property
    def later(self) -> np.ndarray:
        """Samples after the start, ``(trajectory, time, state)``: not given, foretold.

        Every trajectory has some.
        """
        return np.asarray(self.mask & (self.elapsed > 0)[..., None])

    @cached_property
    def filled(self) -> np.ndarray:
        """States with those of the start where a sample is missing."""
        return np.where(self.mask, self.states, self.states[:, :1])

    @cached_property
    def longest(self) -> float:
        """Longest time from the start of a trajectory to a sample of it."""
        return float(self.elapsed[self.present].max())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: equal for equal data, whatever file it came from."""
        content = hashlib.sha256(b"spnode dataset 1\n")
        for key, value in sorted(_to_arrays(self).items()):
            array = np.ascontiguousarray(value)
            if array.dtype.kind == "U":
                data = "\0".join(array.ravel().tolist()).encode()
            else:
                data = array.astype(array.dtype.newbyteorder("<")).tobytes()
            content.update(f"{key} {array.dtype.kind} {array.shape}\n".encode())
            content.update(hashlib.sha256(data).digest())
        return content.hexdigest()

    def take(self, indices: np.ndarray) -> Self:
        """Return the trajectories at ``indices``, in that order."""
        rows = {
            key: getattr(self, key)[indices]
            for key in ("states", "times", "mask", "parameters", "controls")
        }
        return dataclasses.replace(self, **rows)

    def windows(self, ahead: int, most: int, seed: int) -> Self:
        """Cut pieces that begin at any complete sample and go some samples ahead.

        Args:
            ahead: Samples after the first of each piece.
            most: Where there are more pieces, so many are chosen at random.
            seed: Source of that choice.

        Raises:
            InvalidInput: No trajectory is as long.
        """
        complete = np.asarray(self.mask.all(axis=2))
        lengths = self.present.shape[1] - self.present[:, ::-1].argmax(axis=1)
        starts = np.arange(self.present.shape[1])
        fits = complete & (starts + ahead < lengths[:, None])
        row, start = np.nonzero(fits)
        if len(row) == 0:
            raise InvalidInput(
                "training.horizon",
                found=f"{counted(ahead, 'sample')} ahead",
                expected=f"at most {int(lengths.max()) - 1}, the longest trajectory",
            )
        if len(row) > most:
            order = np.random.default_rng([seed, 23]).permutation(len(row))
            chosen = np.sort(order[:most])
            row, start = row[chosen], start[chosen]
        samples = start[:, None] + np.arange(ahead + 1)
        along = {
            key: getattr(self, key)[row[:, None], samples]
            for key in ("states", "times", "mask", "controls")
        }
        return dataclasses.replace(self, **along, parameters=self.parameters[row])

    def pieces(self, count: int) -> Self:
        """Cut each trajectory into consecutive pieces of about as many samples.

        A piece begins with the complete sample that ends the one before. What is left
        after the last whole piece is left out.

        Args:
            count: Pieces of each trajectory.

        Raises:
            InvalidInput: A trajectory has fewer than two samples for each.
        """
        complete = np.asarray(self.mask.all(axis=2))
        cuts = []
        for row in range(self.trajectories):
            at = np.flatnonzero(complete[row])
            each = (len(at) - 1) // count
            if each < LEAST_AHEAD:
                raise InvalidInput(
                    "split.pieces",
                    found=f"{counted(len(at), 'complete sample')} in trajectory {row}",
                    expected=f"at least {LEAST_AHEAD * count + 1}, to be cut into "
                    f"{count} pieces, or more trajectories",
                )
            cuts.append(at[: each * count + 1 : each])
        first, last = np.array(cuts)[:, :-1].ravel(), np.array(cuts)[:, 1:].ravel()
        rows = np.repeat(np.arange(self.trajectories), count)
        return self._from_to(rows, first, last, int((last - first).max()) + 1)

    def joined(self, other: Self) -> Self:
        """Its trajectories, then those of a dataset with the same names and lengths."""
        rows = {
            key: np.concatenate([getattr(self, key), getattr(other, key)])
            for key in ("states", "times", "mask", "parameters", "controls")
        }
        return dataclasses.replace(self, **rows)

    def from_later_samples(self, seed: int) -> Self:
        """Each trajectory from one of its later complete samples on, as a start.

        Args:
            seed: Source of the choice; two fifths of the samples are left, or two. A
                trajectory of fewer than three complete samples stays as it is.
        """
        rng = np.random.default_rng([seed, 26])
        complete = np.asarray(self.mask.all(axis=2))
        length = self.times.shape[1]
        first = np.zeros(self.trajectories, np.int64)
        for row in range(self.trajectories):
            at = np.flatnonzero(complete[row])
            if len(at) > 2:
                last = max(min(int(_LATEST_START * len(at)), len(at) - 2), 1)
                first[row] = at[rng.integers(1, last + 1)]
        last = np.full(self.trajectories, length - 1)
        return self._from_to(np.arange(self.trajectories), first, last, length)

    def _from_to(
        self, rows: np.ndarray, first: np.ndarray, last: np.ndarray, length: int
    ) -> Self:
        """Runs of samples of some trajectories, none behind the last of each run."""
        row, later = rows[:, None], first[:, None] + np.arange(length)
        index, inside = np.minimum(later, last[:, None]), later <= last[:, None]
        mask = self.mask[row, index] & inside[:, :, None]
        return dataclasses.replace(
            self,
            states=np.where(mask, self.states[row, index], np.nan),
            times=self.times[row, index],
            mask=mask,
            controls=self.controls[row, index],
            parameters=self.parameters[rows],
        )

    def split(self, split: SplitSpec, seed: int) -> tuple[Self, Self, Self]:
        """Divide the trajectories at random into training, validation and test.

        They are cut into pieces first, where ``split.pieces`` says so.

        Args:
            split: Fractions held out; a fraction above 0 takes one trajectory at least.
            seed: Equal seeds divide equal datasets equally; ``split.seed`` goes before.

        Raises:
            InvalidInput: Too few trajectories for such a split, trajectories too short
                to be cut, or a negative seed.
        """
        if seed < 0:
            raise InvalidInput("seed", found=repr(seed), expected="at least 0")
        seed = seed if split.seed is None else split.seed
        whole = self if split.pieces == 1 else self.pieces(split.pieces)
        trained, *held = split.sizes(self.trajectories)
        if trained < 1:
            raise InvalidInput(
                "split",
                found=counted(whole.trajectories, "trajectory", "trajectories")
                + " for training, validation and test",
                expected=f"at least {sum(f > 0 for f in held) + 1}; add trajectories, "
                "cut long ones by split.pieces, or set split.validation or split.test "
                "to 0",
            )
        order = np.random.default_rng([seed, 20]).permutation(whole.trajectories)
        validation, test, train = np.split(order, np.cumsum(held))
        train, validation, test = (np.sort(part) for part in (train, validation, test))
        return whole.take(train), whole.take(validation), whole.take(test)


def check_arrays(arrays: Mapping[str, Any]) -> Dataset:
    """Build a dataset from arrays by name, or say exactly what is wrong with them.

    Args:
        arrays: ``states`` (trajectory, time, state) and ``times`` (time,) or
            (trajectory, time); optionally ``names``, ``units``, ``time_unit``,
            ``parameters`` (trajectory, parameter), ``parameter_names``, ``controls``
            (trajectory, time, control), ``control_names``, ``mask`` (trajectory, time)
            or (trajectory, time, state), ``lengths`` (trajectory,), ``conserved``
            (sum, state) with ``conserved_names``, and ``positive``.

    Raises:
        InvalidInput: Names the place, e.g. ``states[3, 17, 1]``, what is there and what
            belongs there.
    """
    return Dataset(**checked(arrays))


def load_dataset(
    path: str | Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Dataset:
    """Read and check a file; its arrays are those of ``check_arrays``.

    Args:
        path: npz, HDF5, netCDF, Zarr (a zip or a folder), MATLAB, Parquet or CSV, told
            by its content and laid out as ``docs/datasets.md`` says. It need not come
            from a trusted place.
        limit_bytes: Most bytes that its arrays may take in memory.

    Raises:
        InvalidInput: The file or an array in it cannot be used, and why.
    """
    return check_arrays(read_arrays(Path(path), limit_bytes))


def save_dataset(dataset: Dataset, path: str | Path) -> None:
    """Write an npz file that ``load_dataset`` reads back to the same digest."""
    write_npz(Path(path), _to_arrays(dataset))


def _to_arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    """The arrays of the npz form, optional ones only where they say something."""
    arrays: dict[str, np.ndarray] = {
        "states": dataset.states,
        "times": dataset.times,
        "names": np.array(dataset.names),
    }
    if (dataset.times == dataset.times[0]).all():
        arrays["times"] = dataset.times[0]
    if not dataset.mask.all():
        arrays["mask"] = dataset.mask
    if dataset.units:
        arrays["units"] = np.array(dataset.units)
    if dataset.time_unit:
        arrays["time_unit"] = np.array(dataset.time_unit)
    if dataset.parameter_names:
        arrays["parameters"] = dataset.parameters
        arrays["parameter_names"] = np.array(dataset.parameter_names)
    if dataset.control_names:
        arrays["controls"] = dataset.controls
        arrays["control_names"] = np.array(dataset.control_names)
    if dataset.conserved:
        arrays["conserved_names"] = np.array(list(dataset.conserved))
        arrays["conserved"] = np.array(
            [
                [sums.get(name, 0.0) for name in dataset.names]
                for sums in dataset.conserved.values()
            ]
        )
    if dataset.positive:
        arrays["positive"] = np.array(True)
    return arrays
