"""First-order optimisers and their schedules, over a list of parameter arrays."""

import optax
from jaxtyping import Array
from optax.contrib import MuonDimensionNumbers, muon

from spnode_core.spec import TrainingSpec

FINAL_RATE = 1e-3
"""The cosine ends at this part of the first learning rate."""
# Weights are (outputs, inputs), the other way round from what optax takes for granted;
# its steps grow with the root of outputs / inputs where a layer widens.
_FROM_INPUTS = MuonDimensionNumbers(reduction_axis=1, output_axis=0)


def create_optimiser(
    spec: TrainingSpec, is_weight: list[bool], rate: optax.Schedule
) -> optax.GradientTransformation:
    """Build the optimiser of a training description.

    Args:
        spec: Which, with what clipping.
        is_weight: For each parameter, whether it is a weight matrix: these go by Muon,
            where it is asked for, everything else by Adam.
        rate: Learning rate at each iteration.
    """
    if spec.optimiser == "adam":
        optimiser = optax.adam(rate, b2=0.99)
    else:
        numbers = [_FROM_INPUTS if w else None for w in is_weight]
        optimiser = muon(
            rate,
            muon_weight_dimension_numbers=lambda _: numbers,  # type: ignore[arg-type]
        )
    if spec.clip is None:
        return optimiser
    return optax.chain(optax.clip_by_global_norm(spec.clip), optimiser)


def learning_rate(spec: TrainingSpec) -> optax.Schedule:
    """Learning rate at each iteration."""
    if spec.schedule == "constant":
        return optax.constant_schedule(spec.learning_rate)
    if spec.schedule == "exponential":
        return optax.exponential_decay(
            spec.learning_rate, spec.decay_iterations, spec.decay
        )
    return optax.cosine_decay_schedule(
        spec.learning_rate, max(1, spec.iterations), alpha=FINAL_RATE
    )


def weight_flags(paths: list[str], leaves: list[Array]) -> list[bool]:
    """Which parameters are weight matrices; entries of ``A`` never are."""
    return [
        leaf.ndim == 2 and ".dynamics.linear" not in path
        for path, leaf in zip(paths, leaves, strict=True)
    ]
