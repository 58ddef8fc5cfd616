"""Initial linear operators: rates spread over the decades of the data.

With unit-scale random rates a stiff rate is many decades away from where training can
find it; where the rates start matters more than any other choice.
"""

import numpy as np
from numpy.typing import NDArray

from spnode_core.errors import InvalidInput
from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.linear.dissipative import DissipativeOperator
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.matrix import DenseOperator, FixedOperator
from spnode_core.linear.modal import ModalOperator
from spnode_core.linear.sparse import SparseOperator
from spnode_core.linear.symbol import SymbolOperator
from spnode_core.spec import (
    DissipativeSpec,
    FixedSpec,
    HurwitzSpec,
    LinearSpec,
    ModalSpec,
    RatesSpec,
    SparseSpec,
    SymbolSpec,
)


def log_spaced_rates(count: int, rates: RatesSpec) -> NDArray[np.float64]:
    """``count`` rates from ``rates.minimum`` to ``rates.maximum``, log-spaced.

    Args:
        count: Number of rates, at least 1; a single one is the geometric mean.
        rates: Bounds, 1/time.
    """
    low, high = np.log(rates.minimum), np.log(rates.maximum)
    if count == 1:
        return np.exp(np.array([(low + high) / 2]))
    return np.exp(np.linspace(low, high, count))


def create_linear(
    spec: LinearSpec, *, latent: int, parameters: int
) -> AbstractLinearOperator:
    """The initial operator that a resolved spec describes.

    Args:
        spec: The linear operator; its ``rates`` are known, unless it is fixed.
        latent: Number of latent variables n.
        parameters: Number of parameters p of the system.

    Raises:
        InvalidInput: The spec does not fit ``latent``, its rates are not known, or its
            matrix is not stable.
    """
    if isinstance(spec, FixedSpec):
        _check_size("matrix", len(spec.matrix), latent)
        return FixedOperator(spec.matrix)
    if isinstance(spec, SparseSpec):
        _check_size("size", spec.size, latent)
        return SparseOperator(spec.size, spec.rows, spec.columns, spec.values)
    if isinstance(spec, SymbolSpec):
        return SymbolOperator(latent, spec.length, spec.coefficients)
    if isinstance(spec, HurwitzSpec) and spec.matrix is not None:
        _check_size("matrix", len(spec.matrix), latent)
        return HurwitzOperator.from_matrix(np.array(spec.matrix), shift=spec.shift)
    if spec.rates is None:
        raise InvalidInput(
            "surrogate.linear.rates",
            found="none",
            expected="a minimum and a maximum rate (a preset finds them in the data)",
        )
    if isinstance(spec, ModalSpec):
        if 2 * spec.oscillating > latent:
            raise InvalidInput(
                "surrogate.linear.oscillating",
                found=f"{spec.oscillating} pairs",
                expected=f"at most {latent // 2}, half of the latent variables",
            )
        return ModalOperator(
            log_spaced_rates(latent - spec.oscillating, spec.rates),
            oscillating=spec.oscillating,
            shift=spec.shift,
            parameters=parameters if spec.depends_on_parameters else 0,
        )
    rates = log_spaced_rates(latent, spec.rates)
    if isinstance(spec, HurwitzSpec):
        return HurwitzOperator(rates, shift=spec.shift)
    if isinstance(spec, DissipativeSpec):
        return DissipativeOperator(rates, shift=spec.shift)
    return DenseOperator(rates)


def _check_size(field: str, rows: int, latent: int) -> None:
    if rows != latent:
        raise InvalidInput(
            f"surrogate.linear.{field}",
            found=f"{rows} rows",
            expected=f"{latent}, the number of latent variables",
        )
