"""A surrogate's equations in words, where it is a polynomial of the states."""

import numpy as np

from spnode_core.nonlinear.polynomial import PolynomialOperator, factors
from spnode_core.spec import NoAutoencoderSpec
from spnode_core.surrogate import Surrogate

_MOST_TERMS = 60
_DIGITS = 6


def equations_of(surrogate: Surrogate) -> list[str]:
    """``y1' = -0.04 y1 + 1e4 y2 y3`` for each state, in the units of the data.

    Args:
        surrogate: Any; but only polynomials of states that are scaled without an
            offset, in 60 terms at most, can be written down.

    Returns:
        A line for each state; none where there is nothing to write.
    """
    nonlinear, normaliser = surrogate.dynamics.nonlinear, surrogate.normaliser
    scalings = (normaliser.states, normaliser.controls, normaliser.parameters)
    kinds = {kind for scaling in scalings for kind in scaling.kinds}
    is_plain = isinstance(surrogate.spec.autoencoder, NoAutoencoderSpec)
    if not isinstance(nonlinear, PolynomialOperator) or not is_plain:
        return []
    if nonlinear.network is not None:
        return []
    if kinds - {"max", "none"}:
        return []
    signature = surrogate.signature
    names = (*signature.states, *signature.controls, *signature.parameters)
    scales = np.concatenate([np.asarray(each.scale) for each in scalings])
    latent = len(signature.states)
    coefficients = np.array(nonlinear.coefficients)
    coefficients[:, 1 : latent + 1] += np.asarray(surrogate.dynamics.linear.matrix())
    index = factors(len(names), nonlinear.degree)
    physical = coefficients * scales[:latent, None]
    physical = physical / np.prod(np.append(scales, 1.0)[index], axis=1)
    if np.count_nonzero(coefficients) > _MOST_TERMS:
        return []
    products = [_product([names[i] for i in row if i < len(names)]) for row in index]
    return [
        f"{name}' = {_sum(row, products)}"
        for name, row in zip(signature.states, physical.tolist(), strict=True)
    ]


def _product(names: list[str]) -> str:
    """``y2 y3`` or ``y2^2 y3``."""
    powers = {name: names.count(name) for name in names}
    return " ".join(n if power == 1 else f"{n}^{power}" for n, power in powers.items())


def _sum(coefficients: list[float], products: list[str]) -> str:
    text = ""
    for value, product in zip(coefficients, products, strict=True):
        if value == 0:
            continue
        sign = "-" if value < 0 else "+"
        term = f"{abs(value):.{_DIGITS}g} {product}".strip()
        text += f" {sign} {term}" if text else f"{'-' * (value < 0)}{term}"
    return text or "0"
