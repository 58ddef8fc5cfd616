"""What is left open in a description, decided from the data, with the reason.

Fields that the caller set explicitly always win.
"""

from typing import Any, get_args

import numpy as np

from spnode_core.data_report import choose_kind
from spnode_core.dataset import Dataset
from spnode_core.deviations import or_size
from spnode_core.errors import InvalidInput
from spnode_core.spec import (
    DataStepsSpec,
    FixedSpec,
    HurwitzSpec,
    LinearSpec,
    LipschitzSpec,
    NoAutoencoderSpec,
    OperatorInferenceSpec,
    PODSpec,
    Preset,
    QuadraticSpec,
    RatesSpec,
    ScalingKind,
    SparseSpec,
    SurrogateSpec,
    SymbolSpec,
    TrainingSpec,
    UniformStepsSpec,
)
from spnode_core.timegrid import TimeGrid
from spnode_core.training.choices import Choices, chosen
from spnode_core.training.declared import check_positive, with_sums
from spnode_core.training.koopman import with_networks, with_pairs
from spnode_core.training.operator_inference import MOST_LATENT
from spnode_core.training.step_grids import refined_steps, step_grid

SMALL = 20
"""Up to so many states, the latent space is larger than the state space."""
SMOOTH_SUBSTEPS = 4
"""Steps of the fourth order between two samples in the preset ``smooth``."""
_ENERGY_LEFT_OUT = 1e-6
_SLOW, _ALMOST_STILL = 0.1, 1e-4
_RATIO_FOR_LOG_PARAMETER = 30.0


def resolve(
    dataset: Dataset,
    surrogate: SurrogateSpec | None = None,
    training: TrainingSpec | None = None,
    preset: Preset = "auto",
) -> tuple[SurrogateSpec, TrainingSpec, Choices]:
    """Complete both descriptions from the data.

    Args:
        dataset: The data to learn from.
        surrogate: What the caller fixed of the surrogate.
        training: What the caller fixed of the training.
        preset: ``auto`` (relaxation form, rates from the data's times), ``paper``
            (arXiv 2503.01775: Hurwitz operator, Lipschitz network, Adam 0.01) or
            ``smooth`` (POD, quadratic operator by operator inference, Krogstad).

    Returns:
        Both descriptions without an open field, and the choices made: what, value, why.

    Raises:
        InvalidInput: The caller's fields do not fit the data.
    """
    spec, train, choices = apply_preset(surrogate, training, preset)
    check_positive(spec, dataset)
    spec = with_sums(spec, dataset, choices)
    substeps = SMOOTH_SUBSTEPS if preset == "smooth" else 1
    spec = _steps(spec, dataset, choices, substeps)
    spec = _latent(spec, dataset, choices)
    spec = _modes(spec, dataset, choices)
    spec = _rates(spec, dataset, choices)
    spec = _normalisation(spec, dataset, choices)
    spec = with_networks(spec, train, dataset, choices)
    return spec, training_for(spec, train, choices), choices


def apply_preset(
    surrogate: SurrogateSpec | None, training: TrainingSpec | None, preset: Preset
) -> tuple[SurrogateSpec, TrainingSpec, Choices]:
    """What a preset decides without looking at data.

    Args:
        surrogate: What the caller fixed of the surrogate.
        training: What the caller fixed of the training.
        preset: One of those of ``resolve``.

    Raises:
        InvalidInput: No such preset, or one that excludes what the caller fixed.
    """
    if preset not in get_args(Preset):
        raise InvalidInput(
            "preset",
            found=repr(preset),
            expected=f"one of {', '.join(get_args(Preset))}",
        )
    choices: Choices = []
    spec = surrogate or SurrogateSpec()
    train = training or TrainingSpec()
    if preset == "paper":
        spec, train = _paper(spec, train, choices)
    if preset == "smooth":
        spec, train = _smooth(spec, train, choices)
    return spec, train, choices


def _paper(
    spec: SurrogateSpec, train: TrainingSpec, choices: Choices
) -> tuple[SurrogateSpec, TrainingSpec]:
    why = "preset paper (arXiv 2503.01775)"
    fields: dict[str, Any] = {}
    if "linear" not in spec.model_fields_set:
        fields["linear"] = HurwitzSpec(rates=RatesSpec(minimum=0.1, maximum=10.0))
        chosen(
            choices,
            "surrogate.linear",
            "hurwitz, rates 0.1 to 10",
            f"{why}: rates of order one, whatever the data",
        )
    if "nonlinear" not in spec.model_fields_set:
        fields["nonlinear"] = LipschitzSpec(width=100, depth=2, initial_scale=0.1)
        chosen(choices, "surrogate.nonlinear", "lipschitz, 2 x 100, bound 1", why)
    defaults = {
        "optimiser": "adam",
        "learning_rate": 0.01,
        "schedule": "exponential",
        "batch": 100,
        "refine": 1,
        "polish": "none",
        "loss": "uniform",
        "iterations": 20_000,
    }
    given = train.model_fields_set
    new = {key: value for key, value in defaults.items() if key not in given}
    for key, value in new.items():
        chosen(choices, f"training.{key}", value, why)
    return (spec.replaced(**fields) if fields else spec), train.replaced(**new)


def _smooth(
    spec: SurrogateSpec, train: TrainingSpec, choices: Choices
) -> tuple[SurrogateSpec, TrainingSpec]:
    if spec.positive or spec.conserved:
        raise InvalidInput(
            "preset",
            found="'smooth' with positive states or conserved sums",
            expected="'auto', whose decoder keeps them",
        )
    why = "preset smooth: fields and chaos follow low-degree polynomials of their modes"
    fields: dict[str, Any] = {
        "autoencoder": PODSpec(),
        "nonlinear": QuadraticSpec(),
        "integrator": "krogstad",
    }
    fields = {k: v for k, v in fields.items() if k not in spec.model_fields_set}
    for key, value in fields.items():
        chosen(choices, f"surrogate.{key}", getattr(value, "kind", value), why)
    defaults: dict[str, Any] = {
        "initial": OperatorInferenceSpec(),
        "iterations": 0,
        "refine": 1,
        "polish": "none",
        "loss": "uniform",
    }
    given = train.model_fields_set
    new = {key: value for key, value in defaults.items() if key not in given}
    for key, value in new.items():
        shown = "operator inference" if key == "initial" else value
        chosen(choices, f"training.{key}", shown, why)
    return (spec.replaced(**fields) if fields else spec), train.replaced(**new)


def _steps(
    spec: SurrogateSpec, dataset: Dataset, choices: Choices, substeps: int
) -> SurrogateSpec:
    if not isinstance(spec.steps, DataStepsSpec):
        return spec
    steps, why = step_grid(dataset)
    if substeps > 1:
        steps = refined_steps(steps, substeps)
        why += f"; {substeps} steps between two of them"
    value = (
        f"uniform, step {steps.step:.6g}"
        if isinstance(steps, UniformStepsSpec)
        else f"{len(steps.times) - 1} steps to {steps.times[-1]:.6g}"
    )
    chosen(choices, "surrogate.steps", value, why)
    return spec.replaced(steps=steps)


def _latent(spec: SurrogateSpec, dataset: Dataset, choices: Choices) -> SurrogateSpec:
    size = len(dataset.names)
    if isinstance(spec.autoencoder, NoAutoencoderSpec):
        if spec.latent not in (None, size):
            raise InvalidInput(
                "surrogate.latent",
                found=str(spec.latent),
                expected=f"{size}, the number of states, as there is no autoencoder",
            )
        return spec.replaced(latent=size)
    if spec.latent is not None:
        return spec
    given = _size_of(spec.linear)
    if given is not None:
        return spec.replaced(latent=given)
    if size <= SMALL and spec.autoencoder.kind != "pod":
        latent = max(8, size + 4)
        why = f"{size} states; a few latent variables more than states train better"
    else:
        latent = _significant(dataset, 1 if spec.autoencoder.kind == "pod" else 4)
        why = (
            f"singular values: the modes beyond hold less than {_ENERGY_LEFT_OUT:g} of "
            f"the variance, at most {MOST_LATENT}"
        )
    chosen(choices, "surrogate.latent", latent, why)
    return spec.replaced(latent=latent)


def _size_of(linear: LinearSpec) -> int | None:
    """The number of latent variables that a given operator acts on."""
    if isinstance(linear, SparseSpec):
        return linear.size
    matrix = getattr(linear, "matrix", None)
    return None if matrix is None else len(matrix)


def _modes(spec: SurrogateSpec, dataset: Dataset, choices: Choices) -> SurrogateSpec:
    """The principal directions that a POD keeps."""
    autoencoder = spec.autoencoder
    if not isinstance(autoencoder, PODSpec):
        return spec
    assert spec.latent is not None
    modes, size = autoencoder.modes, len(dataset.names)
    if autoencoder.width is None:
        if modes not in (None, spec.latent):
            raise InvalidInput(
                "surrogate.autoencoder.modes",
                found=str(modes),
                expected=f"{spec.latent}, the number of latent variables, where the "
                "autoencoder has no width",
            )
        modes = spec.latent
    elif modes is None:
        modes = min(max(spec.latent, _significant(dataset, 1)), size)
        why = f"singular values: the rest holds less than {_ENERGY_LEFT_OUT:g}"
        chosen(choices, "surrogate.autoencoder.modes", modes, why)
    if not spec.latent <= modes <= size:
        raise InvalidInput(
            "surrogate.autoencoder.modes",
            found=str(modes),
            expected=f"{spec.latent} to {size}: at least the latent variables, at most "
            "the states",
        )
    fixed = autoencoder.model_copy(update={"modes": modes})
    return spec.replaced(autoencoder=fixed)


def _significant(dataset: Dataset, least: int) -> int:
    """Number of singular directions that carry the variance of the scaled states."""
    samples = dataset.states[dataset.mask.all(axis=2)]
    spread, size = np.ptp(samples, axis=0), np.abs(samples).max(axis=0)
    scaled = (samples - samples.mean(axis=0)) / or_size(spread, size)
    energy = np.maximum(np.linalg.eigvalsh(scaled.T @ scaled)[::-1], 0.0)
    left_out = 1 - np.cumsum(energy) / max(energy.sum(), 1e-300)
    count = int(np.searchsorted(-left_out, -_ENERGY_LEFT_OUT)) + 1
    return int(np.clip(count, least, min(MOST_LATENT, samples.shape[1])))


def _rates(spec: SurrogateSpec, dataset: Dataset, choices: Choices) -> SurrogateSpec:
    linear = spec.linear
    if isinstance(linear, FixedSpec | SparseSpec | SymbolSpec):
        return spec
    if linear.rates is not None:
        return spec
    assert not isinstance(spec.steps, DataStepsSpec)
    shortest = float(np.diff(TimeGrid.from_spec(spec.steps).times).min())
    # Without f nothing holds the latent state where it is but rates of about 0.
    slowest = _ALMOST_STILL if spec.nonlinear.kind == "none" else _SLOW
    minimum = slowest / dataset.longest
    rates = RatesSpec(minimum=minimum, maximum=max(1 / shortest, minimum))
    chosen(
        choices,
        "surrogate.linear.rates",
        {"minimum": rates.minimum, "maximum": rates.maximum},
        f"{slowest:g} / (longest time) to 1 / (shortest step), log-spaced",
    )
    return spec.replaced(linear=linear.model_copy(update={"rates": rates}))


def _normalisation(
    spec: SurrogateSpec, dataset: Dataset, choices: Choices
) -> SurrogateSpec:
    """A scaling for every state, parameter and control, by name."""
    known = (*dataset.names, *dataset.parameter_names, *dataset.control_names)
    for name in spec.normalisation:
        if name not in known:
            raise InvalidInput(
                f"surrogate.normalisation.{name}",
                found="no such state, parameter or control",
                expected=f"one of {', '.join(known)}",
            )
    in_sums = {state for sums in spec.conserved.values() for state in sums}
    kinds: dict[str, ScalingKind] = dict.fromkeys(known, "linear")
    for i, name in enumerate(dataset.names):
        # What enters a sum is added up in physical units: its logarithm is no help.
        if name not in in_sums:
            kinds[name] = choose_kind(dataset.states[:, :, i].ravel())
    for name, column in zip(dataset.parameter_names, dataset.parameters.T, strict=True):
        low, high = column.min(), column.max()
        if low > 0 and high > _RATIO_FOR_LOG_PARAMETER * low:
            kinds[name] = "log"
    others = {
        n: k for n, k in kinds.items() if k != "linear" and n not in spec.normalisation
    }
    if not spec.normalisation.keys() >= kinds.keys():
        chosen(
            choices,
            "surrogate.normalisation",
            others or "linear",
            "log where positive values span decades, asinh where signed ones have rare "
            "peaks, linear otherwise and in conserved sums",
        )
    return spec.replaced(normalisation={**kinds, **spec.normalisation})


def training_for(
    spec: SurrogateSpec, train: TrainingSpec, choices: Choices
) -> TrainingSpec:
    """The training with what follows from kind and steps; says so in ``choices``."""
    train = with_pairs(spec, train, choices)
    assert not isinstance(spec.steps, DataStepsSpec)
    is_logarithmic = TimeGrid.from_spec(spec.steps).is_logarithmic
    if not is_logarithmic and "loss" not in train.model_fields_set:
        why = "the time grid is not logarithmic, so every sample counts the same"
        chosen(choices, "training.loss", "uniform", why)
        return train.model_copy(update={"loss": "uniform"})
    return train
