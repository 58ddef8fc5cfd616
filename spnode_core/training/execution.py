"""The stages of one run, from the start or from a checkpoint.

::

    infer operators -> pretrain -> optimise (a stage for each horizon) -> polish
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spnode_core.autoencoder import PODAutoencoder
from spnode_core.dataset import Dataset
from spnode_core.ensemble import ensemble_of
from spnode_core.errors import TrainingError
from spnode_core.samples import Problem, build_problem
from spnode_core.spec import (
    OperatorInferenceSpec,
    PretrainingSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.surrogate import Surrogate
from spnode_core.training.checkpoint import load_checkpoint, restored, save_checkpoint
from spnode_core.training.continuation import continuations
from spnode_core.training.descent import Descent, Stretch
from spnode_core.training.initial_operators import (
    encoded_snapshots,
    infer_corrected,
    infer_operators,
)
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.manifold import Manifold, build_manifold
from spnode_core.training.members import resampled, shares_latents
from spnode_core.training.objectives import ManifoldObjective, RolloutObjective
from spnode_core.training.pairs import PairObjective
from spnode_core.training.parts import Parts, some
from spnode_core.training.polish import Polish
from spnode_core.training.progress import Progress, Reporter, Stopped
from spnode_core.training.stages import Drive, Record, Stage, StageName, State

# Float64, line searches and a larger batch: one polish iteration over one of descent.
_POLISH_COST = 4.0
_MOST_WINDOW_VALUES = 20_000_000
_MOST_WINDOWS = 20_000


@dataclasses.dataclass
class Execution:
    """What the stages of one run share.

    Args:
        parts: Trajectories.
        spec: Description of the surrogate without an open field.
        training: Description of the training without an open field.
        seed: Source of all randomness, but for that of further members.
        reporter: Progress, time and requests to stop.
        identity: What a checkpoint must agree with; JSON.
        path: The checkpoint, if any.
        checkpoint_s: Seconds between two checkpoints, at least.
        share: It ends within this part of the run's wall time.
        start: The surrogate that training goes on from; None makes a new one.
        seeds: Source of the randomness of each member, of the others as well as of the
            first, whose seed is that of the run.
        first: The first member, where only others are made; ``seeds`` are theirs.
        may_divide: Whether others may divide the steps afterwards, so that rollouts
            that leave the finite range on these are no end of it.
    """

    parts: Parts
    spec: SurrogateSpec
    training: TrainingSpec
    seed: int
    reporter: Reporter
    identity: dict[str, Any]
    path: Path | None
    checkpoint_s: float
    share: float = 1.0
    start: Surrogate | None = None
    seeds: tuple[int, ...] = ()
    first: Surrogate | None = None
    may_divide: bool = False
    inference: dict[str, Any] | None = None
    """Residuals of operator inference, where there was one."""
    _manifolds: tuple[Manifold, Manifold] | None = None

    def __post_init__(self) -> None:
        self.seeds = self.seeds or (self.seed,)

    def run(self) -> tuple[Surrogate, Record]:
        """Run all stages, all members in each.

        Returns:
            The surrogate, an ensemble where there are several seeds, and how it went.

        Raises:
            Stopped: The caller asked for it; a checkpoint is written first.
            TrainingError: No usable surrogate came out.
        """
        loaded = self._load()
        train = self.parts.train
        new = lambda seed: create_surrogate(train, self.spec, seed)  # noqa: E731
        members = [self.start or new(seed) for seed in self.seeds]
        plan = self._plan()
        if loaded:
            record = loaded[1]
            plan = plan[plan.index((record.stage, record.part)) :]
        else:
            record = Record(*plan[0])
            members = self._inferred(members, record)
        for number, (name, part) in enumerate(plan):
            if number > 0:
                if self.reporter.used >= self.share:
                    break
                record = Record(
                    name,
                    part,
                    history=record.history,
                    outcome=record.outcome,
                    begun_s=record.begun_s,
                )
            self._tell("compile", f"compiling stage {name!r}")
            stage = self._stage(name, part, members)
            best = self._drive(stage, record, loaded, plan[number + 1 :])
            members, loaded = stage.members(best), None
            if not (math.isfinite(record.best_loss) or self.may_divide):
                raise TrainingError(
                    "no parameters with a finite validation loss were found: lower "
                    "learning_rate, set clip, or use the relaxation form"
                )
        return self._no_worse(ensemble_of(members), record), record

    def divide_steps(self, spec: SurrogateSpec) -> None:
        """Go on, with further members and in the report, on the steps of a spec."""
        self.spec = spec
        described = spec.model_dump(mode="json")
        self.identity = {**self.identity, "surrogate": described}

    def _plan(self) -> list[tuple[StageName, int]]:
        spec = self.training
        plan: list[tuple[StageName, int]] = []
        if spec.pretraining is not None:
            plan.append(("pretrain", 0))
        for part in range(max(1, len(spec.horizon))):
            plan.append(("optimise", part))
        if spec.polish == "lbfgs" and spec.polish_iterations:
            plan.append(("polish", 0))
        return plan

    def _inferred(self, members: list[Surrogate], record: Record) -> list[Surrogate]:
        """Members with inferred operators; those that cannot be made are left out."""
        if self.training.initial is None:
            return members
        found: dict[int, Surrogate] = {}
        for seed, member in zip(self.seeds, members, strict=True):
            first = self.first or found.get(self.seed)
            try:
                found[seed] = self._inferred_one(seed, member, first)
            except TrainingError as error:
                if seed == self.seed:
                    raise
                record.outcome += f"; a member was left out: {error}"
        if not found:
            raise TrainingError(f"no further member was made{record.outcome}")
        self.seeds = tuple(found)
        return [*found.values()]

    def _inferred_one(
        self, seed: int, member: Surrogate, first: Surrogate | None
    ) -> Surrogate:
        spec = self.training.initial
        assert spec is not None
        dataset, goes_on = self.parts.train, self.start is not None
        if seed != self.seed:
            dataset = resampled(dataset, seed)
            goes_on = first is not None and shares_latents(member)
            if first is not None and goes_on:
                member = dataclasses.replace(member, dynamics=first.dynamics)
        tell = self._tell_inference
        member, residuals = infer_operators(
            member, dataset, spec, seed, tell, goes_on=goes_on
        )
        if self.inference is None:
            self.inference = residuals
        return member

    def _no_worse(self, surrogate: Surrogate, record: Record) -> Surrogate:
        """The surrogate, or the one training went on from where that is better.

        Descent counts its start among the parameters it chooses from; a fit of a
        polynomial and stages of other horizons do not.
        """
        counted = self.training.initial is None and len(self.training.horizon) < 2
        if self.start is None or counted:
            return surrogate
        stage = self._stage(record.stage, record.part, [self.start])
        (loss,) = stage.validate(stage.start().parameters)
        if not loss <= record.best_loss:
            return surrogate
        record.outcome += "; the surrogate that training started from was kept"
        return self.start

    def _stage(self, name: StageName, part: int, members: list[Surrogate]) -> Stage:
        spec, surrogate = self.training, members[0]
        keys = [jax.random.fold_in(jax.random.key(seed), 1) for seed in self.seeds]
        if name == "pretrain":
            assert spec.pretraining is not None
            return self._pretraining(members, spec.pretraining, keys)
        if name == "polish":
            ahead = spec.horizon[-1] if spec.horizon else None
            problem = self._problem(self.parts.train, surrogate, ahead, most=True)
            return Polish(members, spec, problem, self._held_out(surrogate, ahead))
        ahead = spec.horizon[part] if spec.horizon else None
        objective = self._objective(surrogate, ahead)
        count = max(1, len(spec.horizon))
        ends = [spec.iterations * i // count for i in range(count + 1)]
        stretch = Stretch(ends[part], ends[part + 1] - ends[part])
        keys = keys if part == 0 else [jax.random.fold_in(key, part) for key in keys]
        return Descent("optimise", members, spec, stretch, objective, keys)

    def _objective(
        self, surrogate: Surrogate, ahead: int | None
    ) -> PairObjective | RolloutObjective:
        spec, train = self.training, self.parts.train
        if spec.pairs:
            return PairObjective(train, self._held(), surrogate, spec, self.seed)
        return RolloutObjective(
            self._problem(train, surrogate, ahead),
            self._held_out(surrogate, ahead),
            spec,
            surrogate.normaliser.states,
            self._manifold(surrogate)[0] if spec.manifold > 0 else None,
        )

    def _pretraining(
        self, members: list[Surrogate], spec: PretrainingSpec, keys: list[Any]
    ) -> Descent:
        objective = ManifoldObjective(*self._manifold(members[0]), spec)
        schedule = TrainingSpec(
            iterations=spec.iterations,
            optimiser=spec.optimiser,
            learning_rate=spec.learning_rate,
        )
        stretch = Stretch(0, spec.iterations)
        keys = [jax.random.fold_in(key, 1000) for key in keys]
        return Descent("pretrain", members, schedule, stretch, objective, keys)

    def _manifold(self, surrogate: Surrogate) -> tuple[Manifold, Manifold]:
        """Samples with slopes, of training and of what is held out."""
        if self._manifolds is None:
            autoencoder = surrogate.autoencoder
            assert isinstance(autoencoder, PODAutoencoder)
            scaling = surrogate.normaliser.states

            def modes(x: Any, _: Any) -> Any:
                return autoencoder.modes(scaling.normalise(x))

            train, held = (
                encoded_snapshots(surrogate, part, modes)
                for part in (self.parts.train, self._held())
            )
            spec = self.training.initial or OperatorInferenceSpec()
            operators, _ = infer_corrected(train, spec, self.seed, self._tell_inference)
            times = (self.training.pretraining or PretrainingSpec()).continued
            if times:
                self._tell_inference("running on from the ends of the data")
                train = train + continuations(operators, train, times)
            self._manifolds = (
                build_manifold(surrogate, train, operators),
                build_manifold(surrogate, held, operators),
            )
        return self._manifolds

    def _problem(
        self,
        dataset: Dataset,
        surrogate: Surrogate,
        ahead: int | None,
        *,
        most: bool = False,
    ) -> Problem:
        """Trajectories, or windows of them, at most as many as a polish takes."""
        if ahead is not None:
            width = (ahead + 1) * len(dataset.names)
            limit = min(_MOST_WINDOWS, max(64, _MOST_WINDOW_VALUES // width))
            dataset = dataset.windows(ahead, limit, self.seed)
        else:
            first = dataset
            for number in range(self.training.later_starts):
                later = first.from_later_samples(self.seed + number)
                dataset = dataset.joined(later)
        if most:
            dataset = some(dataset, self.seed)
        spec = self.training
        return build_problem(dataset, surrogate, loss=spec.loss, refine=spec.refine)

    def _held(self) -> Dataset:
        """What parameters are chosen by: training data where nothing is held out."""
        held = self.parts.validation
        return held if held.trajectories else some(self.parts.train, self.seed)

    def _held_out(self, surrogate: Surrogate, ahead: int | None) -> Problem:
        most = ahead is not None
        return self._problem(self._held(), surrogate, ahead, most=most)

    def _drive(
        self,
        stage: Stage,
        record: Record,
        loaded: tuple[dict[str, np.ndarray], Record] | None,
        later: list[tuple[StageName, int]],
    ) -> Any:
        state = stage.start()
        best = jax.tree.map(jnp.copy, state.parameters)
        if loaded:
            state, best = restored((state, best), loaded[0])
        drive = Drive(
            stage,
            record,
            self.reporter,
            self._save,
            lambda each: self._seconds_after(each, later),
            self.checkpoint_s,
            self.share,
        )
        return drive.run(state, best)[1]

    def _seconds_after(self, each: float, later: list[tuple[StageName, int]]) -> float:
        spec = self.training
        per_part = spec.iterations / max(1, len(spec.horizon))
        cost = {
            "optimise": per_part,
            "polish": spec.polish_iterations * _POLISH_COST,
        }
        return each * sum(cost[name] for name, _ in later)

    def _tell(self, stage: Any, message: str) -> None:
        self.reporter.report(Progress(stage, message=message))

    def _tell_inference(self, message: str) -> None:
        if reason := self.reporter.stop_reason():
            raise Stopped(reason)
        if self.reporter.used > self.share:
            raise TrainingError("it takes too much of max_seconds")
        self._tell("infer", message)

    def _save(self, state: State, best: Any, record: Record) -> None:
        if self.path is None:
            return
        leaves = jax.tree.leaves((state, best))
        arrays = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        content = dataclasses.asdict(record)
        content["best_losses"] = [
            loss if math.isfinite(loss) else None for loss in record.best_losses
        ]
        save_checkpoint(
            self.path,
            arrays,
            {
                **self.identity,
                "record": content,
                "seeds": self.seeds,
                "inference": self.inference,
                "seconds": self.reporter.seconds,
            },
        )

    def _load(self) -> tuple[dict[str, np.ndarray], Record] | None:
        if self.path is None:
            return None
        loaded = load_checkpoint(self.path, self.identity)
        if loaded is None:
            return None
        arrays, content = loaded
        # Of a newer version it may say more.
        known = {field.name for field in dataclasses.fields(Record)}
        told = {name: each for name, each in content["record"].items() if name in known}
        record = Record(**told)
        record.best_losses = [
            math.inf if loss is None else loss for loss in record.best_losses
        ]
        # Members that were left out stay so.
        self.seeds = tuple(content["seeds"])
        self.inference = content.get("inference")
        # What came before the checkpoint, and has been done again, counts once.
        again = self.reporter.seconds
        self.reporter.earlier_s = max(float(content["seconds"]) - again, 0.0)
        return arrays, record
