r"""Norms of vectors and of matrices, each bound rounded upwards.

For any invertible ``T`` and ``|z|_P = |T z|_2``, ``P = T^T T``,

.. math:: \mu_P(A) = \lambda_{max}(\mathrm{sym}(T A T^{-1})), \qquad
   \lVert e^{tA} \rVert_P \le e^{\mu_P(A) t},

so that any ``P`` gives true bounds, however it was found; a good one gives sharp ones.
"""

import warnings
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)


def spectral_norm(matrix: Matrix) -> float:
    """Largest singular value, rounded upwards by the error of computing it."""
    if matrix.size == 0:
        return 0.0
    value = float(np.linalg.norm(matrix, 2))
    return value * (1 + 10 * max(matrix.shape) * _EPS)


def log_norm(matrix: Matrix | NDArray[np.complex128]) -> float:
    """``mu_2(A) = lmax(sym A)``, rounded upwards."""
    return largest_eigenvalue((matrix + matrix.conj().T) / 2)


def largest_eigenvalue(symmetric: Matrix | NDArray[np.complex128]) -> float:
    """Largest eigenvalue of a symmetric or Hermitian matrix, rounded upwards."""
    values = np.linalg.eigvalsh(symmetric)
    rounding = 10 * len(values) * _EPS * float(np.abs(values).max())
    return float(values[-1]) + rounding


def condition(matrix: Matrix | NDArray[np.complex128]) -> float:
    """Condition number in the Euclidean norm; infinite where it is singular."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return float(values[0] / values[-1]) if values[-1] > 0 else float("inf")


def solve_lyapunov(matrix: Matrix) -> Matrix | None:
    """``T`` with ``P = T^T T`` and ``A^T P + P A = -2 Q``; None where there is none.

    ``Q`` is the part of unit trace that weighs each direction by its own rate, so that
    slow and fast modes count alike.

    Args:
        matrix: A stable matrix A, 1/time.
    """
    size = len(matrix)
    weights = np.sqrt((matrix**2).sum(axis=0)) + 1e-300
    with warnings.catch_warnings():
        # Of a matrix that is all but singular: what comes out is measured anyway.
        warnings.simplefilter("ignore", RuntimeWarning)
        solution = scipy.linalg.solve_continuous_lyapunov(
            matrix.T, -2 * np.diag(weights / weights.mean())
        )
    try:
        lower = np.linalg.cholesky((solution + solution.T) / 2)
    except np.linalg.LinAlgError:
        return None
    transform = lower.T * np.sqrt(size / np.trace(solution))
    return transform if np.isfinite(transform).all() else None


def bases(matrix: Matrix) -> list[tuple[str, NDArray[np.complex128]]]:
    """Bases ``T`` in which ``T^{-1} A T`` is diagonal or nearly so, with their names.

    Eigenvectors of unit length, unless they are defective, and Schur vectors scaled by
    powers ``k^i``: as in a scaled Jordan basis what couples the modes is made small.

    Args:
        matrix: A square matrix A.
    """
    _, vectors = np.linalg.eig(matrix)
    # The length of the answer depends on the arguments, which its stubs cannot say.
    factors: Any = scipy.linalg.schur(matrix, output="complex")
    triangle, unitary = factors
    found = [("eigenvectors", vectors.astype(np.complex128))]
    for scale in np.logspace(0, -3, 25):
        powers = scale ** np.arange(len(triangle))
        if powers[-1] > 1e-12:
            found.append(("scaled Schur vectors", unitary * powers))
    return found
