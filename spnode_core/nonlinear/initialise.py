"""Initial nonlinear operators, from their spec."""

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from spnode_core.networks import Network
from spnode_core.nonlinear.base import AbstractNonlinearOperator
from spnode_core.nonlinear.bilinear import BilinearOperator
from spnode_core.nonlinear.contracting import ContractingOperator
from spnode_core.nonlinear.lipschitz import LipschitzOperator
from spnode_core.nonlinear.mlp import MLPOperator, RelaxationOperator
from spnode_core.nonlinear.none import NoOperator
from spnode_core.nonlinear.polynomial import PolynomialOperator
from spnode_core.nonlinear.quadratic import QuadraticOperator
from spnode_core.spec import (
    BilinearSpec,
    ContractingSpec,
    LipschitzSpec,
    NonlinearSpec,
    NoNonlinearSpec,
    PolynomialSpec,
    QuadraticSpec,
    RelaxationSpec,
)


def create_nonlinear(
    spec: NonlinearSpec,
    *,
    latent: int,
    others: int,
    dtype: jnp.dtype,
    key: PRNGKeyArray,
) -> AbstractNonlinearOperator:
    """The initial operator that a spec describes.

    Args:
        spec: The nonlinear operator.
        latent: Number of latent variables.
        others: Number of controls and parameters that it also sees.
        dtype: Dtype of the weights.
        key: Source of the initial weights.
    """
    if isinstance(spec, NoNonlinearSpec):
        return NoOperator(latent)
    if isinstance(spec, BilinearSpec):
        return BilinearOperator(
            latent,
            others=others,
            rank=spec.rank,
            initial_scale=spec.initial_scale,
            dtype=dtype,
            key=key,
        )
    if isinstance(spec, PolynomialSpec):
        return PolynomialOperator(
            latent, others=others, degree=spec.degree, width=spec.width, key=key
        )
    if isinstance(spec, QuadraticSpec):
        added_key, key = jax.random.split(key)
        added = None
        if spec.width is not None:
            shape = {"width": spec.width, "depth": spec.depth, "dtype": dtype}
            added = Network(
                latent + others,
                latent,
                last_scale=spec.initial_scale,
                key=added_key,
                **shape,
            )
        return QuadraticOperator(
            latent,
            others=others,
            energy_preserving=spec.energy_preserving,
            affine=spec.affine,
            network=added,
            initial_scale=spec.initial_scale,
            key=key,
        )
    network = Network(
        latent + others,
        latent,
        width=spec.width,
        depth=spec.depth,
        last_scale=spec.initial_scale,
        dtype=dtype,
        key=key,
    )
    if isinstance(spec, LipschitzSpec):
        return LipschitzOperator(network, spec.bound, spec.layer_norm)
    if isinstance(spec, ContractingSpec):
        return ContractingOperator(network, spec.margin)
    if isinstance(spec, RelaxationSpec):
        return RelaxationOperator(network, spec.contraction)
    return MLPOperator(network)
