"""Descriptions of the nonlinear operator ``f``."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from spnode_core.spec.base import Depth, Spec, Width


class BilinearSpec(Spec):
    """``f(z) = W3 [(W1 z) o (W2 z)]`` of low rank (paper, 6)."""

    kind: Literal["bilinear"] = "bilinear"
    rank: PositiveInt = 4
    initial_scale: PositiveFloat = 0.1


class QuadraticSpec(Spec):
    """``f(z) = H (z x z) + B z + c`` with every product, for small latent spaces."""

    kind: Literal["quadratic"] = "quadratic"
    energy_preserving: bool = False
    """Whether ``z . H (z x z) = 0`` by construction, so that products only turn."""
    affine: bool = True
    """Whether ``f`` has ``B z + c`` (of controls and parameters too)."""
    width: Width | None = None
    """Units of a tanh network added to the polynomial; None adds none."""
    depth: Depth = 2
    initial_scale: PositiveFloat = 0.01


class PolynomialSpec(Spec):
    """``f`` a polynomial of latent variables, controls and parameters together.

    For few variables, found by Gauss-Newton rounds (``training.initial``): mass action
    and most textbook systems are of degree 2 or 3.
    """

    kind: Literal["polynomial"] = "polynomial"
    degree: Annotated[int, Field(ge=1, le=4)] = 2
    """Largest number of factors of a product."""
    width: Width | None = None
    """Units of a tanh network of the variables and their logarithms, added to the
    polynomial for what is none; None adds none."""


class LipschitzSpec(Spec):
    """A tanh network whose Lipschitz constant is at most ``bound`` (paper, 7-8)."""

    kind: Literal["lipschitz"] = "lipschitz"
    width: Width = 32
    depth: Depth = 2
    bound: PositiveFloat = 1.0
    """Bound L on the Lipschitz constant of f in the Euclidean norm, 1/time."""
    layer_norm: Literal["row_column", "gram"] = "row_column"
    """How the norm of a layer is bounded: by the paper's (7-8), which wastes 5 to 45
    times the bound, or tightly, by Gram iteration."""
    initial_scale: PositiveFloat = 1.0


class ContractingSpec(Spec):
    """A tanh network that cannot undo the decay of ``A``: all rollouts come together.

    ``f(z) = L2^-T N(L2^T z)`` with ``Lip N = margin (c0 - shift)``, c0 the decay of
    ``A`` in the norm of its Lyapunov matrix ``P = L2 L2^T``.
    """

    kind: Literal["contracting"] = "contracting"
    width: Width = 32
    depth: Depth = 2
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Part of the decay of ``A`` that the network may use up."""
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
    contraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Bound below 1 on the Lipschitz constant of g in the largest-component norm:
    with real rates all rollouts come together. None leaves g free."""


class NoNonlinearSpec(Spec):
    """``f = 0``: the latent state evolves linearly, as in a Koopman autoencoder.

    What is nonlinear is in encoder and decoder. Controls have no way in.
    """

    kind: Literal["none"] = "none"


NonlinearSpec = Annotated[
    BilinearSpec
    | QuadraticSpec
    | PolynomialSpec
    | LipschitzSpec
    | ContractingSpec
    | MLPSpec
    | RelaxationSpec
    | NoNonlinearSpec,
    Field(discriminator="kind"),
]
