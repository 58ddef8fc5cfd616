"""What makes a benchmark system: its flow, its starts and its times."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spnode_core.dataset import Dataset, check_arrays

Values = NDArray[np.float64]
Class = Literal["kinetics", "front", "forced", "oscillator", "ignition"]

# Mid-trajectory starts leave at least so much of the samples ahead.
_LATEST_START = 0.6


@dataclasses.dataclass(frozen=True)
class Starts:
    """Where trajectories begin and what acts on them."""

    x0: Values
    """``(trajectory, state)``."""
    parameters: Values
    """``(trajectory, parameter)``."""
    controls: Values
    """Held from each time to the next, ``(trajectory, time, control)``."""


@dataclasses.dataclass(frozen=True)
class System:
    """A stiff system with a solver that is trusted.

    Args:
        name: What its file is called.
        kind: Which bar its error is held to.
        equations: The right-hand side and its source, for the tables.
        states: Names of the states.
        times: Sampling times of the training data, from 0.
        sample: Draws starts.
        flow: The state at increasing times, from one start, with the times at which
            the controls change: ``(x0, parameters, controls, changes, times)``.
        parameters: Names of the parameters.
        controls: Names of the controls.
    """

    name: str
    kind: Class
    equations: str
    states: tuple[str, ...]
    times: Values
    sample: Callable[[np.random.Generator, int], Starts]
    flow: Callable[[Values, Values, Values, Values, Values], Values]
    parameters: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()

    def training_data(self, trajectories: int, seed: int) -> Dataset:
        """Trajectories from random starts at the sampling times."""
        starts = self._draw(trajectories, [seed, 0])
        states = self._solve(starts, self.times)
        return self._dataset(states, self.times, starts.parameters, starts.controls)

    def unseen(self, trajectories: int, seed: int) -> dict[str, Dataset]:
        """Trajectories of other starts, asked in three ways.

        Returns:
            ``starts``: as the training data. ``off_grid``: the same trajectories at
            times between the sampling times. ``mid``: from a random sample of each.
        """
        starts = self._draw(trajectories, [seed, 1])
        between = (self.times[:-1] + self.times[1:]) / 2
        both = np.sort(np.concatenate([self.times, between]))
        dense = self._solve(starts, both)
        states, off = dense[:, ::2], dense.copy()
        mask = np.zeros(dense.shape[:2], bool)
        mask[:, 0], mask[:, 1::2] = True, True
        off[~mask] = np.nan
        p, u = starts.parameters, starts.controls
        held = np.repeat(u, 2, axis=1)[:, : len(both)]
        return {
            "starts": self._dataset(states, self.times, p, u),
            "off_grid": self._dataset(off, both, p, held, mask),
            "mid": self._from_the_middle(states, p, u, [seed, 2]),
        }

    def _from_the_middle(
        self, states: Values, parameters: Values, controls: Values, seed: list[int]
    ) -> Dataset:
        rng = np.random.default_rng([*seed, zlib.crc32(self.name.encode())])
        count, samples = states.shape[:2]
        first = rng.integers(1, int(_LATEST_START * samples), count)
        index = np.minimum(first[:, None] + np.arange(samples), samples - 1)
        mask = first[:, None] + np.arange(samples) < samples
        rows = np.arange(count)[:, None]
        moved = np.where(mask[:, :, None], states[rows, index], np.nan)
        elapsed = self.times[index] - self.times[first][:, None]
        # Padding must increase; nothing there is looked at.
        beyond = np.cumsum(~mask, axis=1) * (self.times[-1] * 1e-3)
        return self._dataset(
            moved, elapsed + beyond, parameters, controls[rows, index], mask
        )

    def _draw(self, trajectories: int, seed: list[int]) -> Starts:
        rng = np.random.default_rng([*seed, zlib.crc32(self.name.encode())])
        return self.sample(rng, trajectories)

    def _solve(self, starts: Starts, times: Values) -> Values:
        return np.stack(
            [
                self.flow(x0, p, u, self.times, times)
                for x0, p, u in zip(
                    starts.x0, starts.parameters, starts.controls, strict=True
                )
            ]
        )

    def _dataset(
        self,
        states: Values,
        times: Values,
        parameters: Values,
        controls: Values,
        mask: NDArray[np.bool_] | None = None,
    ) -> Dataset:
        arrays = {"states": states, "times": times, "names": np.array(self.states)}
        if self.parameters:
            arrays["parameters"] = parameters
            arrays["parameter_names"] = np.array(self.parameters)
        if self.controls:
            arrays["controls"] = controls
            arrays["control_names"] = np.array(self.controls)
        if mask is not None:
            arrays["mask"] = mask
        return check_arrays(arrays)


def free_starts(x0: Values, samples: int, parameters: Values | None = None) -> Starts:
    """Starts of a system without controls."""
    p = np.zeros((len(x0), 0)) if parameters is None else parameters
    return Starts(x0, p, np.zeros((len(x0), samples, 0)))


def log_times(first: float, last: float, count: int) -> Values:
    """0, then ``count`` times with one ratio from each to the next."""
    return np.append(0.0, np.geomspace(first, last, count))
