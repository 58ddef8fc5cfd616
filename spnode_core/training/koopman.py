"""What a Koopman autoencoder is made of and trained by where the caller leaves it open.

With ``f = 0`` encoder and decoder carry all that is nonlinear, so they are wider than
beside a nonlinear operator, and they are learned from pairs of samples.
"""

from spnode_core.dataset import Dataset
from spnode_core.normaliser import logarithm_floor
from spnode_core.spec import ResidualSpec, SurrogateSpec, TrainingSpec
from spnode_core.training.choices import Choices, chosen
from spnode_core.training.stage_checks import why_no_pairs

_WIDTH, _PAIRS, _RATE = 64, 1024, 0.003
_ITERATIONS = 30_000
_LEAST_ITERATIONS = 1000
# Of the iterations, for each second of a limit of time; and the number of states from
# which on each of them takes longer.
_PER_SECOND, _MANY_STATES = 75.0, 256
_LISTED = 8


def with_networks(
    spec: SurrogateSpec,
    train: TrainingSpec,
    dataset: Dataset,
    choices: Choices,
) -> SurrogateSpec:
    """The networks of a linear latent space, where none are given.

    The encoder sees the logarithms of states that span decades and are not scaled by
    them, unless noise is asked for that would hide what they tell.
    """
    if spec.nonlinear.kind != "none" or "autoencoder" in spec.model_fields_set:
        return spec
    columns = zip(dataset.names, dataset.states.T, strict=True)
    names = tuple(
        name
        for name, column in columns
        if spec.normalisation.get(name) != "log"
        and train.noise == 0
        and logarithm_floor(column) is not None
    )
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        chosen(
            choices,
            "surrogate.autoencoder.logarithms",
            ", ".join(names[:_LISTED]) + more,
            "they span decades: the encoder sees their logarithms too",
        )
    return spec.replaced(autoencoder=ResidualSpec(width=_WIDTH, logarithms=names))


def with_pairs(
    spec: SurrogateSpec, train: TrainingSpec, choices: Choices
) -> TrainingSpec:
    """Training on pairs, where nothing is asked for that only rollouts have."""
    if train.pairs is False or why_no_pairs(spec, train) is not None:
        return train
    given = train.model_fields_set
    fields = {
        "iterations": _affordable(spec, train),
        "batch": _PAIRS,
        "learning_rate": _RATE,
        "refine": 1,
    }
    why = "one step of a linear latent space is exact, whatever its length"
    new = {name: value for name, value in fields.items() if name not in given}
    if not train.pairs:
        new = {"pairs": True, **new}
    for name, value in new.items():
        chosen(choices, f"training.{name}", value, why)
    return train.replaced(**new)


def _affordable(spec: SurrogateSpec, train: TrainingSpec) -> int:
    states = max(len(spec.normalisation), 1)
    iterations = float(_ITERATIONS)
    if train.max_seconds is not None:
        iterations = min(iterations, _PER_SECOND * train.max_seconds)
    return max(int(iterations * min(1.0, _MANY_STATES / states)), _LEAST_ITERATIONS)
