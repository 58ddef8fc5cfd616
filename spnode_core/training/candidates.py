"""The candidates that ``auto`` tries on a dataset, in order, and how it judges them.

A polynomial operator comes first: where the system is one, Gauss-Newton rounds find it
to many digits in a minute, and its errors on single steps collapse. Otherwise, or where
the rollouts of it err, a Koopman autoencoder learns pairs of samples, a network is
added to the polynomial, and the relaxation form is trained on whole trajectories.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from spnode_core.baselines import measuring, normalised, sizes
from spnode_core.dataset import Dataset
from spnode_core.deviations import Deviations, spread
from spnode_core.metrics import predict
from spnode_core.nonlinear.polynomial import term_count
from spnode_core.normaliser import Scaling
from spnode_core.restarts import restarts
from spnode_core.spec import (
    DataStepsSpec,
    GridStepsSpec,
    NoAutoencoderSpec,
    NoNonlinearSpec,
    OperatorInferenceSpec,
    PODSpec,
    PolynomialSpec,
    ScalingKind,
    SurrogateSpec,
    TrainingSpec,
    UniformStepsSpec,
)
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import TimeGrid
from spnode_core.training.choices import Choices
from spnode_core.training.one_step import MOST_COEFFICIENTS
from spnode_core.training.presets import SMALL, SMOOTH_SUBSTEPS, resolve
from spnode_core.training.step_grids import (
    UNRESOLVED,
    missed_between,
    refined_steps,
    shifted_steps,
    step_grid,
)

GOOD = 4e-3
"""A candidate whose held-out error is below this needs no other beside it."""
DEGREES = (2, 3)
MOST_TERMS = 1771
"""Products of at most three of 20 principal directions; more are not tried."""
NETWORK_WIDTH = 16
MOST_BESIDE_NETWORK = 400
"""Coefficients of the products that a network is added to, at most."""
_NETWORK_SHARE = 0.5
_VALID = 0.4
_LOG_SUBSTEPS, _UNIFORM_SUBSTEPS = 4, 8
_RIDGES = (1e-8, 1e-6)
_CORRECTIONS = 6
# What a caller may fix and still leave the choice of the method open.
_OPEN_SURROGATE = {"steps"}
_OPEN_TRAINING = {"max_seconds"}
# Steps of a grid that ten thousand iterations are affordable on, and the fewest.
_AFFORDABLE_STEPS, _FEWEST_ITERATIONS = 60, 3000


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to fit the data.

    Args:
        name: In words.
        spec: Description of the surrogate without an open field.
        training: Description of the training without an open field.
        choices: What was decided from the data, and why.
        share: Of the wall time, that it may take where others come after it.
        may_divide: Whether its steps may be divided once it is fitted: it was fitted
            to intervals of the data, whatever steps its rollouts take.
    """

    name: str
    spec: SurrogateSpec
    training: TrainingSpec
    choices: Choices
    share: float = 0.15
    may_divide: bool = False


def is_open(
    dataset: Dataset, surrogate: SurrogateSpec | None, training: TrainingSpec | None
) -> bool:
    """Whether the method is open: nothing of it fixed, and no sum declared to hold."""
    spec, train = surrogate or SurrogateSpec(), training or TrainingSpec()
    is_free = (
        spec.model_fields_set <= _OPEN_SURROGATE
        and train.model_fields_set <= _OPEN_TRAINING
    )
    return is_free and not dataset.conserved


def candidates(
    dataset: Dataset, surrogate: SurrogateSpec | None, training: TrainingSpec | None
) -> list[Candidate]:
    """What to try before the relaxation form, the most promising first.

    Args:
        dataset: The data to learn from.
        surrogate: What the caller fixed of the surrogate.
        training: What the caller fixed of the training.

    Returns:
        Nothing where the caller fixed the method, or where conserved sums are to hold
        by construction, as they do in a decoder.
    """
    if not is_open(dataset, surrogate, training):
        return []
    spec, train = surrogate or SurrogateSpec(), training or TrainingSpec()
    may_divide = isinstance(spec.steps, DataStepsSpec)
    tried = _tried(dataset, spec, train)
    return [
        # Steps of a linear latent space are exact: it gains nothing from shorter ones.
        dataclasses.replace(each, may_divide=may_divide and not each.training.pairs)
        for each in tried
    ]


def _tried(
    dataset: Dataset, spec: SurrogateSpec, train: TrainingSpec
) -> list[Candidate]:
    others = len(dataset.parameter_names) + len(dataset.control_names)
    koopman = [] if dataset.control_names else [_koopman(dataset, spec, train)]
    if len(dataset.names) > SMALL:
        weak, strong = (_smooth(dataset, spec, train, ridge) for ridge in _RIDGES)
        cubic = _cubic(dataset, spec, train)
        assert cubic.spec.latent is not None
        is_small = term_count(cubic.spec.latent + others, 3) <= MOST_TERMS
        smooth = [weak, cubic, strong] if is_small else [weak, strong]
        return [*smooth, *koopman]
    inputs = len(dataset.names) + others
    plain = [
        _polynomial(dataset, spec, train, degree)
        for degree in DEGREES
        if _is_affordable(len(dataset.names), inputs, degree)
    ]
    return [*plain, *koopman, _with_network(dataset, spec, train, inputs)]


def _is_affordable(states: int, inputs: int, degree: int) -> bool:
    """Whether a polynomial of states is tried: of degree 2, as mass action is, always.

    Where its coefficients are too many to be fitted at once, each state's are fitted to
    slopes; of degree 3 those of one state are hundreds, which few data tell apart.
    """
    terms = term_count(inputs, degree)
    is_few = states * terms <= MOST_COEFFICIENTS
    return is_few or (degree == DEGREES[0] and terms <= MOST_TERMS)


def fallback(
    dataset: Dataset, surrogate: SurrogateSpec | None, training: TrainingSpec | None
) -> Candidate:
    """The relaxation form, trained from later samples too, where candidates failed."""
    train, given = training or TrainingSpec(), surrogate or SurrogateSpec()
    may_choose = isinstance(given.steps, DataStepsSpec)
    missed = missed_between(dataset) if may_choose else 0.0
    is_between = missed > UNRESOLVED
    if is_between:
        given = given.replaced(steps=shifted_steps(step_grid(dataset)[0]))
    spec, train, choices = resolve(dataset, given, train, "auto")
    assert isinstance(spec.steps, GridStepsSpec | UniformStepsSpec)
    steps = len(TimeGrid.from_spec(spec.steps).extended(dataset.longest)) - 1
    share = min(1.0, _AFFORDABLE_STEPS / steps)
    iterations = max(int(share * train.iterations), _FEWEST_ITERATIONS)
    chosen = {"iterations": iterations, "later_starts": 1}
    why = {
        "iterations": f"{steps} steps to the end of the data",
        "later_starts": "rollouts may begin anywhere along a trajectory",
    }
    said = [
        {"what": f"training.{name}", "value": value, "why": why[name]}
        for name, value in chosen.items()
    ]
    if is_between:
        told = (
            f"samples do not tell what happens between them (an error of {missed:.2g} "
            "of the spread, from their neighbours): samples lie inside steps too"
        )
        said.append({"what": "surrogate.steps", "value": f"{steps} steps", "why": told})
    train = train.replaced(**chosen)
    return Candidate("the relaxation form", spec, train, [*choices, *said])


def _polynomial(
    dataset: Dataset, spec: SurrogateSpec, train: TrainingSpec, degree: int
) -> Candidate:
    chosen = _of_states(dataset, spec, PolynomialSpec(degree=degree))
    order = "first" if degree == DEGREES[0] else f"after degree {DEGREES[0]}"
    why = f"tried {order}: a system that is one is found to many digits"
    return _resolved(dataset, f"a polynomial of degree {degree}", chosen, train, why)


def _koopman(dataset: Dataset, spec: SurrogateSpec, train: TrainingSpec) -> Candidate:
    spec = spec.replaced(nonlinear=NoNonlinearSpec())
    resolved, train, choices = resolve(dataset, spec, train, "auto")
    name = "a Koopman autoencoder"
    why = (
        "latent variables that decay each on their own are learned from pairs of "
        "samples, in a minute or so, and cannot leave their bounds"
    )
    first = {"what": "surrogate.nonlinear", "value": name, "why": why}
    return Candidate(name, resolved, train, [first, *choices])


def _with_network(
    dataset: Dataset, spec: SurrogateSpec, train: TrainingSpec, inputs: int
) -> Candidate:
    latent = len(dataset.names)
    degree = 2 if latent * term_count(inputs, 2) <= MOST_BESIDE_NETWORK else 1
    nonlinear = PolynomialSpec(degree=degree, width=NETWORK_WIDTH)
    chosen = _of_states(dataset, spec, nonlinear)
    name = f"a polynomial of degree {degree} and a network"
    why = "the network adds what is no polynomial, as square roots and saturation"
    found = _resolved(dataset, name, chosen, train, why)
    return dataclasses.replace(found, share=_NETWORK_SHARE)


def _of_states(
    dataset: Dataset, spec: SurrogateSpec, nonlinear: PolynomialSpec
) -> SurrogateSpec:
    """Of the states themselves, each divided by its largest value."""
    names = (*dataset.names, *dataset.parameter_names, *dataset.control_names)
    scaled: dict[str, ScalingKind] = dict.fromkeys(names, "max")
    return spec.replaced(
        autoencoder=NoAutoencoderSpec(),
        nonlinear=nonlinear,
        integrator="rodas4",
        normalisation=scaled,
        steps=_fine_steps(dataset, spec),
    )


def _smooth(
    dataset: Dataset, spec: SurrogateSpec, train: TrainingSpec, ridge: float
) -> Candidate:
    inference = OperatorInferenceSpec(ridge=ridge, corrections=_CORRECTIONS)
    training = train.replaced(initial=inference)
    resolved, training, choices = resolve(dataset, spec, training, "smooth")
    name = f"quadratic operators of principal directions, ridge {ridge:g}"
    return Candidate(name, resolved, training, choices)


def _cubic(dataset: Dataset, spec: SurrogateSpec, train: TrainingSpec) -> Candidate:
    chosen = spec.replaced(
        autoencoder=PODSpec(),
        nonlinear=PolynomialSpec(degree=3),
        integrator="rodas4",
        steps=_fine_steps(dataset, spec, SMOOTH_SUBSTEPS),
    )
    name = "a polynomial of degree 3 of principal directions"
    why = "tried after quadratic operators, which have no cubic terms"
    return _resolved(dataset, name, chosen, train, why)


def _resolved(
    dataset: Dataset, name: str, spec: SurrogateSpec, training: TrainingSpec, why: str
) -> Candidate:
    """A polynomial: Gauss-Newton rounds, and no training after them."""
    training = training.replaced(
        initial=OperatorInferenceSpec(), iterations=0, refine=1, loss="uniform"
    )
    resolved, train, choices = resolve(dataset, spec, training, "auto")
    first = {"what": "surrogate.nonlinear", "value": name, "why": why}
    return Candidate(name, resolved, train, [first, *choices])


def _fine_steps(
    dataset: Dataset, spec: SurrogateSpec, substeps: int | None = None
) -> GridStepsSpec | UniformStepsSpec:
    """The data's own steps, divided: a polynomial's integrator has an error too."""
    if isinstance(spec.steps, GridStepsSpec | UniformStepsSpec):
        return spec.steps
    steps, _ = step_grid(dataset)
    is_uniform = isinstance(steps, UniformStepsSpec)
    usual = _UNIFORM_SUBSTEPS if is_uniform else _LOG_SUBSTEPS
    return refined_steps(steps, substeps or usual)


def on_divided_steps(surrogate: Surrogate, factor: int) -> Surrogate:
    """The surrogate, its dynamics the same, with every step of its grid divided."""
    steps = surrogate.spec.steps
    assert isinstance(steps, GridStepsSpec | UniformStepsSpec)
    spec = surrogate.spec.replaced(steps=refined_steps(steps, factor))
    return dataclasses.replace(surrogate, spec=spec)


def is_finite(surrogate: Surrogate, dataset: Dataset) -> bool:
    """Whether all rollouts over a dataset stay finite, on half the steps too."""
    return not dataset.trajectories or bool(finite_rows(surrogate, dataset).all())


def finite_rows(surrogate: Surrogate, dataset: Dataset) -> NDArray[np.bool_]:
    """Which trajectories' rollouts do."""
    grids = (surrogate.grid, surrogate.grid.refined(2))
    found = np.stack([predict(surrogate, dataset, grid) for grid in grids])
    is_finite = np.isfinite(found).all(axis=(0, 3)) | ~dataset.present
    return np.asarray(is_finite.all(axis=1))


def held_out_error(
    surrogate: Surrogate, dataset: Dataset, scaling: Scaling, seed: int
) -> float:
    """The worst state's RMSE in units of its standard deviation, normalised.

    Of rollouts from the starts and from later samples of each trajectory; infinite
    where one of them leaves the finite range.

    Args:
        surrogate: What to judge.
        dataset: Trajectories that it has not seen.
        scaling: Of the states, the same for all that are judged.
        seed: Source of the later samples.
    """
    later = restarts(dataset, seed)
    asked = [dataset] if later is None else [dataset, later.dataset]
    errors = [_worst_state(surrogate, each, scaling) for each in asked]
    return float(max(errors)) if np.isfinite(errors).all() else np.inf


def valid_part(surrogate: Surrogate, dataset: Dataset, scaling: Scaling) -> float:
    """Part of their samples for which rollouts are right: below 0.4 of the spread.

    The mean over trajectories, each up to the first sample that is not. On chaos that
    says what an error over whole trajectories cannot: the right equations lose the
    truth too, and then err by more than a model that stays in the middle.

    Args:
        surrogate: What to judge.
        dataset: Trajectories that it has not seen.
        scaling: Of the states, the same for all that are judged.
    """
    errors = _errors(surrogate, dataset, scaling)
    mask = dataset.later
    count = np.maximum(mask.sum(axis=2), 1)
    squares = np.sum(np.square(errors), axis=2, where=mask) / count
    there = mask.any(axis=2)
    is_wrong = there & ~(squares <= _VALID**2)
    is_right = there & ~np.logical_or.accumulate(is_wrong, axis=1)
    return float(np.mean(is_right.sum(axis=1) / there.sum(axis=1)))


def _worst_state(surrogate: Surrogate, dataset: Dataset, scaling: Scaling) -> float:
    errors = _errors(surrogate, dataset, scaling)
    found = Deviations(dataset.names, errors, dataset.later, dataset.elapsed)
    return float(found.worst_state["normalised_rmse"])


def _errors(
    surrogate: Surrogate, dataset: Dataset, scaling: Scaling
) -> NDArray[np.float64]:
    predicted = predict(surrogate, dataset, surrogate.grid)
    scaling = measuring(scaling, dataset)
    truth = normalised(scaling, dataset.filled)
    deviations = spread(truth, dataset.later, sizes(scaling, dataset))
    return (normalised(scaling, predicted) - truth) / deviations
