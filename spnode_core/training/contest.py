"""Which of several candidates is kept: the first good one, or the best of them."""

import dataclasses
import math
from typing import Any

from spnode_core.dataset import Dataset
from spnode_core.ensemble import ensemble_of, members_of
from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.normaliser import fit_scaling
from spnode_core.surrogate import Surrogate
from spnode_core.training.candidates import (
    GOOD,
    Candidate,
    held_out_error,
    is_finite,
    on_divided_steps,
    valid_part,
)
from spnode_core.training.choices import Choices
from spnode_core.training.execution import Execution
from spnode_core.training.parts import Parts, some
from spnode_core.training.progress import Progress, Reporter
from spnode_core.training.stages import OUT_OF_TIME, Record

_MOST_DIVIDED, _MOST_STEPS = 16, 20_000
"""Steps are divided by so much at most, and are so many to the end of the data."""
_GAIN = 0.8
"""Of the error that is left by half the steps, where they are worth it."""
_LOST, _SCATTERED = 0.3, 2.0
"""Errors from which rollouts have lost the truth, and up to which they may be right
but for that: two that have nothing to do with each other err by the root of 2."""
_LATE = 0.9
"""Of its wall time, after which a run that has a candidate begins no other: the rest
is gone before one is compiled."""
_LITTLE_LEFT = "too little of max_seconds is left"
_FEW, _FEW_OF_ALL = 20, 0.01
"""Iterations, and part of those planned, below which a candidate is hardly trained."""
_FINE = 0.1
"""Of a good error: what divided steps are to leave, lest a model depend on them."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A candidate that was run to its end."""

    name: str
    execution: Execution
    surrogate: Surrogate
    record: Record
    choices: Choices
    error: float

    @property
    def is_hardly_trained(self) -> bool:
        """Whether time ran out after hardly any iterations, and nothing came before."""
        spec = self.execution.training
        is_fitted = spec.initial is not None or self.execution.start is not None
        if is_fitted or OUT_OF_TIME not in self.record.outcome:
            return False
        planned = spec.iterations
        if spec.pretraining is not None:
            planned += spec.pretraining.iterations
        return self.record.iterations_done < max(_FEW, _FEW_OF_ALL * planned)

    def completed(self, seeds: tuple[int, ...]) -> "Entry":
        """The entry with all its members, where it was tried with the first alone.

        Args:
            seeds: Those of all members.
        """
        if len(seeds) == 1 or self.surrogate.signature.members > 1:
            return self
        tried = self.execution
        others = dataclasses.replace(
            tried, seeds=seeds[1:], first=self.surrogate, path=None, share=1.0
        )
        try:
            if tried.training.initial is None and tried.reporter.used >= _LATE:
                raise TrainingError(_LITTLE_LEFT)
            surrogate, made = others.run()
            if made.outcome.startswith(OUT_OF_TIME):
                raise TrainingError(made.outcome)
        except TrainingError as error:
            why = f"{self.record.outcome}; no other member was made: {error}"
            record = dataclasses.replace(self.record, outcome=why)
            return dataclasses.replace(self, record=record)
        record = dataclasses.replace(
            self.record,
            outcome=self.record.outcome + made.outcome.removeprefix(Record.outcome),
            best_losses=self.record.best_losses + made.best_losses,
        )
        tried.seeds = (*tried.seeds, *others.seeds)
        whole = ensemble_of([self.surrogate, *members_of(surrogate)])
        return dataclasses.replace(self, surrogate=whole, record=record)


class Contest:
    """The candidates run so far.

    Args:
        parts: Trajectories; those for validation judge.
        seed: Source of the starts that they are judged from.
        reporter: Progress, time and requests to stop.
    """

    def __init__(self, parts: Parts, seed: int, reporter: Reporter) -> None:
        self._parts, self._seed, self._reporter = parts, seed, reporter
        self._entries: list[Entry] = []
        self._verdicts: Choices = []
        self._scaling = fit_scaling(parts.train.states)
        self._overhead_s = 0.0

    def enter(
        self, candidate: Candidate, execution: Execution, *, is_last: bool
    ) -> bool:
        """Run a candidate and judge it.

        Returns:
            Whether it is good enough to leave it at that.

        Raises:
            TrainingError: It was the last and none of them can be used.
        """
        is_only = is_last and not self._verdicts
        started = self._reporter.seconds
        try:
            surrogate, record = execution.run()
        except (InvalidInput, TrainingError) as error:
            # What a candidate before the last cannot use was not the caller's choice.
            if is_last and (isinstance(error, InvalidInput) or not self._entries):
                raise
            self._judge(candidate, f"not kept: {error}")
            return False
        if is_only:
            name, choices = candidate.name, candidate.choices
            self._entries.append(
                Entry(name, execution, surrogate, record, choices, 0.0)
            )
            return True
        trained = self._reporter.seconds
        self._tell(f"judging {candidate.name}")
        train = some(self._parts.train, execution.seed)
        error, choices = self._error(surrogate, train), candidate.choices
        if candidate.may_divide:
            factor, error = self._divided(surrogate, train, error)
            if factor > 1:
                surrogate = on_divided_steps(surrogate, factor)
                execution.divide_steps(surrogate.spec)
                choices = [*choices, _said_of_steps(factor)]
        entry = Entry(candidate.name, execution, surrogate, record, choices, error)
        said = f"held-out error {error:.2g} of the spread, worst state"
        if entry.is_hardly_trained:
            said += f"; max_seconds ended it at iteration {record.iterations_done}"
        self._judge(candidate, said)
        if math.isfinite(error) or is_last:
            self._entries.append(entry)
        compiled = (record.begun_s or started) - started
        overhead = compiled + self._reporter.seconds - trained
        self._overhead_s = max(self._overhead_s, overhead)
        return error < GOOD

    def leaves_out(self, candidate: Candidate) -> bool:
        """Whether too little time is left to begin a candidate, where there is one.

        That is the last tenth of it, or less than another took to be compiled and
        judged: what it took beside its iterations.
        """
        reporter = self._reporter
        is_late = reporter.used >= _LATE or reporter.left_s() < self._overhead_s
        if not self._entries or not is_late:
            return False
        self._judge(candidate, f"not tried: {_LITTLE_LEFT}")
        return True

    @property
    def _judges(self) -> Dataset:
        """Trajectories held out, or where there are none some of those learned from."""
        held = self._parts.validation
        return held if held.trajectories else some(self._parts.train, self._seed)

    def _error(self, surrogate: Surrogate, train: Dataset) -> float:
        """On held-out trajectories; infinite where a rollout leaves the finite range.

        Args:
            surrogate: What to judge.
            train: Trajectories that it learned from.
        """
        held = self._judges
        # The test part has no say: what it measures is the one that was chosen.
        if not all(is_finite(surrogate, each) for each in (train, held)):
            return math.inf
        return held_out_error(surrogate, held, self._scaling, self._seed)

    def _divided(
        self, surrogate: Surrogate, train: Dataset, error: float
    ) -> tuple[int, float]:
        """By what to divide the steps, and the error then.

        Steps that grow with time are too long for what happens late and fast, such as
        a substance running out: a rollout errs there, or leaves the finite range.
        """
        best, factor, wanted = 1, 1, GOOD
        length = self._parts.train.longest
        while error >= wanted and factor < _MOST_DIVIDED:
            factor *= 2
            trial = on_divided_steps(surrogate, factor)
            is_long = len(trial.grid.extended(length)) > _MOST_STEPS
            if is_long or self._reporter.is_out_of_time:
                break
            self._tell(f"its steps divided by {factor}")
            found = self._error(trial, train)
            if math.isfinite(error) and not found < _GAIN * error:
                break
            if math.isfinite(found):
                # Errors that are all of the steps would change with every step.
                best, error, wanted = factor, found, _FINE * GOOD
        return best, error

    def winner(self) -> Entry:
        """Decide: the entry with the least error, its choices with the verdict on all.

        Where all rollouts lose the truth, as on chaos, the one that keeps it longest.
        One that is hardly trained wins only where there is no other: its error is luck.
        """
        trained = [each for each in self._entries if not each.is_hardly_trained]
        entries = trained or self._entries
        best = min(entries, key=lambda entry: entry.error)
        lost = [each for each in entries if each.error < _SCATTERED]
        if best.error > _LOST and len(lost) > 1:
            held = self._judges
            parts = [valid_part(each.surrogate, held, self._scaling) for each in lost]
            number = max(range(len(lost)), key=lambda n: (parts[n], -lost[n].error))
            best = lost[number]
            self._judge(best, f"right for {parts[number]:.2g} of a trajectory, longest")
        return dataclasses.replace(best, choices=[*self._verdicts, *best.choices])

    def cautions(self, kept: Entry) -> list[str]:
        """What the limit of time did to a result, a sentence each.

        Args:
            kept: The winner, with all its members.
        """
        found = []
        if OUT_OF_TIME in kept.record.outcome or _LITTLE_LEFT in kept.record.outcome:
            is_new = kept.is_hardly_trained
            more = "; it is hardly trained: allow more time" if is_new else ""
            found.append(kept.record.outcome + more)
        missed = [str(each["value"]) for each in self._verdicts if _is_missed(each)]
        others = ", ".join(name for name in missed if name != kept.name)
        if others and kept.error >= GOOD:
            found.append(f"max_seconds left too little time for {others}")
        return found

    def _judge(self, candidate: Candidate | Entry, verdict: str) -> None:
        self._verdicts.append(
            {"what": "candidate", "value": candidate.name, "why": verdict}
        )
        self._tell(f"{candidate.name}: {verdict}")

    def _tell(self, message: str) -> None:
        self._reporter.report(Progress("evaluate", message=message))


def _is_missed(verdict: dict[str, Any]) -> bool:
    """Whether time was what a candidate lacked: all such verdicts name the limit."""
    return "max_seconds" in verdict["why"]


def _said_of_steps(factor: int) -> dict[str, Any]:
    why = "on longer ones rollouts err, or leave the finite range"
    value = f"each divided by {factor}"
    return {"what": "surrogate.steps", "value": value, "why": why}
