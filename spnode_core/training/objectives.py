"""What a stage of minibatches descends: its data, batches and losses."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from spnode_core.normaliser import Scaling
from spnode_core.samples import Problem
from spnode_core.spec import PretrainingSpec, TrainingSpec
from spnode_core.surrogate import Surrogate
from spnode_core.training.devices import over_devices
from spnode_core.training.losses import training_loss
from spnode_core.training.manifold import Manifold, manifold_loss
from spnode_core.training.refinements import Refinements, refinements

# Rows of more than this are drawn with repetition: one permutation costs a step.
_MOST_PERMUTED = 4096


class Objective(Protocol):
    """Pure functions of data, which is passed in: compiled code holds no constants."""

    data: Any
    validation: Any

    def batch(self, data: Any, key: PRNGKeyArray) -> Any:
        """Some of the data, laid over the devices."""
        ...

    def loss(self, surrogate: Surrogate, batch: Any) -> Float[Array, ""]:
        """What is made small."""
        ...

    def validation_loss(self, surrogate: Surrogate, data: Any) -> Float[Array, ""]:
        """What parameters are chosen by."""
        ...


class RolloutData(NamedTuple):
    """Trajectories and, where the loss of pretraining stays on, its samples."""

    problem: Problem
    manifold: Manifold | None = None
    refinements: Refinements | None = None


class RolloutObjective:
    """The rollout loss with its parts, on trajectories with noisy starts.

    Args:
        problem: Training trajectories.
        validation: Trajectories to choose the best parameters by.
        spec: Weights, batch and noise.
        scaling: That of the states, in whose units the noise is.
        manifold: Samples of pretraining, where ``spec.manifold`` asks for them.
    """

    def __init__(
        self,
        problem: Problem,
        validation: Problem,
        spec: TrainingSpec,
        scaling: Scaling,
        manifold: Manifold | None = None,
    ) -> None:
        plans = problem.plans
        drawn = refinements(*plans, spec.refine) if len(plans) == 2 else None
        self.data = RolloutData(problem, manifold, drawn)
        self.validation = validation
        self._spec, self._scaling = spec, scaling

    def batch(self, data: RolloutData, key: PRNGKeyArray) -> RolloutData:
        """Some of the trajectories and samples."""
        spec = self._spec
        problem = data.problem
        if data.refinements is not None:
            refined = data.refinements.draw(jax.random.fold_in(key, 3))
            problem = problem._replace(plans=(problem.plans[0], refined))
        problem = _drawn(problem, problem.samples.x0, spec.batch, key)
        if spec.noise > 0:
            by = jax.random.fold_in(key, 2)
            problem = noisy(problem, self._scaling, spec.noise, by)
        manifold = data.manifold
        if manifold is not None:
            size = (spec.pretraining or PretrainingSpec()).batch
            manifold = _drawn(manifold, manifold.y, size, jax.random.fold_in(key, 1))
        samples = over_devices(problem.samples, problem.samples.x0.shape[0])
        return RolloutData(problem._replace(samples=samples), manifold)

    def loss(self, surrogate: Surrogate, batch: RolloutData) -> Float[Array, ""]:
        """The rollout loss and its parts."""
        spec = self._spec
        loss = training_loss(
            surrogate,
            batch.problem,
            reconstruction=spec.reconstruction,
            consistency=spec.consistency,
        )
        if batch.manifold is None:
            return loss
        pretraining = spec.pretraining or PretrainingSpec()
        return loss + spec.manifold * manifold_loss(
            surrogate, batch.manifold, pretraining
        )

    def validation_loss(self, surrogate: Surrogate, data: Problem) -> Float[Array, ""]:
        """The rollout loss alone."""
        return training_loss(surrogate, data)


class ManifoldObjective:
    """The loss of pretraining.

    Args:
        samples: Training samples.
        validation: Samples to choose the best parameters by.
        spec: Weights and batch.
    """

    def __init__(
        self, samples: Manifold, validation: Manifold, spec: PretrainingSpec
    ) -> None:
        self.data, self.validation, self._spec = samples, validation, spec

    def batch(self, data: Manifold, key: PRNGKeyArray) -> Manifold:
        """Some of the samples."""
        drawn = _drawn(data, data.y, self._spec.batch, key)
        columns = (drawn.y, drawn.slope, drawn.others)
        y, slope, others = over_devices(columns, drawn.y.shape[0])
        return drawn._replace(y=y, slope=slope, others=others)

    def loss(self, surrogate: Surrogate, batch: Manifold) -> Float[Array, ""]:
        """The loss of pretraining."""
        return manifold_loss(surrogate, batch, self._spec)

    def validation_loss(self, surrogate: Surrogate, data: Manifold) -> Float[Array, ""]:
        """The same."""
        return manifold_loss(surrogate, data, self._spec)


class _Rows(Protocol):
    @property
    def rows(self) -> Callable[[Int[Array, " row"]], Any]: ...


def noisy(
    problem: Problem, scaling: Scaling, size: float, key: PRNGKeyArray
) -> Problem:
    """The problem with noise on the initial states, in normalised units."""
    samples = problem.samples
    noise = size * jax.random.normal(key, samples.x0.shape, jnp.float64)
    move = lambda x, e: scaling.restore(scaling.normalise(x) + e)  # noqa: E731
    return problem._replace(
        samples=samples._replace(x0=jax.vmap(move)(samples.x0, noise))
    )


def _drawn(data: _Rows, column: Array, size: int, key: PRNGKeyArray) -> Any:
    """Rows drawn by a key, all of them where there are not more."""
    total = column.shape[0]
    if size >= total:
        return data
    if total > _MOST_PERMUTED:
        return data.rows(jax.random.randint(key, (size,), 0, total))
    return data.rows(jax.random.choice(key, total, (size,), replace=False))
