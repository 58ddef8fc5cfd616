"""Driving an optimiser in compiled chunks, with validation, stopping and checkpoints.

A chunk runs a number of iterations that is data, not shape, so nothing is compiled
twice; its length adapts to the clock. Validations come at fixed iterations and all
randomness is derived from the iteration, so neither chunks nor interruptions change a
bit of the result.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from spnode_core.errors import TrainingError
from spnode_core.training.progress import Progress, Reporter, Stopped

StageName = Literal["pretrain", "optimise", "polish"]
Values = NDArray[np.float64]

CHUNK_S = 0.7
OUT_OF_TIME = "max_seconds reached"
"""How the outcome of what its limit of time ended begins."""
_MOST_SKIPPED = 50
_ITERATING = 0.1
"""Of the wall time, for which a candidate iterates at least, once it is compiled."""


class State(NamedTuple):
    """What one iteration turns into the next, all of it arrays.

    Where several members are trained together each has a leading axis of them.
    """

    parameters: Any
    optimiser: Any
    iteration: Int[Array, ""]
    loss_sum: Float[Array, ""]
    """Sum of finite training losses since the last validation."""
    counted: Int[Array, ""]
    skipped: Int[Array, ""]
    """Iterations in a row whose loss or gradient was not finite."""


@dataclasses.dataclass
class Record:
    """What the host knows of a run; JSON, part of its checkpoint."""

    stage: StageName = "optimise"
    part: int = 0
    """Which of several stages of one name."""
    iteration: int = 0
    finished: bool = False
    best_losses: list[float] = dataclasses.field(default_factory=list)
    """Least validation loss of each member so far; empty before the first."""
    best_iteration: int = 0
    """The last one at which a member had a smaller loss than before."""
    loss: float | None = None
    outcome: str = "all iterations done"
    stage_seconds: float = 0.0
    begun_s: float | None = None
    """Seconds of the run when the first iteration, which compiles, was done."""
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def best_loss(self) -> float:
        """The largest of the members' least validation losses."""
        return max(self.best_losses, default=math.inf)

    @property
    def iterations_done(self) -> int:
        """Iterations of all stages so far."""
        done = {
            (each["stage"], each["part"]): each["iteration"] for each in self.history
        }
        return sum({**done, (self.stage, self.part): self.iteration}.values())


class Stage(Protocol):
    """One optimiser on one problem."""

    @property
    def name(self) -> StageName:
        """What it is called in progress and history."""
        ...

    iterations: int
    validate_every: int
    patience: int | None

    def start(self) -> State:
        """The state before the first iteration."""
        ...

    def members(self, parameters: Any) -> list[Any]:
        """The surrogates of a state's parameters."""
        ...

    def advance(self, state: State, count: int) -> State:
        """Run some iterations; the state passed in is used up."""
        ...

    def validate(self, parameters: Any) -> Values:
        """Loss of each member on the validation trajectories."""
        ...

    def learning_rate(self, iteration: int) -> float | None:
        """Learning rate at an iteration, where there is one."""
        ...


def first_state(parameters: Any, optimiser: Any) -> State:
    """The state before the first iteration, strictly typed so that it stays so."""
    state = State(
        parameters,
        optimiser,
        iteration=jnp.zeros((), jnp.int32),
        loss_sum=jnp.zeros((), jnp.float64),
        counted=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
    )
    # Copies: chunks donate their state, and weak types would compile twice.
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.result_type(leaf)), state)


@dataclasses.dataclass
class Drive:
    """The loop around a stage's chunks.

    Args:
        stage: What to run.
        record: Where the run is.
        reporter: Progress, time and requests to stop.
        save: Writes a checkpoint of a state, its best parameters and the record.
        seconds_after: Estimate of the stages that follow, from seconds an iteration.
        checkpoint_s: Seconds between two checkpoints, at least.
        share: It ends when the run has used so much of its wall time.
    """

    stage: Stage
    record: Record
    reporter: Reporter
    save: Callable[[State, Any, Record], None]
    seconds_after: Callable[[float], float]
    checkpoint_s: float
    share: float = 1.0
    _saved: float = dataclasses.field(default_factory=time.monotonic)
    _each_s: float | None = None
    _is_timed: bool = False
    """Whether ``_each_s`` was measured: the first chunk compiles."""

    def run(self, state: State, best: Any) -> tuple[State, Any]:
        """Iterate to the end of the stage.

        Returns:
            The last state, and the parameters of the best validation.

        Raises:
            Stopped: The caller asked for it; a checkpoint is written first.
            TrainingError: Nothing but non-finite losses.
        """
        if self.record.iteration == 0:
            state, best = self._validated(state, best)
        while not self.record.finished:
            state = self._chunk(state)
            if self._is_validation_due():
                state, best = self._validated(state, best)
            self._between_chunks(state, best)
        return state, best

    def _chunk(self, state: State) -> State:
        record, stage = self.record, self.stage
        to_validation = stage.validate_every - record.iteration % stage.validate_every
        count = min(to_validation, stage.iterations - record.iteration)
        # The first chunk is one iteration: it compiles and is not timed.
        each = self._each_s
        affordable = 1 if each is None else max(1, int(CHUNK_S / max(each, 1e-9)))
        count = min(count, affordable)
        started = time.monotonic()
        state = jax.block_until_ready(stage.advance(state, count))
        seconds = time.monotonic() - started
        if record.begun_s is None:
            record.begun_s = self.reporter.seconds
            # Else what compiles for long is cut at its first iteration.
            self.share = max(self.share, min(self.reporter.used + _ITERATING, 1.0))
        self._is_timed = each is not None
        self._each_s = seconds / count if self._is_timed else CHUNK_S / 5
        record.iteration += count
        record.stage_seconds += seconds
        skipped = int(np.max(state.skipped))
        if skipped >= _MOST_SKIPPED:
            raise TrainingError(
                f"the loss was not finite in {skipped} iterations up to "
                f"{record.iteration} of stage {stage.name!r}: lower learning_rate, set "
                "clip, or use the relaxation form, whose rollouts cannot overflow"
            )
        return state

    def _is_validation_due(self) -> bool:
        iteration, stage = self.record.iteration, self.stage
        is_last = iteration >= stage.iterations
        return is_last or iteration % stage.validate_every == 0

    def _validated(self, state: State, best: Any) -> tuple[State, Any]:
        record, stage = self.record, self.stage
        losses = stage.validate(state.parameters)
        validation = float(np.mean(losses))
        counted = int(np.sum(state.counted))
        mean = float(np.sum(state.loss_sum)) / counted if counted else math.inf
        record.loss = mean if math.isfinite(mean) else None
        record.history.append(
            {
                "stage": stage.name,
                "part": record.part,
                "iteration": record.iteration,
                "loss": record.loss,
                "validation_loss": validation if math.isfinite(validation) else None,
                "learning_rate": stage.learning_rate(record.iteration),
            }
        )
        before = np.array(record.best_losses or np.full(len(losses), np.inf))
        better = losses < before
        record.best_losses = np.where(better, losses, before).tolist()
        if better.any():
            record.best_iteration = record.iteration
            best = _better(better, state.parameters, best)
        waited = record.iteration - record.best_iteration
        if record.iteration >= stage.iterations:
            record.finished = True
        elif stage.patience is not None and waited >= stage.patience:
            record.finished = True
            record.outcome = (
                f"{stage.name} stopped at iteration {record.iteration}: no better "
                f"validation loss for {waited} iterations"
            )
        zero = jnp.zeros_like
        state = state._replace(
            loss_sum=zero(state.loss_sum), counted=zero(state.counted)
        )
        return state, best

    def _between_chunks(self, state: State, best: Any) -> None:
        record, reporter = self.record, self.reporter
        reporter.report(self._progress())
        if reporter.used >= self.share and not record.finished:
            record.finished = True
            what = OUT_OF_TIME if self.share >= 1 else "its share of " + OUT_OF_TIME
            record.outcome = (
                f"{what} in stage {self.stage.name!r} at iteration "
                f"{record.iteration} of {self.stage.iterations}; the best parameters "
                "so far were kept"
            )
        reason = reporter.stop_reason()
        now = time.monotonic()
        due = now - self._saved > self.checkpoint_s
        if reason is not None or record.finished or due:
            self.save(state, best, record)
            self._saved = now
        if reason is not None:
            raise Stopped(reason)

    def _progress(self) -> Progress:
        record, stage = self.record, self.stage
        last = record.history[-1]["validation_loss"] if record.history else None
        return Progress(
            stage=stage.name,
            part=record.part,
            iteration=record.iteration,
            iterations=stage.iterations,
            loss=record.loss,
            validation_loss=last,
            remaining_s=self._remaining_s(),
            message=f"{stage.name} {record.iteration} of {stage.iterations}",
        )

    def _remaining_s(self) -> float | None:
        """Estimate of what is left, at most what the limit of time leaves."""
        if not self._is_timed:
            return None
        each = self._each_s or 0.0
        left = (self.stage.iterations - self.record.iteration) * each
        return min(left + self.seconds_after(each), self.reporter.left_s(self.share))


def _better(better: NDArray[np.bool_], new: Any, old: Any) -> Any:
    """The parameters of members that are better, and the old ones of the others."""
    if better.all():
        return jax.tree.map(jnp.copy, new)

    def chosen(new: Array, old: Array) -> Array:
        axes = (len(better), *(1,) * (new.ndim - 1))
        return jnp.where(better.reshape(axes), new, old)

    return jax.tree.map(chosen, new, old)
