"""The factors ``(-Q + K) P`` of a given stable matrix.

Two ways, and the one that gives the matrix back more accurately: from blocks, where the
eigenvectors are independent enough, and from the Lyapunov equation, which also factors
matrices that cannot be diagonalised.
"""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from spnode_core.errors import InvalidInput

Matrix = NDArray[np.float64]
Factors = tuple[Matrix, Matrix, Matrix]

# Beyond this the product of the factors is not the matrix any more.
_LARGEST_ERROR = 1e-6


def factors_of(matrix: Matrix, *, shift: float = 0.0) -> Factors:
    r"""``Q``, ``K`` and ``P`` with ``A = (-Q + K) P + shift I`` and ``trace(P) = n``.

    Either :math:`A - \alpha I = S D S^{-1}` with D of blocks :math:`[-r]` and
    :math:`[[-r, w], [-w, -r]]`, then

    .. math:: P = (S S^T)^{-1}, \quad Q = -S\,\mathrm{sym}(D)\,S^T, \quad
       K = S\,\mathrm{skew}(D)\,S^T

    or X solves :math:`(A - \alpha I) X + X (A - \alpha I)^T = -2 I`, then
    :math:`P = X^{-1}`, :math:`Q = I`, :math:`K = (A - \alpha I) X + I`.

    Args:
        matrix: ``A``, 1/time, ``(latent, latent)``.
        shift: What the real parts of the eigenvalues are below, 1/time.

    Raises:
        InvalidInput: An eigenvalue is not below ``shift``, or so near that the factors
            lose the matrix.

    Source:
        Duan & Patton (1998), Automatica 34(4), 509-511, Theorem 1.
    """
    stable = matrix - shift * np.eye(len(matrix))
    abscissa = float(np.linalg.eigvals(matrix).real.max())
    if not abscissa < shift:
        raise InvalidInput(
            "surrogate.linear.matrix",
            found=f"an eigenvalue with real part {abscissa:.6g}",
            expected=f"all real parts below shift = {shift:g}",
        )
    found = [f for f in (_from_blocks(stable), _from_lyapunov(stable)) if f is not None]
    errors = [_error(factors, stable) for factors in found]
    if not errors or not min(errors) < _LARGEST_ERROR:
        raise InvalidInput(
            "surrogate.linear.matrix",
            found=f"a matrix that is hardly stable, {shift - abscissa:.3g} below shift",
            expected="one whose Lyapunov matrix float64 can hold; raise shift, or use "
            "linear kind 'dense' or 'fixed'",
        )
    return found[int(np.argmin(errors))]


def _from_blocks(matrix: Matrix) -> Factors | None:
    values, vectors = np.linalg.eig(matrix)
    blocks = np.zeros(matrix.shape)
    basis = np.zeros(matrix.shape)
    column = 0
    for value, vector in zip(values, vectors.T, strict=True):
        if value.imag == 0:
            basis[:, column] = vector.real
            blocks[column, column] = value.real
            column += 1
        elif value.imag > 0:
            basis[:, column], basis[:, column + 1] = vector.real, vector.imag
            pair = slice(column, column + 2)
            blocks[pair, pair] = _block(value)
            column += 2
    try:
        inverse = np.linalg.inv(basis)
    except np.linalg.LinAlgError:
        return None
    q = -basis @ (blocks + blocks.T) / 2 @ basis.T
    k = basis @ (blocks - blocks.T) / 2 @ basis.T
    return _scaled(q, k, inverse.T @ inverse)


def _block(value: np.complex128) -> Matrix:
    return np.array([[value.real, value.imag], [-value.imag, value.real]])


def _from_lyapunov(matrix: Matrix) -> Factors | None:
    identity = np.eye(len(matrix))
    try:
        x = scipy.linalg.solve_continuous_lyapunov(matrix, -2 * identity)
        p = np.asarray(np.linalg.inv((x + x.T) / 2), np.float64)
    except np.linalg.LinAlgError:
        return None
    k = matrix @ x + identity
    return _scaled(identity, k, p)


def _scaled(q: Matrix, k: Matrix, p: Matrix) -> Factors | None:
    """The factors with ``trace(P) = n``, where Q and P are positive definite."""
    factor = len(p) / np.trace(p)
    q, k, p = (q + q.T) / 2 / factor, (k - k.T) / 2 / factor, (p + p.T) / 2 * factor
    try:
        np.linalg.cholesky(q)
        np.linalg.cholesky(p)
    except np.linalg.LinAlgError:
        return None
    return q, k, p


def _error(factors: Factors, matrix: Matrix) -> float:
    """Relative error of the matrix that the triangular factors multiply out to."""
    l1, l2 = np.linalg.cholesky(factors[0]), np.linalg.cholesky(factors[2])
    product = (factors[1] - l1 @ l1.T) @ (l2 @ l2.T)
    return float(np.linalg.norm(product - matrix) / np.linalg.norm(matrix))
