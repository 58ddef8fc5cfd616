"""Training that goes on from a surrogate: what is kept of it, and what comes of it.

Description, scalings and parameters are kept, so the first iteration is the surrogate
itself; the domain becomes that of the new data, since nothing holds the parameters to
what they learned before. What training ends with is compared with it on trajectories
that neither has learned from in this run.
"""

import dataclasses
import hashlib
import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from spnode_core.comparison import check_agreement, compare
from spnode_core.constraints import HEADROOM, create_constraint
from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput
from spnode_core.spec import (
    OperatorInferenceSpec,
    PolynomialSpec,
    Preset,
    SurrogateSpec,
    TrainingSpec,
    check_warm_start,
)
from spnode_core.spec.base import Spec
from spnode_core.surrogate import Surrogate, conserved_matrix
from spnode_core.training.candidates import Candidate
from spnode_core.training.certified import check_settling
from spnode_core.training.choices import Choices
from spnode_core.training.declared import check_positive
from spnode_core.training.initialise import signature_of
from spnode_core.training.presets import apply_preset, training_for

# A third of what is usual. The usual rate served best: of 0.0003 to 0.006, the largest
# halved the error of the others in 1500 iterations after a rate of the system changed.
_DEFAULTS = {"iterations": 3000}


def warm_candidate(
    start: Surrogate,
    dataset: Dataset,
    surrogate: SurrogateSpec | None,
    training: TrainingSpec | None,
    preset: Preset,
    *,
    certified: bool,
) -> Candidate:
    """The one way to train from a surrogate on a dataset.

    Args:
        start: What training goes on from; its description is kept.
        dataset: The new training trajectories.
        surrogate: What the caller fixed of it, which must be so already.
        training: What the caller fixed of the training.
        preset: How the rest of the training is decided.
        certified: Whether all rollouts must come together by construction.

    Raises:
        InvalidInput: The field that the surrogate contradicts, or that has no meaning
            where training goes on.
    """
    check_agreement(start, dataset, "which the surrogate of warm_start takes")
    spec = SurrogateSpec.model_validate(start.spec.model_dump())
    check_warm_start(spec, surrogate, training, preset, certified=certified)
    check_positive(spec, dataset)
    if certified:
        check_settling(dataset, spec.conserved)
    train, choices = _training(spec, training, preset)
    said = "description, scalings and parameters are those of the surrogate given"
    first = {"what": "warm_start", "value": spec.nonlinear.kind, "why": said}
    return Candidate("a warm start", spec, train, [first, *choices])


def continued(start: Surrogate, dataset: Dataset, spec: SurrogateSpec) -> Surrogate:
    """A surrogate as training on new data begins with it: only its domain is new.

    Args:
        start: The surrogate.
        dataset: The new training trajectories.
        spec: Its description, every field of it set.

    Raises:
        InvalidInput: In the ranges of the new data its decoder would be another one.
    """
    found = signature_of(dataset, spec)
    domain = found.domain
    sizes = np.maximum(np.abs(domain.lower), np.abs(domain.upper)) + 1e-300
    constraint = create_constraint(
        conserved_matrix(spec, dataset.names),
        positive=spec.positive,
        sizes=sizes,
        names=dataset.names,
    )
    if constraint != start.constraint:
        raise InvalidInput(
            "dataset.states",
            found="ranges in which another state is the largest of a conserved sum",
            expected="ranges nearer to those that the surrogate of warm_start learned "
            "from, or training without it",
        )
    kept = start.signature
    signature = found.model_copy(
        update={
            "units": found.units or kept.units,
            "time_unit": found.time_unit or kept.time_unit,
        }
    )
    return dataclasses.replace(start, spec=spec, signature=signature, neighbours=None)


def surrogate_digest(surrogate: Surrogate) -> str:
    """SHA-256 of a surrogate's description and arrays."""
    described = {
        "spec": surrogate.spec.model_dump(mode="json"),
        "signature": surrogate.signature.model_dump(mode="json"),
    }
    found = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    arrays = eqx.filter(surrogate, eqx.is_array)
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype.str}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def is_unchanged(surrogate: Surrogate, start: Surrogate) -> bool:
    """Whether training kept the dynamics and the autoencoder that it began with."""
    pairs = zip(
        *(
            jax.tree.leaves(eqx.filter((each.autoencoder, each.dynamics), eqx.is_array))
            for each in (surrogate, start)
        ),
        strict=True,
    )
    return all(np.array_equal(*pair) for pair in pairs)


def outcome_of(
    start: Surrogate,
    surrogate: Surrogate,
    parts: dict[str, Dataset],
    training: Dataset,
    seed: int,
) -> tuple[dict[str, Any], list[str]]:
    """What a warm start came to, beside the surrogate that it began with.

    Args:
        start: The surrogate as training began with it.
        surrogate: What training ended with.
        parts: Held-out trajectories by name, those to judge by first.
        training: What was trained on.
        seed: Source of the later samples.

    Returns:
        ``kept`` (whether the parameters are still those of the start), ``part`` and
        ``comparison`` on it, both None where nothing was held out; and warnings, a
        sentence each.
    """
    kept = is_unchanged(surrogate, start)
    warnings = _beyond_scaling(start, training)
    if kept:
        warnings.append(
            "fine-tuning did not improve on the surrogate it started from, whose "
            "parameters were kept: no others had a smaller validation loss"
        )
    name, part = next(((n, p) for n, p in parts.items() if p.trajectories), ("", None))
    if part is None:
        return {"kept": kept, "part": None, "comparison": None}, warnings
    # With one signature both share their compiled rollout.
    old = dataclasses.replace(start, signature=surrogate.signature)
    old = dataclasses.replace(old, neighbours=surrogate.neighbours)
    pair = {"reference": old, "fine_tuned": surrogate}
    found = compare(pair, part, training, seed=seed)
    if not kept and found["paired"]["fine_tuned"]["is_worse"]:
        verdict = found["paired"]["fine_tuned"]["verdict"]
        warnings.append(
            "fine-tuning lowered the validation loss, but is no better than the "
            f"surrogate it started from on the {name} trajectories: {verdict}"
        )
    return {"kept": kept, "part": name, "comparison": found}, warnings


def _training(
    spec: SurrogateSpec, training: TrainingSpec | None, preset: Preset
) -> tuple[TrainingSpec, Choices]:
    _, train, choices = apply_preset(spec, training, preset)
    given = train.model_fields_set
    is_polynomial = isinstance(spec.nonlinear, PolynomialSpec)
    fields: dict[str, Any] = {}
    if is_polynomial and "iterations" not in given:
        rounds = OperatorInferenceSpec()
        fields = {"initial": rounds, "iterations": 0, "refine": 1, "loss": "uniform"}
        why = "Gauss-Newton rounds begin with the coefficients of the polynomial"
    else:
        fields = dict(_DEFAULTS)
        why = "training goes on from what was learned"
    fields = {name: value for name, value in fields.items() if name not in given}
    said = [
        {"what": f"training.{name}", "value": _shown(value), "why": why}
        for name, value in fields.items()
    ]
    choices = [*choices, *said]
    return training_for(spec, train.replaced(**fields), choices), choices


def _shown(value: Any) -> Any:
    return "operator inference" if isinstance(value, Spec) else value


def _beyond_scaling(start: Surrogate, dataset: Dataset) -> list[str]:
    """Where the scalings, which are kept, cannot follow the new data."""
    scaling = start.normaliser.states
    lowest = np.nanmin(dataset.states, axis=(0, 1))
    highest = np.nanmax(dataset.states, axis=(0, 1))
    top = HEADROOM * np.asarray(scaling.restore(jnp.ones(len(dataset.names))))
    found = []
    for i, name in enumerate(dataset.names):
        width = float(scaling.width[i])
        if scaling.kinds[i] == "log" and lowest[i] < width / 2:
            found.append(
                f"{name} goes down to {lowest[i]:.3g}, but the surrogate that training "
                f"started from cuts its logarithm off at {width:.3g}: smaller values "
                "are learned as that"
            )
        if start.spec.positive and highest[i] > top[i]:
            found.append(
                f"{name} goes up to {highest[i]:.3g}, but the decoder of the surrogate "
                f"that training started from reaches {top[i]:.3g}"
            )
    return [*found, *_below_floors(start, dataset)]


def _below_floors(start: Surrogate, dataset: Dataset) -> list[str]:
    """Where its encoder does not see how small states of the new data are."""
    seen = start.normaliser.logarithms
    if seen is None:
        return []
    found = []
    for name, floor in zip(start.spec.logarithms, seen.width.tolist(), strict=True):
        values = dataset.states[:, :, dataset.names.index(name)]
        least = float(values[values > 0].min(initial=np.inf))
        if least < floor / 2:
            found.append(
                f"{name} goes down to {least:.3g}, but the encoder of the surrogate "
                f"that training started from tells values apart from {floor:.3g} on"
            )
    return found
