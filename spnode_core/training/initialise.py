"""The untrained surrogate of a dataset: its signature, scalings and first weights."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from numpy.typing import NDArray

from spnode_core.autoencoder import Directions
from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput
from spnode_core.normaliser import (
    Normaliser,
    Scaling,
    fit_logarithms,
    fit_scaling,
)
from spnode_core.spec import DomainSpec, PODSpec, Signature, SurrogateSpec
from spnode_core.surrogate import Surrogate, conserved_matrix

# Sums that are the same in all trajectories differ by the tolerance of the solver that
# made the data, or by single precision; an x0 typed in by hand has fewer digits yet.
_SAME_SUM = 1e-3
# Below this part of the largest variance a direction is rounding.
_LEAST_VARIANCE = 1e-15


def create_surrogate(dataset: Dataset, spec: SurrogateSpec, seed: int) -> Surrogate:
    """Build the surrogate that training starts from.

    Args:
        dataset: The trajectories to train on: their ranges become scalings and domain.
        spec: A description without an open field.
        seed: Source of the initial weights.
    """
    signature = signature_of(dataset, spec)
    normaliser = _normaliser(dataset, spec)
    directions = _principal_directions(dataset, spec, normaliser.states)

    @eqx.filter_jit
    def create(normaliser: Normaliser, key: PRNGKeyArray) -> Surrogate:
        return Surrogate.create(
            spec, signature, normaliser, key=key, directions=directions
        )

    # Compiled as a whole: one by one its many small operations take seconds.
    return create(normaliser, jax.random.key(seed))


def signature_of(dataset: Dataset, spec: SurrogateSpec) -> Signature:
    """Names, units, sizes and the box that the data covers."""
    assert spec.latent is not None
    samples = _samples(dataset)
    sums = samples @ conserved_matrix(spec, dataset.names).T
    controls = np.concatenate(list(dataset.controls))
    return Signature(
        states=dataset.names,
        units=dataset.units,
        time_unit=dataset.time_unit,
        parameters=dataset.parameter_names,
        controls=dataset.control_names,
        latent=spec.latent,
        domain=DomainSpec(
            lower=_columns(np.nanmin, dataset.states.reshape(-1, samples.shape[1])),
            upper=_columns(np.nanmax, dataset.states.reshape(-1, samples.shape[1])),
            parameters_lower=_columns(np.min, dataset.parameters),
            parameters_upper=_columns(np.max, dataset.parameters),
            controls_lower=_columns(np.min, controls),
            controls_upper=_columns(np.max, controls),
            conserved_lower=_columns(np.min, sums),
            conserved_upper=_columns(np.max, sums),
            end=dataset.longest,
        ),
    )


def _normaliser(dataset: Dataset, spec: SurrogateSpec) -> Normaliser:
    def scaling(values: NDArray[np.float64], names: tuple[str, ...]) -> Scaling:
        if not names:
            return Scaling.skeleton([])
        return fit_scaling(values, [spec.normalisation[name] for name in names])

    sums = _samples(dataset) @ conserved_matrix(spec, dataset.names).T
    return Normaliser(
        states=scaling(dataset.states, dataset.names),
        sums=fit_scaling(sums, ["linear"] * sums.shape[1], still=_SAME_SUM)
        if spec.conserved
        else Scaling.skeleton([]),
        parameters=scaling(dataset.parameters, dataset.parameter_names),
        controls=scaling(dataset.controls, dataset.control_names),
        logarithms=_logarithms(dataset, spec),
    )


def _logarithms(dataset: Dataset, spec: SurrogateSpec) -> Scaling | None:
    columns = spec.logarithm_columns(dataset.names)
    states = dataset.states[:, :, columns]
    return fit_logarithms(states.reshape(-1, len(columns))) if columns else None


def _samples(dataset: Dataset) -> NDArray[np.float64]:
    """Samples without a missing state, ``(sample, state)``."""
    return dataset.states[dataset.mask.all(axis=2)]


def _columns(
    statistic: Callable[[NDArray[np.float64]], Any], values: NDArray[np.float64]
) -> tuple[float, ...]:
    return tuple(float(statistic(column)) for column in values.T if column.size)


def _principal_directions(
    dataset: Dataset, spec: SurrogateSpec, scaling: Scaling
) -> Directions | None:
    """Leading directions of the scaled states, where there are fewer than states.

    Raises:
        InvalidInput: The states do not move in as many directions as a POD asks for.
    """
    assert spec.latent is not None
    states = len(dataset.names)
    autoencoder = spec.autoencoder
    is_pod = isinstance(autoencoder, PODSpec)
    if autoencoder.kind == "none" or (not is_pod and spec.latent >= states):
        return None
    scaled = np.asarray(jax.vmap(scaling.normalise)(jnp.asarray(_samples(dataset))))
    if isinstance(autoencoder, PODSpec):
        return principal_directions(scaled, autoencoder.modes or spec.latent)
    # Around the origin of the scaling, which the residual encoder's map keeps.
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    leading = jnp.asarray(np.ascontiguousarray(vectors[:, ::-1].T[: spec.latent]))
    return Directions.skeleton(spec.latent, states)._replace(vectors=leading)


def principal_directions(scaled: NDArray[np.float64], modes: int) -> Directions:
    """The directions along which states vary most, signed so that equal data agree.

    Args:
        scaled: Normalised states, ``(sample, state)``.
        modes: How many.

    Raises:
        InvalidInput: The states vary in fewer directions.
    """
    centre = scaled.mean(axis=0)
    moved = scaled - centre
    variances, vectors = np.linalg.eigh(moved.T @ moved / len(moved))
    variances, vectors = variances[::-1], vectors.T[::-1]
    there = int(np.sum(variances > _LEAST_VARIANCE * max(variances[0], 1e-300)))
    if modes > there:
        raise InvalidInput(
            "surrogate.autoencoder.modes",
            found=f"{modes} principal directions",
            expected=f"at most {there}, beyond which the states do not move",
        )
    vectors = vectors[:modes]
    largest = np.abs(vectors).argmax(axis=1)
    vectors = vectors * np.sign(vectors[np.arange(modes), largest])[:, None]
    deviations = np.sqrt(variances[:modes])
    return Directions(*map(jnp.asarray, (centre, vectors, deviations)))
