"""``fit``: from a dataset to a trained surrogate and a report on it.

::

    split -> resolve -> optimise (minibatches) -> polish (L-BFGS) -> evaluate
                              |  checkpoint        |
                              +--------------------+
"""

import dataclasses
import math
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.metrics import evaluate
from spnode_core.samples import build_problem
from spnode_core.spec import Preset, SplitSpec, SurrogateSpec, TrainingSpec
from spnode_core.surrogate import Surrogate, require_x64
from spnode_core.training.checkpoint import load_checkpoint, save_checkpoint
from spnode_core.training.descent import Descent
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.polish import MOST_TRAJECTORIES, Polish
from spnode_core.training.presets import Choices, resolve
from spnode_core.training.progress import (
    Progress,
    Reporter,
    Stopped,
    progress_line,
)
from spnode_core.training.stages import Drive, Record, State

__all__ = ["Progress", "Run", "Stopped", "fit"]

# Float64, line searches and a larger batch: one polish iteration over one of descent.
_POLISH_COST = 4.0


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of ``fit``.

    Args:
        surrogate: The trained surrogate.
        history: Losses by stage and iteration.
        report: What was chosen, done and measured; JSON.
    """

    surrogate: Surrogate
    history: list[dict[str, Any]]
    report: dict[str, Any]


def fit(
    dataset: Dataset,
    surrogate: SurrogateSpec | None = None,
    training: TrainingSpec | None = None,
    *,
    preset: Preset = "auto",
    split: SplitSpec | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], str | None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> Run:
    """Train a surrogate of the system behind a dataset.

    Args:
        dataset: Trajectories.
        surrogate: What is fixed of the surrogate; the preset decides the rest.
        training: What is fixed of the training; the preset decides the rest.
        preset: How open fields are decided: ``auto`` from the data, ``paper`` as in
            arXiv 2503.01775.
        split: Fractions held out for validation and test, a tenth each by default.
        seed: Source of split, initial weights and minibatches; equal seeds on equal
            machines give equal bits.
        on_progress: Called a few times a second at most; on a terminal a line of
            progress is shown by default.
        should_stop: Asked about once a second; a reason ends the run.
        checkpoint: A file. The run writes it now and then and when it is stopped,
            and goes on from it, bit for bit, where it exists.
        checkpoint_seconds: Time between two checkpoints, at least.

    Returns:
        The surrogate with its history and report.

    Raises:
        InvalidInput: Data, descriptions or checkpoint do not fit together.
        Stopped: ``should_stop`` gave a reason.
        TrainingError: No usable surrogate came out, and what to change.
    """
    require_x64()
    if not isinstance(dataset, Dataset):
        raise InvalidInput(
            "dataset",
            found=type(dataset).__name__,
            expected="a Dataset, as load_dataset reads one from a file",
        )
    split = split or SplitSpec()
    parts = dataset.split(split, seed)
    resolved = resolve(parts[0], surrogate, training, preset)
    reporter = Reporter(
        on_progress or progress_line(), should_stop, resolved[1].max_seconds
    )
    reporter.report(Progress("data", message=f"{parts[0].trajectories} trajectories"))
    run = _Execution(
        dataset,
        parts,
        resolved,
        split,
        seed,
        reporter,
        path=Path(checkpoint) if checkpoint is not None else None,
        checkpoint_s=checkpoint_seconds,
    )
    return run.execute()


class _Execution:
    """What the stages of one run share."""

    def __init__(
        self,
        dataset: Dataset,
        parts: tuple[Dataset, Dataset, Dataset],
        resolved: tuple[SurrogateSpec, TrainingSpec, Choices],
        split: SplitSpec,
        seed: int,
        reporter: Reporter,
        *,
        path: Path | None,
        checkpoint_s: float,
    ) -> None:
        self.train, self.validation, self.test = parts
        self.spec, self.training, self.choices = resolved
        self.seed, self.reporter = seed, reporter
        self.path, self.checkpoint_s = path, checkpoint_s
        self.identity = {
            "dataset": dataset.digest,
            "surrogate": self.spec.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "split": split.model_dump(mode="json"),
            "seed": seed,
        }

    def execute(self) -> Run:
        """Run the stages from the start or from the checkpoint."""
        initial = create_surrogate(self.train, self.spec, self.seed)
        loaded = self._load()
        record = loaded[1] if loaded else Record()
        history: list[dict[str, Any]] = record.history
        surrogate, best_loss = initial, math.inf
        self._report_compile()
        if record.stage == "optimise":
            descent = self._descent(initial)
            record, trained = self._drive(descent, record, loaded)
            surrogate = descent.parts.whole(trained, descent.parts.fixed)
            best_loss, loaded = record.best_loss, None
        if self._wants_polish(record):
            if record.stage == "optimise":
                record = Record("polish", history=history, outcome=record.outcome)
            polish = self._polish(surrogate)
            record, vector = self._drive(polish, record, loaded)
            surrogate, best_loss = polish.surrogate(vector), record.best_loss
        if not math.isfinite(best_loss):
            raise TrainingError(
                "no parameters with a finite validation loss were found: lower "
                "learning_rate, set clip, or use the relaxation form"
            )
        return self._finish(surrogate, record, history)

    def _wants_polish(self, record: Record) -> bool:
        if record.stage == "polish":
            return True
        wanted = self.training.polish == "lbfgs" and self.training.polish_iterations
        return bool(wanted) and not self.reporter.is_out_of_time

    def _descent(self, surrogate: Surrogate) -> Descent:
        spec = self.training
        problem = build_problem(
            self.train, surrogate, loss=spec.loss, refine=spec.refine
        )
        key = jax.random.fold_in(jax.random.key(self.seed), 1)
        return Descent(surrogate, spec, problem, self._held_out(surrogate), key)

    def _polish(self, surrogate: Surrogate) -> Polish:
        spec = self.training
        problem = build_problem(
            self._some(self.train), surrogate, loss=spec.loss, refine=spec.refine
        )
        return Polish(surrogate, spec, problem, self._held_out(surrogate))

    def _held_out(self, surrogate: Surrogate) -> Any:
        """The problem to choose parameters by; of training data where none is held."""
        held = self.validation
        return build_problem(
            held if held.trajectories else self._some(self.train),
            surrogate,
            loss=self.training.loss,
            refine=self.training.refine,
        )

    def _some(self, dataset: Dataset) -> Dataset:
        """At most ``MOST_TRAJECTORIES`` trajectories, chosen by the seed."""
        if dataset.trajectories <= MOST_TRAJECTORIES:
            return dataset
        order = np.random.default_rng([self.seed, 21]).permutation(dataset.trajectories)
        return dataset.take(np.sort(order[:MOST_TRAJECTORIES]))

    def _drive(
        self,
        stage: Descent | Polish,
        record: Record,
        loaded: tuple[dict[str, np.ndarray], Record] | None,
    ) -> tuple[Record, Any]:
        state = stage.start()
        best = jax.tree.map(jnp.copy, state.parameters)
        if loaded:
            state, best = _restored((state, best), loaded[0])
        is_descent = isinstance(stage, Descent)
        drive = Drive(
            stage,
            record,
            self.reporter,
            self._save,
            self._seconds_after if is_descent else lambda _: 0.0,
            self.checkpoint_s,
        )
        _, best = drive.run(state, best)
        return record, best

    def _seconds_after(self, each: float) -> float:
        spec = self.training
        if spec.polish == "none":
            return 0.0
        return spec.polish_iterations * each * _POLISH_COST

    def _report_compile(self) -> None:
        message = "compiling the training step"
        self.reporter.report(Progress("compile", message=message))

    def _save(self, state: State, best: Any, record: Record) -> None:
        if self.path is None:
            return
        leaves = jax.tree.leaves((state, best))
        arrays = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        content = dataclasses.asdict(record)
        if not math.isfinite(record.best_loss):
            content["best_loss"] = None
        seconds = self.reporter.seconds
        save_checkpoint(
            self.path, arrays, {**self.identity, "record": content, "seconds": seconds}
        )

    def _load(self) -> tuple[dict[str, np.ndarray], Record] | None:
        if self.path is None:
            return None
        loaded = load_checkpoint(self.path, self.identity)
        if loaded is None:
            return None
        arrays, content = loaded
        record = Record(**content["record"])
        if record.best_loss is None:
            record.best_loss = math.inf
        self.reporter.earlier_s = float(content["seconds"])
        return arrays, record

    def _finish(
        self, surrogate: Surrogate, record: Record, history: list[dict[str, Any]]
    ) -> Run:
        self.reporter.report(Progress("evaluate", message="evaluating"))
        parts = {
            "train": self._some(self.train),
            "validation": self.validation,
            "test": self.test,
        }
        metrics = {
            name: evaluate(surrogate, part) if part.trajectories else None
            for name, part in parts.items()
        }
        report = {
            "outcome": record.outcome,
            "choices": self.choices,
            **self.identity,
            "split_sizes": {
                "train": self.train.trajectories,
                "validation": self.validation.trajectories,
                "test": self.test.trajectories,
            },
            "metrics": metrics,
            "certificate": surrogate.certificate(),
            "seconds": self.reporter.seconds,
            "versions": _versions(),
            "platform": _platform(),
        }
        return Run(surrogate, history, report)


def _restored(template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The arrays of a checkpoint in the shape of a state."""
    leaves, tree = jax.tree.flatten(template)
    names = [f"{i:04d}" for i in range(len(leaves))]
    fits = set(names) == set(arrays) and all(
        arrays[name].shape == leaf.shape and arrays[name].dtype == leaf.dtype
        for name, leaf in zip(names, leaves, strict=True)
    )
    if not fits:
        raise InvalidInput(
            "checkpoint",
            found="arrays that do not fit this run",
            expected="a checkpoint of the same version; remove it to start anew",
        )
    return jax.tree.unflatten(tree, [jnp.asarray(arrays[name]) for name in names])


def _versions() -> dict[str, str]:
    packages = ("equinox", "jax", "numpy", "optax")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def _platform() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
    }
