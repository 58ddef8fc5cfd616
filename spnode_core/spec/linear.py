"""Descriptions of the linear operator ``A``."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from spnode_core.spec.base import Spec

Rows = tuple[tuple[float, ...], ...]


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
    matrix: Rows | None = None
    """A stable matrix that ``A`` starts as, 1/time, ``(latent, latent)``; its
    eigenvalues have real parts below ``shift``."""

    @model_validator(mode="after")
    def _square(self) -> Self:
        if self.matrix is not None:
            _check_square("linear.matrix", self.matrix)
        return self


class DissipativeSpec(Spec):
    """Dense ``A = -Q + K + shift I``: every norm of the flow falls (P = I)."""

    kind: Literal["dissipative"] = "dissipative"
    shift: NonNegativeFloat = 0.0
    """Spectral shift alpha, 1/time: the logarithmic norm stays below it."""
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
    matrix: Rows
    """Rows of ``A``, 1/time, ``(latent, latent)``."""

    @model_validator(mode="after")
    def _square(self) -> Self:
        _check_square("linear.matrix", self.matrix)
        return self


class SparseSpec(Spec):
    """A given sparse ``A`` that training leaves alone, by its entries."""

    kind: Literal["sparse"] = "sparse"
    size: Annotated[int, Field(ge=1, le=65_536)]
    """Number of rows and of columns, the number of latent variables."""
    rows: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Row of each entry, from 0."""
    columns: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Column of each entry, from 0."""
    values: tuple[float, ...] = Field(min_length=1)
    """Entries, 1/time; those at the same place add up."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.rows) == len(self.columns) == len(self.values):
            raise ValueError("linear.rows, columns and values differ in length")
        if max(*self.rows, *self.columns) >= self.size:
            raise ValueError(f"linear.rows and columns must be below {self.size}")
        return self


class SymbolSpec(Spec):
    """A given differential operator on a periodic interval, by its symbol.

    The latent variables are values on equidistant points of the interval.
    """

    kind: Literal["symbol"] = "symbol"
    length: PositiveFloat
    """Period of the interval."""
    coefficients: tuple[float, ...] = Field(min_length=1, max_length=17)
    """Factors of ``1, d/ds, d^2/ds^2, ...``; ``(0, 0, -1, 0, -1)`` is that of
    Kuramoto-Sivashinsky."""


LinearSpec = Annotated[
    HurwitzSpec
    | DissipativeSpec
    | ModalSpec
    | DenseSpec
    | FixedSpec
    | SparseSpec
    | SymbolSpec,
    Field(discriminator="kind"),
]


def _check_square(name: str, matrix: Rows) -> None:
    rows = len(matrix)
    if rows == 0 or any(len(row) != rows for row in matrix):
        raise ValueError(f"{name} must be square, a list of equal rows")
