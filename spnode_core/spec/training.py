"""The description of a training: loss, optimisers, limits and splits."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from spnode_core.spec.base import Spec

LEAST_AHEAD = 2
"""A piece of a trajectory has so many samples after its first, at least."""

Preset = Literal["auto", "paper", "smooth"]


class StopSpec(Spec):
    """When to stop before the last iteration."""

    patience: PositiveInt
    """Iterations without a better validation loss."""


class OperatorInferenceSpec(Spec):
    """Least squares for ``A`` and a quadratic ``f`` on latent samples, before training.

    ``z_{k+1} - z_k`` is regressed on the integrals of ``z``, its products and 1 by a
    symmetric Adams formula; then the model's own one-step residuals correct it.
    """

    ridge: NonNegativeFloat = 1e-8
    """Weight of the squared coefficients beside the mean squared residual."""
    points: Annotated[int, Field(ge=2, le=24, multiple_of=2)] = 18
    """Samples around an interval that its integrals are computed from."""
    corrections: NonNegativeInt = 4
    """Rounds of defect correction, where samples are sparse."""


class PretrainingSpec(Spec):
    """Autoencoder and dynamics on single samples, without rollouts, before training.

    The loss is ``|x - D(E(x))|^2 + derivative |D'(z) F(z) - x'|^2
    + encoder |F(z) - E'(x) x'|^2``; ``x'`` comes from operator inference on as many
    principal directions as the autoencoder sees.
    """

    iterations: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    batch: PositiveInt = 512
    """Samples per iteration."""
    optimiser: Literal["adam", "muon"] = "muon"
    learning_rate: PositiveFloat = 0.01
    derivative: NonNegativeFloat = 0.05
    """Weight of the slopes, each in units of its mean energy, as the states are."""
    encoder: NonNegativeFloat = 0.005
    """Weight of the latent slopes."""
    continued: Annotated[float, Field(ge=0, le=100)] = 0.0
    """So many times the data's samples are added, made by the operators that give
    ``x'``: they run on from the ends of the trajectories while they stay in the range
    of the data."""


class TrainingSpec(Spec):
    """How a surrogate is fitted: loss (paper, 20), optimiser, polish and limits."""

    initial: OperatorInferenceSpec | None = None
    """Least squares that give ``A`` and a quadratic ``f`` before training."""
    pretraining: PretrainingSpec | None = None
    """Training of autoencoder and dynamics without rollouts, before training."""
    iterations: Annotated[int, Field(ge=0, le=10_000_000)] = 10_000
    """Minibatches; 0 leaves it at what came before."""
    batch: PositiveInt = 32
    """Trajectories per iteration, all of them where the data has fewer; or pairs."""
    optimiser: Literal["adam", "muon"] = "muon"
    learning_rate: PositiveFloat = 0.006
    schedule: Literal["cosine", "constant", "exponential"] = "cosine"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Factor on the learning rate of an ``exponential`` schedule, for each
    ``decay_iterations``."""
    decay_iterations: PositiveInt = 1000
    loss: Literal["log_dt", "dt", "uniform", "relative"] = "log_dt"
    """Weights of the times in the loss; ``log_dt`` is uniform on a log grid."""
    refine: Annotated[int, Field(ge=1, le=4)] = 4
    """Train on the grid and, above 1, on its refinements by 2 up to this factor, one
    of which is drawn in each iteration."""
    reconstruction: NonNegativeFloat = 0.0
    """Weight of ``||D(E(x)) - x||^2`` beside the rollout loss."""
    consistency: NonNegativeFloat = 0.0
    """Weight of ``||E(x(t_k)) - z(t_k)||^2`` beside the rollout loss; over a
    ``horizon`` it ties windows together, as multiple shooting does."""
    manifold: NonNegativeFloat = 0.0
    """Weight of the loss of ``pretraining`` beside the rollout loss."""
    horizon: tuple[PositiveInt, ...] = ()
    """Samples ahead that a training rollout covers, from random starts along the
    trajectories: ``(8,)`` is windows of 8, ``(1, 2, 4, 8)`` a curriculum with equal
    parts of the iterations. Empty: whole trajectories from their starts."""
    pairs: Annotated[
        bool | None,
        # A worker of before there were any refuses what it does not know.
        Field(exclude_if=lambda asked: asked is None),
    ] = None
    """Whether single samples are trained on, each from a random earlier one of its
    trajectory or from itself, in one step: exact with nonlinear kind ``none``, and
    far cheaper than rollouts. ``batch`` is then the number of pairs. None: with that
    kind, where nothing is asked for that only rollouts have."""
    later_starts: Annotated[int, Field(ge=0, le=10)] = 0
    """So many times each trajectory is added from a random later sample on, where
    whole trajectories are trained on: rollouts then begin anywhere along them."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of noise on the initial states, in normalised units."""
    clip: PositiveFloat | None = None
    """Largest global norm of a gradient; None leaves gradients alone."""
    polish: Literal["none", "lbfgs"] = "none"
    """Full-batch quasi-Newton iterations in float64 after the optimiser."""
    polish_iterations: NonNegativeInt = 100
    stop_when: StopSpec | None = None
    max_seconds: PositiveFloat | None = None
    """Wall time after which the best parameters so far are the result."""


class SplitSpec(Spec):
    """Which fractions of the trajectories are held out, chosen by a seed."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Source of that choice alone, so that trainings of different seeds hold the same
    trajectories out; by default the seed of the training."""
    pieces: Annotated[
        int,
        # A worker of before there were any refuses what it does not know.
        Field(ge=1, le=10_000, exclude_if=lambda count: count == 1),
    ] = 1
    """Into how many consecutive pieces each trajectory is cut before that, which then
    count as trajectories: for one or two long runs, of what recurs in them."""

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be below 1")
        return self

    def sizes(self, trajectories: int) -> tuple[int, int, int]:
        """How many are trained on, and held out for validation and for test.

        One at least is held out where any is asked; all are pieces of trajectories
        where these are cut.
        """
        count = trajectories * self.pieces
        validation, test = (
            max(1, round(part * count)) if part > 0 else 0
            for part in (self.validation, self.test)
        )
        return count - validation - test, validation, test
