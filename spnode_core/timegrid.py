"""The times at which a surrogate steps, and the plan of one rollout over them.

A coarse exponential step is part of the model, so a surrogate steps on its own grid,
measured from the start of the rollout, whatever times are asked for; the state at a
time ``t`` in ``(t_k, t_{k+1}]`` is one more step of length ``t - t_k`` from ``z_k``.
Hence ``x(t)`` never depends on the other times of a request. Nothing here imports JAX.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spnode_core.errors import InvalidInput
from spnode_core.spec import GridStepsSpec, UniformStepsSpec

Times = NDArray[np.float64]
Indices = NDArray[np.int32]

MAX_STEPS = 1_000_000
# Output times this close to a grid time (relative) are that grid time: a user who
# recomputes logspace(-5, 5, 50) gets the stored numbers only up to rounding.
_SAME_TIME = 1e-12
# Differences of a million multiples of h are h up to this.
_SAME_STEP = 1e-9
# Neighbouring intervals that grow by more than this make a grid logarithmic.
_LOGARITHMIC_GROWTH = 1.01


@dataclass(frozen=True)
class Plan:
    """The steps of one rollout and how each output is reached from them.

    Args:
        distinct: The different lengths of step, ``(distinct,)``; propagators are
            computed once for each. As many as there are steps are those of the steps,
            in their order.
        step_kind: Which of them each step on the grid takes, ``(step,)``.
        step_control: Control interval held during each step, ``(step,)``.
        output_index: Grid index each output starts from, ``(time,)`` or
            ``(batch, time)``.
        output_step: Remaining time from there, same shape; 0 on a grid time.
        output_control: Control interval held during the remainder, same shape.
        on_grid: Whether every output lies on the grid, so that no remainder is taken.
    """

    distinct: Times
    step_kind: Indices
    step_control: Indices
    output_index: Indices
    output_step: Times
    output_control: Indices
    on_grid: bool

    @property
    def steps(self) -> int:
        """Number of steps on the grid."""
        return self.step_kind.shape[-1]

    @property
    def outputs(self) -> int:
        """Number of output times."""
        return self.output_index.shape[-1]

    def rows(self, index: Any) -> "Plan":
        """The plan of some of the trajectories, where each has outputs of its own."""
        if self.output_index.ndim == 1:
            return self
        return replace(
            self,
            output_index=self.output_index[index],
            output_step=self.output_step[index],
            output_control=self.output_control[index],
        )

    def padded(self, steps: int, outputs: int) -> "Plan":
        """The same plan with ``h = 0`` steps and repeated last outputs: exact.

        Args:
            steps: Number of steps to pad to.
            outputs: Number of output times to pad to.

        Raises:
            ValueError: The plan is longer than that.
        """
        more_steps, more_outputs = steps - self.steps, outputs - self.outputs
        if more_steps < 0 or more_outputs < 0:
            raise ValueError(
                f"a plan of {self.steps} steps and {self.outputs} outputs cannot be "
                f"padded to {steps} and {outputs}"
            )
        last = [(0, 0)] * (self.output_index.ndim - 1) + [(0, more_outputs)]
        known = len(self.distinct)
        # All steps different: one more kind for each padded step. Few kinds: round
        # their number up, with room for h = 0, so that few shapes are compiled; never
        # to that of the steps, which would say that all of them differ.
        total = steps if known == self.steps else 1 << known.bit_length()
        if known != self.steps and total == steps:
            total *= 2
        padding = np.arange(known, known + more_steps, dtype=np.int32)
        return replace(
            self,
            distinct=np.pad(self.distinct, (0, total - known)),
            step_kind=np.append(self.step_kind, np.minimum(padding, total - 1)),
            step_control=np.pad(self.step_control, (0, more_steps)),
            output_index=np.pad(self.output_index, last, mode="edge"),
            output_step=np.pad(self.output_step, last, mode="edge"),
            output_control=np.pad(self.output_control, last, mode="edge"),
        )


@dataclass(frozen=True)
class TimeGrid:
    """Increasing times ``t_0 = 0 < t_1 < ...`` at which a surrogate steps.

    Args:
        times: The stored times, ``(grid,)``, in the unit of time of the data.
        uniform: Step length where the grid is uniform and endless, else None.
    """

    times: Times
    uniform: float | None = None

    @classmethod
    def from_spec(cls, steps: GridStepsSpec | UniformStepsSpec) -> "TimeGrid":
        """The grid that a resolved ``steps`` field describes."""
        if isinstance(steps, UniformStepsSpec):
            return cls(np.array([0.0, steps.step]), uniform=steps.step)
        return cls(np.asarray(steps.times, np.float64))

    @property
    def is_logarithmic(self) -> bool:
        """Whether the intervals grow geometrically for the most part."""
        widths = np.diff(self.times[1:])
        if self.uniform is not None or widths.size < 2:
            return False
        return float(np.median(widths[1:] / widths[:-1])) > _LOGARITHMIC_GROWTH

    def refined(self, factor: int) -> "TimeGrid":
        """The grid with every interval split into ``factor`` parts.

        Splits are geometric where the grid is logarithmic, arithmetic elsewhere and in
        the first interval, which begins at 0.
        """
        if factor == 1:
            return self
        if self.uniform is not None:
            step = self.uniform / factor
            return TimeGrid(np.array([0.0, step]), uniform=step)
        part = np.arange(factor) / factor
        left, right = self.times[:-1, None], self.times[1:, None]
        split = left + (right - left) * part
        if self.is_logarithmic:
            ratio = right[1:] / left[1:]
            split[1:] = left[1:] * ratio**part
        return TimeGrid(np.append(split.ravel(), self.times[-1]))

    def extended(self, end: float) -> Times:
        """Grid times from 0 to the first one at or beyond ``end``.

        Beyond its stored times a logarithmic grid goes on with its last ratio, any
        other with its last step.

        Raises:
            InvalidInput: That takes more than a million steps.
        """
        if self.uniform is not None:
            count = _steps_needed(np.ceil(end / self.uniform * (1 - _SAME_TIME)), end)
            return np.arange(count + 1, dtype=np.float64) * self.uniform
        last, before = self.times[-1], self.times[-2]
        if end <= last * (1 + _SAME_TIME):
            needed = int(np.searchsorted(self.times, end * (1 - _SAME_TIME)))
            return self.times[: needed + 1]
        if self.is_logarithmic:
            ratio = last / before
            count = _steps_needed(np.ceil(np.log(end / last) / np.log(ratio)), end)
            # The first time beyond one near the largest number is that number.
            with np.errstate(over="ignore"):
                more = last * ratio ** np.arange(1, count + 1)
            more = np.minimum(more, np.finfo(np.float64).max)
        else:
            width = last - before
            with np.errstate(over="ignore"):
                steps = np.ceil((end - last) / width)
            count = _steps_needed(steps, end)
            more = last + width * np.arange(1, count + 1)
        return np.concatenate([self.times, np.asarray(more, np.float64)])

    def bins(self, end: float, most: int = 10) -> Times:
        """Edges of bins of time from 0 to ``end``, spaced as the grid is.

        Args:
            end: Upper edge of the last bin.
            most: Number of bins, fewer where the grid has not as many steps.
        """
        grid = self.extended(end)
        count = min(most, len(grid) - 1)
        if not self.is_logarithmic:
            return np.linspace(0.0, end, count + 1)
        return np.append(0.0, np.geomspace(min(grid[1], end), end, count + 1)[1:])

    def plan(self, times: ArrayLike, control_times: ArrayLike | None = None) -> Plan:
        """The steps and remainders that give the states at ``times``.

        Args:
            times: Output times from the rollout's start, ``(time,)`` or one row per
                trajectory, ``(batch, time)``; finite, at least 0, not decreasing.
            control_times: Times at which the controls switch, ``(control_time,)``;
                they join the grid. Each value holds until the next.

        Raises:
            InvalidInput: Times that are not such, naming the first wrong one.
        """
        outputs = check_times(times)
        end = float(outputs.max(initial=0.0))
        grid = self.extended(end)
        switches = None
        if control_times is not None:
            switches = check_times(control_times, "control_times")
            if switches.ndim != 1 or switches[0] != 0:
                raise InvalidInput(
                    "control_times",
                    found=f"shape {switches.shape}, the first {switches.flat[0]}",
                    expected="a list that begins with 0, the start of the rollout",
                )
            grid = _merged(grid, switches[(switches > 0) & (switches < end)])
        index, remainder = _locate(grid, outputs)
        needed = int(index.max(initial=0))
        distinct, kind = self._kinds(np.diff(grid[: needed + 1]))
        return Plan(
            distinct=distinct,
            step_kind=kind,
            step_control=_interval(switches, grid[:needed]),
            output_index=index,
            output_step=remainder,
            output_control=_interval(switches, grid[index]),
            on_grid=not bool(remainder.any()),
        )

    def _kinds(self, widths: Times) -> tuple[Times, Indices]:
        """The distinct lengths among steps, and which one each step takes."""
        if self.uniform is not None:
            rounding = np.abs(widths - self.uniform) <= _SAME_STEP * self.uniform
            widths = np.where(rounding, self.uniform, widths)
        distinct, kind = np.unique(widths, return_inverse=True)
        if len(distinct) == len(widths):
            return widths, np.arange(len(widths), dtype=np.int32)
        return distinct, kind.astype(np.int32)


def check_times(times: ArrayLike, field: str = "times") -> Times:
    """The times as float64, or an error that names the first one that is wrong.

    Raises:
        InvalidInput: Empty, not numeric, not finite, negative or decreasing.
    """
    try:
        found = np.asarray(times, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            field,
            found=repr(times)[:80],
            expected="concrete numbers: they choose the steps, so that no jit, grad or "
            "vmap can run over them",
        ) from error
    if found.ndim not in (1, 2) or found.size == 0:
        raise InvalidInput(
            field,
            found=f"an array of shape {found.shape}",
            expected="a list of at least one time",
        )
    for bad, what in (
        (~np.isfinite(found), "a finite time"),
        (found < 0, "a time of at least 0, measured from the start of the rollout"),
    ):
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InvalidInput(
                _named(field, place), found=repr(float(found[place])), expected=what
            )
    falling = np.diff(found, axis=-1) < 0
    if falling.any():
        place = tuple(int(i) for i in np.argwhere(falling)[0])
        later = (*place[:-1], place[-1] + 1)
        raise InvalidInput(
            _named(field, later),
            found=f"{float(found[later])!r} after {float(found[place])!r}, a negative "
            "time step",
            expected="times in increasing order",
        )
    return found


def check_increasing(times: ArrayLike) -> Times:
    """One list of times without a repetition, or an error that names the first.

    Raises:
        InvalidInput: As of :func:`check_times`, or one of them is there twice.
    """
    found = check_times(times)
    if found.ndim != 1:
        raise InvalidInput(
            "times", found=f"shape {found.shape}", expected="one list for all rows"
        )
    repeated = np.flatnonzero(np.diff(found) == 0)
    if repeated.size:
        place = int(repeated[0]) + 1
        raise InvalidInput(
            f"times[{place}]",
            found=f"{float(found[place])!r} again",
            expected="times that increase strictly",
        )
    return found


def _named(field: str, place: tuple[int, ...]) -> str:
    return f"{field}[{', '.join(map(str, place))}]"


def _steps_needed(count: float, end: float) -> int:
    if count > MAX_STEPS:
        raise InvalidInput(
            "times",
            found=f"{end!r}, which takes {count:.3g} steps",
            expected=f"an end that takes at most {MAX_STEPS} steps of the model's grid",
        )
    return int(count)


def _same(left: Times, right: Times) -> NDArray[np.bool_]:
    return np.abs(left - right) <= _SAME_TIME * np.abs(right)


def _merged(grid: Times, switches: Times) -> Times:
    nearest = np.clip(np.searchsorted(grid, switches), 1, len(grid) - 1)
    known = _same(switches, grid[nearest]) | _same(switches, grid[nearest - 1])
    return np.union1d(grid, switches[~known])


def _locate(grid: Times, outputs: Times) -> tuple[Indices, Times]:
    """Last grid index before each output (or at it), and the time that remains."""
    above = np.clip(np.searchsorted(grid, outputs), 0, len(grid) - 1)
    below = np.maximum(above - 1, 0)
    on_above, on_below = _same(outputs, grid[above]), _same(outputs, grid[below])
    index = np.where(on_above, above, below).astype(np.int32)
    remainder = np.where(on_above | on_below, 0.0, outputs - grid[index])
    return index, remainder


def _interval(switches: Times | None, times: Times) -> Indices:
    """Index of the control value that holds from each time on."""
    if switches is None:
        return np.zeros(times.shape, np.int32)
    held = np.searchsorted(switches, times * (1 + _SAME_TIME), side="right") - 1
    return np.maximum(held, 0).astype(np.int32)
