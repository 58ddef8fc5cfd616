"""The description of a surrogate: its parts and its time stepping."""

import itertools
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from spnode_core.errors import InvalidInput
from spnode_core.spec.base import Depth, Spec, Width
from spnode_core.spec.linear import (
    DissipativeSpec,
    HurwitzSpec,
    LinearSpec,
    ModalSpec,
)
from spnode_core.spec.nonlinear import NonlinearSpec, RelaxationSpec

_LISTED = 20


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a state is named twice")
    return names


class ResidualSpec(Spec):
    """Encoder and decoder are a linear map plus a tanh network each."""

    kind: Literal["residual"] = "residual"
    width: Width = 32
    depth: Depth = 2
    logarithms: Annotated[
        tuple[str, ...],
        AfterValidator(_different),
        # A worker of before there were any refuses what it does not know.
        Field(exclude_if=lambda names: not names),
    ] = ()
    """States whose logarithms the encoder sees too: such as a radical that tells by
    its decade, long before it counts, how far a reaction has come."""


class PODSpec(Spec):
    """Principal directions of the scaled states (POD), each to unit variance.

    With a ``width``, encoder and decoder are the first ``latent`` of ``modes``
    directions plus a tanh network each, for dimensions too small for a linear map.
    """

    kind: Literal["pod"] = "pod"
    modes: PositiveInt | None = None
    """Principal directions that the networks see; the rest of the states is lost.
    Without networks it is the number of latent variables."""
    width: Width | None = None
    """Units of a hidden layer; None means a linear map."""
    depth: Depth = 2


class NoAutoencoderSpec(Spec):
    """The latent variables are the normalised states themselves."""

    kind: Literal["none"] = "none"


AutoencoderSpec = Annotated[
    ResidualSpec | PODSpec | NoAutoencoderSpec, Field(discriminator="kind")
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
Integrator = Literal["etd1", "etd2rk", "krogstad", "exprb32", "rodas4", "imex_ssp2"]
ScalingKind = Literal["linear", "log", "asinh", "max", "none"]


class SurrogateSpec(Spec):
    """``z = E(x, p), z' = A(p) z + f(z, u, p), x = D(z, p)`` and its time stepping."""

    latent: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Number of latent variables n."""
    linear: LinearSpec = ModalSpec()
    nonlinear: NonlinearSpec = RelaxationSpec()
    autoencoder: AutoencoderSpec = ResidualSpec()
    integrator: Integrator = "etd1"
    steps: StepsSpec = DataStepsSpec()
    propagators: Literal["precomputed", "matrix_free"] = "precomputed"
    """Whether ``phi_k(h A)`` are matrices, made once for each distinct step, or act on
    vectors without being formed, for a large or sparse ``A``."""
    conserved: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Named sums ``sum_i c_i x_i`` that each trajectory keeps: name to state to c_i."""
    positive: bool = False
    """Whether decoded states are positive and bounded by construction."""
    normalisation: dict[str, ScalingKind] = Field(default_factory=dict)
    """How single states are scaled; those not named are decided from the data: onto
    [-1, 1] by ``linear``, or of their ``log`` or ``asinh``; by their largest modulus,
    so that 0 stays 0, with ``max``. With ``none`` and no autoencoder ``A`` and ``f``
    act on the states as they are given."""
    precision: Literal["mixed", "float64"] = "mixed"
    """``mixed``: float32 networks; A, phi and the latent state are float64 always."""

    def __hash__(self) -> int:
        """By the plain fields: dictionaries have no hash of their own."""
        names = (*self.conserved, *self.normalisation)
        return hash((self.latent, self.linear, self.nonlinear, self.steps, names))

    @property
    def logarithms(self) -> tuple[str, ...]:
        """The states whose logarithms the encoder sees too."""
        found = self.autoencoder
        return found.logarithms if isinstance(found, ResidualSpec) else ()

    def logarithm_columns(self, states: tuple[str, ...]) -> list[int]:
        """Which of the states these are, by index.

        Raises:
            InvalidInput: One is none of them.
        """
        index = {state: number for number, state in enumerate(states)}
        for name in self.logarithms:
            if name not in index:
                raise InvalidInput(
                    "surrogate.autoencoder.logarithms",
                    found=f"the state {name!r}",
                    expected=f"names among {', '.join(states[:_LISTED])}"
                    + ("" if len(states) <= _LISTED else ", ..."),
                )
        return [index[name] for name in self.logarithms]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nonlinear.kind == "relaxation":
            if self.integrator != "etd1":
                raise ValueError(
                    f"integrator {self.integrator!r} does not converge on the "
                    "relaxation form; use 'etd1', or another nonlinear kind"
                )
            if not isinstance(self.linear, ModalSpec | HurwitzSpec | DissipativeSpec):
                raise ValueError(
                    "nonlinear kind 'relaxation' needs an invertible, stable linear "
                    "operator: 'modal', 'hurwitz' or 'dissipative', not "
                    f"{self.linear.kind!r}"
                )
            if self.linear.shift > 0:
                raise ValueError("nonlinear kind 'relaxation' needs linear.shift = 0")
        if self.nonlinear.kind == "contracting":
            bounded = isinstance(self.linear, ModalSpec | HurwitzSpec | DissipativeSpec)
            if not bounded or getattr(self.linear, "depends_on_parameters", False):
                raise ValueError(
                    "nonlinear kind 'contracting' needs a linear operator whose decay "
                    "it knows: 'modal' (with rates that do not depend on parameters), "
                    "'hurwitz' or 'dissipative'"
                )
        if self.positive and "none" in self.normalisation.values():
            raise ValueError("positive bounds states by their scales, so scale them")
        needs_matrix = self.integrator in ("exprb32", "rodas4", "imex_ssp2")
        if self.propagators == "matrix_free" and needs_matrix:
            raise ValueError(
                f"integrator {self.integrator!r} needs A as a matrix, which "
                "'matrix_free' never forms; use 'etd1', 'etd2rk' or 'krogstad'"
            )
        if self.autoencoder.kind != "residual" and (self.conserved or self.positive):
            raise ValueError(
                "conserved sums and positivity are properties of the decoder of "
                f"autoencoder 'residual'; {self.autoencoder.kind!r} has neither"
            )
        return self
