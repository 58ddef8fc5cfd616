"""The one description of a surrogate and of its training.

The same frozen models are the arguments of ``fit``, the ``spec.json`` of an artifact,
the body of a training request and its OpenAPI schema. Unknown fields are errors, a
``kind`` chooses among families, and ``None`` means "decided from the data by the
preset". Nothing here imports JAX.
"""

import itertools
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

SCHEMA_VERSION = 1

Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=1, le=16)]
Preset = Literal["auto", "paper"]


class Spec(BaseModel):
    """A frozen description: unknown fields and non-finite numbers are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


# --- Linear operator A -----------------------------------------------------------


class RatesSpec(Spec):
    """Decay rates of ``A`` at the start of training, log-spaced between two bounds."""

    minimum: PositiveFloat
    """Slowest rate, 1/time."""
    maximum: PositiveFloat
    """Fastest rate, 1/time."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError("rates.minimum is larger than rates.maximum")
        return self


class HurwitzSpec(Spec):
    """Dense ``A = (-Q + K) P + shift I``, Hurwitz by construction (paper, 3-5)."""

    kind: Literal["hurwitz"] = "hurwitz"
    shift: NonNegativeFloat = 0.0
    """Spectral shift alpha, 1/time: real parts stay below it."""
    rates: RatesSpec | None = None


class ModalSpec(Spec):
    """Real decay rates and damped oscillating pairs; every phi is elementwise."""

    kind: Literal["modal"] = "modal"
    shift: NonNegativeFloat = 0.0
    """Spectral shift alpha, 1/time: real parts stay below it."""
    rates: RatesSpec | None = None
    oscillating: NonNegativeInt = 0
    """Number of complex pairs among the modes; each takes two latent variables."""
    depends_on_parameters: bool = False
    """Whether the rates are functions of the parameters p."""


class DenseSpec(Spec):
    """Unconstrained dense ``A``, for ablations: nothing keeps it stable."""

    kind: Literal["dense"] = "dense"
    rates: RatesSpec | None = None


class FixedSpec(Spec):
    """A given dense matrix ``A`` that training leaves alone."""

    kind: Literal["fixed"] = "fixed"
    matrix: tuple[tuple[float, ...], ...]
    """Rows of ``A``, 1/time, ``(latent, latent)``."""

    @model_validator(mode="after")
    def _square(self) -> Self:
        rows = len(self.matrix)
        if rows == 0 or any(len(row) != rows for row in self.matrix):
            raise ValueError("linear.matrix must be square, a list of equal rows")
        return self


LinearSpec = Annotated[
    HurwitzSpec | ModalSpec | DenseSpec | FixedSpec, Field(discriminator="kind")
]


# --- Nonlinear operator f --------------------------------------------------------


class BilinearSpec(Spec):
    """``f(z) = W3 [(W1 z) o (W2 z)]`` of low rank (paper, 6)."""

    kind: Literal["bilinear"] = "bilinear"
    rank: PositiveInt = 4
    initial_scale: PositiveFloat = 0.1


class LipschitzSpec(Spec):
    """A tanh network whose Lipschitz constant is at most ``bound`` (paper, 7-8)."""

    kind: Literal["lipschitz"] = "lipschitz"
    width: Width = 32
    depth: Depth = 2
    bound: PositiveFloat = 1.0
    """Bound L on the Lipschitz constant of f in the Euclidean norm, 1/time."""
    initial_scale: PositiveFloat = 1.0


class MLPSpec(Spec):
    """A plain tanh network (the paper's rows without a Lipschitz constraint)."""

    kind: Literal["mlp"] = "mlp"
    width: Width = 32
    depth: Depth = 2
    initial_scale: PositiveFloat = 0.1


class RelaxationSpec(Spec):
    """``f(z) = -A g(z)``, g a tanh network: every ETD1 step stays in a known box."""

    kind: Literal["relaxation"] = "relaxation"
    width: Width = 32
    depth: Depth = 2
    initial_scale: PositiveFloat = 1.0


NonlinearSpec = Annotated[
    BilinearSpec | LipschitzSpec | MLPSpec | RelaxationSpec,
    Field(discriminator="kind"),
]


# --- Autoencoder, steps, surrogate -----------------------------------------------


class ResidualSpec(Spec):
    """Encoder and decoder are a linear map plus a tanh network each."""

    kind: Literal["residual"] = "residual"
    width: Width = 32
    depth: Depth = 2


class NoAutoencoderSpec(Spec):
    """The latent variables are the normalised states themselves."""

    kind: Literal["none"] = "none"


AutoencoderSpec = Annotated[
    ResidualSpec | NoAutoencoderSpec, Field(discriminator="kind")
]


class DataStepsSpec(Spec):
    """Step on the times of the training data (resolved to a grid by ``fit``)."""

    kind: Literal["data"] = "data"


class GridStepsSpec(Spec):
    """Step on these times, measured from the start of the rollout."""

    kind: Literal["grid"] = "grid"
    times: tuple[float, ...] = Field(min_length=2)
    """Increasing times that begin with 0."""

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        times = self.times
        if times[0] != 0.0:
            raise ValueError(f"steps.times must begin with 0, not {times[0]!r}")
        if any(b <= a for a, b in itertools.pairwise(times)):
            raise ValueError("steps.times must increase strictly")
        return self


class UniformStepsSpec(Spec):
    """Steps of one length, measured from the start of the rollout."""

    kind: Literal["uniform"] = "uniform"
    step: PositiveFloat
    """Length h of a step, in the unit of time of the data."""


StepsSpec = Annotated[
    DataStepsSpec | GridStepsSpec | UniformStepsSpec, Field(discriminator="kind")
]
Integrator = Literal["etd1", "etd2rk", "krogstad"]
ScalingKind = Literal["linear", "log", "asinh"]


class SurrogateSpec(Spec):
    """``z = E(x, p), z' = A(p) z + f(z, u, p), x = D(z, p)`` and its time stepping."""

    latent: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Number of latent variables n."""
    linear: LinearSpec = ModalSpec()
    nonlinear: NonlinearSpec = RelaxationSpec()
    autoencoder: AutoencoderSpec = ResidualSpec()
    integrator: Integrator = "etd1"
    steps: StepsSpec = DataStepsSpec()
    conserved: dict[str, dict[str, float]] = {}
    """Named sums ``sum_i c_i x_i`` that each trajectory keeps: name to state to c_i."""
    positive: bool = False
    """Whether decoded states are positive and bounded by construction."""
    normalisation: dict[str, ScalingKind] = {}
    """How single states are scaled; those not named are decided from the data."""
    precision: Literal["mixed", "float64"] = "mixed"
    """``mixed``: float32 networks; A, phi and the latent state are float64 always."""

    def __hash__(self) -> int:
        """By the plain fields: dictionaries have no hash of their own."""
        names = (*self.conserved, *self.normalisation)
        return hash((self.latent, self.linear, self.nonlinear, self.steps, names))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nonlinear.kind == "relaxation":
            if self.integrator != "etd1":
                raise ValueError(
                    f"integrator {self.integrator!r} does not converge on the "
                    "relaxation form; use 'etd1', or another nonlinear kind"
                )
            if not isinstance(self.linear, ModalSpec | HurwitzSpec):
                raise ValueError(
                    "nonlinear kind 'relaxation' needs an invertible, stable linear "
                    f"operator: 'modal' or 'hurwitz', not {self.linear.kind!r}"
                )
            if self.linear.shift > 0:
                raise ValueError("nonlinear kind 'relaxation' needs linear.shift = 0")
        if self.autoencoder.kind == "none" and (self.conserved or self.positive):
            raise ValueError(
                "conserved sums and positivity are properties of the decoder; "
                "autoencoder kind 'none' has none"
            )
        return self


# --- Training --------------------------------------------------------------------


class StopSpec(Spec):
    """When to stop before the last iteration."""

    patience: PositiveInt
    """Iterations without a better validation loss."""


class TrainingSpec(Spec):
    """How a surrogate is fitted: loss (paper, 20), optimiser, polish and limits."""

    iterations: Annotated[int, Field(ge=1, le=10_000_000)] = 3000
    batch: PositiveInt = 32
    """Trajectories per iteration; all of them where the data has fewer."""
    optimiser: Literal["adam", "muon"] = "muon"
    learning_rate: PositiveFloat = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    loss: Literal["log_dt", "dt", "uniform", "relative"] = "log_dt"
    """Weights of the times in the loss; ``log_dt`` is uniform on a log grid."""
    refine: Annotated[int, Field(ge=1, le=4)] = 2
    """Train on the grid and, above 1, on its refinement by this factor as well."""
    reconstruction: NonNegativeFloat = 0.0
    """Weight of ``||D(E(x)) - x||^2`` beside the rollout loss."""
    clip: PositiveFloat | None = None
    """Largest global norm of a gradient; None leaves gradients alone."""
    polish: Literal["none", "lbfgs"] = "lbfgs"
    """Full-batch quasi-Newton iterations in float64 after the optimiser."""
    polish_iterations: NonNegativeInt = 100
    stop_when: StopSpec | None = None
    max_seconds: PositiveFloat | None = None
    """Wall time after which the best parameters so far are the result."""


class SplitSpec(Spec):
    """Which fractions of the trajectories are held out, chosen by the seed."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be below 1")
        return self

    def held_out(self, trajectories: int) -> tuple[int, int]:
        """How many are held out for validation and for test: one where any is asked."""
        validation, test = (
            max(1, round(part * trajectories)) if part > 0 else 0
            for part in (self.validation, self.test)
        )
        return validation, test


# --- What a trained surrogate accepts --------------------------------------------


class DomainSpec(Spec):
    """The box that the training data covered; outside it nothing was learned."""

    lower: tuple[float, ...]
    """Smallest value of each state over the training trajectories."""
    upper: tuple[float, ...]
    """Largest value of each state over the training trajectories."""
    parameters_lower: tuple[float, ...] = ()
    parameters_upper: tuple[float, ...] = ()
    controls_lower: tuple[float, ...] = ()
    controls_upper: tuple[float, ...] = ()
    conserved_lower: tuple[float, ...] = ()
    conserved_upper: tuple[float, ...] = ()
    end: PositiveFloat
    """Longest time of the training data, measured from a trajectory's start."""


class Signature(Spec):
    """Names, units and sizes that a surrogate accepts and returns."""

    states: tuple[str, ...]
    units: tuple[str, ...] = ()
    """Unit of each state, empty where none was given."""
    time_unit: str = ""
    parameters: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    latent: PositiveInt
    domain: DomainSpec

    @model_validator(mode="after")
    def _domain_fits(self) -> Self:
        domain = self.domain
        _check_box("lower and upper", domain.lower, domain.upper, len(self.states))
        for kind in ("parameters", "controls"):
            bounds = (getattr(domain, f"{kind}_{end}") for end in ("lower", "upper"))
            _check_box(kind, *bounds, count=len(getattr(self, kind)))
        if self.units and len(self.units) != len(self.states):
            raise ValueError("units has another length than states")
        return self


class ArtifactSpec(Spec):
    """``spec.json``: all that is needed to rebuild a surrogate around its leaves."""

    schema_version: Literal[1] = SCHEMA_VERSION
    surrogate: SurrogateSpec
    signature: Signature

    @model_validator(mode="after")
    def _sums_fit(self) -> Self:
        domain, count = self.signature.domain, len(self.surrogate.conserved)
        _check_box("conserved", domain.conserved_lower, domain.conserved_upper, count)
        return self


def _check_box(
    name: str, lower: tuple[float, ...], upper: tuple[float, ...], count: int
) -> None:
    fits = len(lower) == len(upper) == count
    if not fits or any(low > high for low, high in zip(lower, upper, strict=True)):
        raise ValueError(f"domain: {name} must be {count} bounds, the lower ones below")
