"""The polynomial operator: every product of latent variables, controls, parameters."""

import itertools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import NDArray

from spnode_core.nonlinear.base import AbstractNonlinearOperator
from spnode_core.nonlinear.log_network import LogNetwork


class PolynomialOperator(AbstractNonlinearOperator):
    r"""``f(z, u, p) = sum_k c_k prod_j w_j``, w the variables of the k-th product.

    .. math:: f_i(w) = \sum_{|\alpha| \le d} C_{i\alpha}\, w^\alpha + N_i(w),
       \qquad w = [z, u, p]

    Mass action, convection and most textbook systems are such polynomials of their
    states and rate constants; ``polynomial_fit`` finds the coefficients. What is none,
    roots and quotients of them, a network N of one layer adds; ``network_fit`` finds
    both. All float64.

    Args:
        latent: Number of latent variables.
        others: Number of controls and parameters.
        degree: Largest number of factors of a product.
        width: Units of the network; None leaves it out.
        key: Source of the network's initial weights.
    """

    coefficients: Float[Array, "latent term"]
    degree: int = eqx.field(static=True)
    others: int = eqx.field(static=True)
    network: LogNetwork | None

    def __init__(
        self,
        latent: int,
        *,
        others: int,
        degree: int,
        width: int | None = None,
        key: PRNGKeyArray | None = None,
    ) -> None:
        self.degree, self.others = degree, others
        count = term_count(latent + others, degree)
        self.coefficients = jnp.zeros((latent, count), jnp.float64)
        self.network = None
        if width is not None:
            assert key is not None
            self.network = LogNetwork(latent + others, latent, width=width, key=key)

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, 1/time."""
        value = self.coefficients @ terms(inputs, self.degree)
        return value if self.network is None else value + self.network(inputs)


def term_count(inputs: int, degree: int) -> int:
    """Number of products of at most ``degree`` inputs, the empty one among them."""
    return math.comb(inputs + degree, degree)


def factors(inputs: int, degree: int) -> NDArray[np.int64]:
    """Which inputs each product has, ``(term, degree)``; ``inputs`` stands for 1.

    The empty product comes first, then the inputs themselves in their order.
    """
    rows = [
        (*chosen, *[inputs] * (degree - size))
        for size in range(degree + 1)
        for chosen in itertools.combinations_with_replacement(range(inputs), size)
    ]
    return np.array(rows, np.int64)


def terms(inputs: Float[Array, " input"], degree: int) -> Float[Array, " term"]:
    """The products in the order of ``factors``."""
    index = factors(inputs.shape[0], degree)
    with_one = jnp.append(inputs, 1.0)
    # Not jnp.prod, whose gradient cannot be exported for any number of rows.
    product = with_one[index[:, 0]]
    for column in index.T[1:]:
        product = product * with_one[column]
    return product
