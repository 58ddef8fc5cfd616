r"""How fast the nonlinear operator may change with ``z``, and how large it may be.

For a tanh network :math:`W_m \tanh(\dots \tanh(W_1 z))` the Jacobian is
:math:`W_m D_{m-1} \cdots D_1 W_1` with diagonal :math:`0 < D_k \le I`, so that

.. math:: L \le \prod_k \lVert W_k \rVert_2, \qquad
   L_P \le \lVert T W_m \rVert_2 \cdots \lVert W_1 T^{-1} \rVert_2, \qquad
   L_\infty \le \lVert |W_m| \cdots |W_1| \rVert_\infty .

Products of latent variables have no global bound; theirs holds in a ball.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from spnode_core.certificates.claims import Certificate, claim, in_words, says_nothing
from spnode_core.certificates.domain import encoder_bound, others_extent
from spnode_core.certificates.norms import (
    Matrix,
    condition,
    largest_eigenvalue,
    spectral_norm,
)
from spnode_core.dynamics import Dynamics
from spnode_core.networks import Network
from spnode_core.nonlinear.base import AbstractNonlinearOperator
from spnode_core.nonlinear.bilinear import BilinearOperator
from spnode_core.nonlinear.contracting import ContractingOperator
from spnode_core.nonlinear.none import NoOperator
from spnode_core.nonlinear.polynomial import PolynomialOperator, factors
from spnode_core.nonlinear.quadratic import QuadraticOperator

if TYPE_CHECKING:
    from spnode_core.certificates.facts import Modes
    from spnode_core.surrogate import Surrogate

_EPS = float(np.finfo(np.float64).eps)
_POLYNOMIAL = (BilinearOperator, PolynomialOperator, QuadraticOperator)


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Bounds on ``f``, over all controls and parameters of the training box.

    Args:
        euclid: Lipschitz constant of f in the Euclidean norm, 1/time.
        lyapunov: The same in ``|.|_P``, 1/time.
        radius: They hold for ``|z|_2`` up to this; None: everywhere.
        entries: Bounds on the moduli of the Jacobian's entries: of ``g``, no unit,
            where f is in relaxation form, else of ``f``, 1/time; None in a ball.
        target: Lipschitz constant of ``g`` in the Euclidean norm; None without ``g``.
        values: ``|g_i|`` or ``|f_i|`` stays below this everywhere; None: unbounded.
        size: ``|f|_P`` stays below this everywhere, 1/time; None: unbounded.
    """

    euclid: float
    lyapunov: float
    radius: float | None = None
    entries: Matrix | None = None
    target: float | None = None
    values: Matrix | None = None
    size: float | None = None

    def in_ball(
        self, surrogate: "Surrogate", transform: Matrix, radius: float
    ) -> "Slopes":
        """The bounds for ``|z|_2 <= radius``, which need not be those of the box."""
        if self.radius is None:
            return self
        return _polynomial(surrogate, transform, radius)


def slopes_of(
    surrogate: "Surrogate",
    dynamics: Dynamics,
    matrix: Matrix,
    modes: "Modes | None",
    transform: Matrix,
) -> Slopes:
    """The bounds of a surrogate.

    Args:
        surrogate: The model.
        dynamics: Its dynamics, prepared.
        matrix: A.
        modes: Its modes, where A is modal.
        transform: ``T`` of the norm ``|z|_P = |T z|_2``.
    """
    nonlinear = dynamics.nonlinear
    if isinstance(nonlinear, NoOperator):
        none = np.zeros((len(matrix), len(matrix)))
        return Slopes(0.0, 0.0, entries=none, values=none[0], size=0.0)
    if isinstance(nonlinear, _POLYNOMIAL):
        radius = float(np.linalg.norm(encoder_bound(surrogate)))
        return _polynomial(surrogate, transform, radius)
    network = getattr(nonlinear, "network", None)
    assert isinstance(network, Network)
    if isinstance(nonlinear, ContractingOperator):
        return _contracting(network, transform)
    if not nonlinear.is_relaxation:
        return _network(network, transform)
    # f = -A g. Rates enlarged to their largest enlarge every norm of A W.
    factor = matrix if modes is None else np.diag(modes.modulus)
    found = _network(network, transform, factor)
    plain = _network(network, np.eye(len(matrix)))
    return dataclasses.replace(
        found, entries=plain.entries, target=plain.euclid, values=plain.values
    )


def lipschitz(surrogate: "Surrogate", slopes: Slopes) -> Certificate:
    """Bounds on the Lipschitz constant of ``f``, from the weights."""
    everywhere = slopes.radius is None
    where = "" if everywhere else f" in the ball |z| <= {slopes.radius:.3g}"
    if surrogate.dynamics.nonlinear.is_relaxation:
        assert slopes.entries is not None
        assert slopes.target is not None
        largest = float(slopes.entries.sum(axis=1).max())
        said = (
            f"The target g of f = -A g is Lipschitz with {in_words(largest)} in the "
            f"largest component and {in_words(slopes.target)} in the Euclidean norm; "
            f"f itself with {in_words(slopes.euclid)} 1/time."
        )
        bounds = (largest, slopes.target, slopes.euclid)
        numbers = {"target_largest": largest, "target_euclid": slopes.target}
    else:
        said = (
            f"f is Lipschitz{where} with {in_words(slopes.euclid)} 1/time in the "
            f"Euclidean norm and {in_words(slopes.lyapunov)} in the norm of P."
        )
        bounds = (slopes.euclid, slopes.lyapunov)
        numbers = {}
    if not everywhere:
        said += " It has no bound outside, since it holds products of latent variables."
    inputs = surrogate.signature.controls or surrogate.signature.parameters
    held = not everywhere and inputs
    assumptions = ("controls and parameters inside the training box",) if held else ()
    return claim(
        everywhere,
        said,
        assumptions,
        is_vacuous=all(map(says_nothing, bounds)),
        euclid=slopes.euclid,
        lyapunov=slopes.lyapunov,
        unit="1/time",
        radius=slopes.radius,
        **numbers,
    )


def _network(
    network: Network, transform: Matrix, factor: Matrix | None = None
) -> Slopes:
    """Bounds of ``factor N(z)``; ``factor`` is the identity where it is None."""
    weights = [np.asarray(weight, np.float64) for weight in network.weights]
    bias = np.asarray(network.biases[-1], np.float64)
    size = len(transform)
    first = weights[0][:, :size]
    entries = np.abs(first)
    for weight in weights[1:]:
        entries = np.abs(weight) @ entries
    values = np.abs(bias) + np.abs(weights[-1]).sum(axis=1)
    last = weights[-1] if factor is None else factor @ weights[-1]
    bias = bias if factor is None else factor @ bias
    middle = float(np.prod([spectral_norm(weight) for weight in weights[1:-1]]))
    turned = transform @ last
    seen = first @ np.linalg.inv(transform)
    rounding = 1 + 10 * size * _EPS * condition(transform)
    return Slopes(
        euclid=spectral_norm(last) * middle * spectral_norm(first),
        lyapunov=spectral_norm(turned) * middle * spectral_norm(seen) * rounding,
        entries=entries * (1 + 10 * max(map(max, (w.shape for w in weights))) * _EPS),
        values=values,
        size=_size(turned, transform @ bias),
    )


def _contracting(network: Network, transform: Matrix) -> Slopes:
    """``f(z) = T^-1 N(T z)``: in the norm of P it is the network itself."""
    own = _network(network, np.eye(len(transform)))
    inverse = np.linalg.inv(transform)
    weights = [np.asarray(weight, np.float64) for weight in network.weights]
    bias = np.asarray(network.biases[-1], np.float64)
    entries = np.abs(inverse @ weights[-1])
    for weight in weights[-2:0:-1]:
        entries = entries @ np.abs(weight)
    entries = entries @ np.abs(weights[0][:, : len(transform)] @ transform)
    rounding = 1 + 10 * len(transform) * _EPS * condition(transform)
    return Slopes(
        euclid=own.euclid * condition(transform) * rounding,
        lyapunov=own.euclid * rounding,
        entries=entries * rounding,
        values=np.abs(inverse @ bias) + np.abs(inverse @ weights[-1]).sum(axis=1),
        size=own.size,
    )


def _size(last: Matrix, bias: Matrix) -> float:
    """``|b + W h| <= |b| + min(sum_j |W_j|, ||W||_2 sqrt(width))``, ``|h_j| <= 1``."""
    columns = float(np.linalg.norm(last, axis=0).sum())
    whole = spectral_norm(last) * last.shape[1] ** 0.5
    return (float(np.linalg.norm(bias)) + min(columns, whole)) * (1 + 1e-12)


def _polynomial(surrogate: "Surrogate", transform: Matrix, radius: float) -> Slopes:
    r"""Bounds of a quadratic f in ``|z| <= R``, whose Jacobian is affine.

    ``|H (z, v)| <= ||H|| |z| |v|`` with the matrix ``H`` of ``n`` rows and ``n n``
    columns; a network beside the products adds its own bound.
    """
    latent = surrogate.signature.latent
    nonlinear = surrogate.dynamics.nonlinear
    extent = others_extent(surrogate)
    if isinstance(nonlinear, PolynomialOperator):
        return _of_products(nonlinear, transform, radius, extent)
    jacobian, curvature = _coefficients(nonlinear, latent, len(extent))
    inverse = np.linalg.inv(transform)
    identity = np.eye(latent)
    slopes = []
    for left, right in ((identity, identity), (transform, inverse)):
        turned = np.tensordot(left, curvature, 1)
        turned = np.moveaxis(np.tensordot(turned, right, ([1], [0])), 2, 1)
        slope = spectral_norm(left @ jacobian @ right)
        slope += radius * _wide_norm(turned[:, :, :latent].reshape(latent, -1))
        for k, size in enumerate(extent):
            slope += float(size) * spectral_norm(turned[:, :, latent + k])
        slopes.append(slope)
    network = getattr(nonlinear, "network", None)
    if network is not None:
        added = _network(network, transform)
        slopes = [slopes[0] + added.euclid, slopes[1] + added.lyapunov]
    rounding = 1 + 1e-12 * condition(transform)
    return Slopes(slopes[0], slopes[1] * rounding, radius=radius)


def _of_products(
    nonlinear: PolynomialOperator, transform: Matrix, radius: float, extent: Matrix
) -> Slopes:
    """Bounds from the moduli of all coefficients, each factor at its largest."""
    coefficients = np.abs(np.asarray(nonlinear.coefficients))
    latent = len(coefficients)
    sizes = np.concatenate([np.full(latent, radius), extent, [1.0]])
    index = factors(len(sizes) - 1, nonlinear.degree)
    entries = np.zeros((latent, latent))
    for place in range(nonlinear.degree):
        others = np.prod(np.delete(sizes[index], place, axis=1), axis=1)
        for k in range(latent):
            chosen = index[:, place] == k
            entries[:, k] += coefficients[:, chosen] @ others[chosen]
    if nonlinear.network is not None:
        entries += nonlinear.network.slopes()[:, :latent]
    inverse = np.abs(np.linalg.inv(transform))
    rounding = 1 + 1e-12 * condition(transform)
    lyapunov = spectral_norm(np.abs(transform) @ entries @ inverse)
    return Slopes(spectral_norm(entries), lyapunov * rounding, radius=radius)


def _wide_norm(matrix: Matrix) -> float:
    """Spectral norm of a matrix with few rows and many columns."""
    return max(largest_eigenvalue(matrix @ matrix.T), 0.0) ** 0.5 * (1 + 1e-12)


def _coefficients(
    nonlinear: AbstractNonlinearOperator, latent: int, others: int
) -> tuple[Matrix, Matrix]:
    """``df_i/dz_j`` at 0 and ``d^2 f_i / dz_j dv_k``, ``v = [z, u, p]``; no network."""
    if isinstance(nonlinear, BilinearOperator):
        return _of_bilinear(nonlinear, latent, latent + others)
    assert isinstance(nonlinear, QuadraticOperator)
    half = np.zeros((latent, latent, latent))
    if nonlinear.products is not None:
        first, second = np.triu_indices(latent)
        half[:, first, second] = np.asarray(nonlinear.products)
    if nonlinear.turning is not None:
        turning = np.asarray(nonlinear.turning)
        rows, columns = np.tril_indices(latent, -1)
        for k in range(latent):
            half[rows, columns, k] += turning[k]
            half[columns, rows, k] -= turning[k]
    curvature = half + half.transpose(0, 2, 1)
    affine = nonlinear.affine
    linear = np.zeros((latent, latent)) if affine is None else np.asarray(affine)
    return linear[:, :latent], np.pad(curvature, ((0, 0), (0, 0), (0, others)))


def _of_bilinear(
    nonlinear: BilinearOperator, latent: int, size: int
) -> tuple[Matrix, Matrix]:
    weights = (nonlinear.first, nonlinear.second, nonlinear.last)
    first, second, last = (np.asarray(weight, np.float64) for weight in weights)
    products = first[:, :size, None] * second[:, None, :size]
    half = np.tensordot(last, products, 1)
    curvature = half + half.transpose(0, 2, 1)
    jacobian = np.zeros((latent, latent))
    if first.shape[1] > size:
        # The input 1 behind the others makes some products linear.
        constant = first[:, -1:] * second + second[:, -1:] * first
        jacobian = (last @ constant)[:, :latent]
    return jacobian, curvature[:, :latent]
