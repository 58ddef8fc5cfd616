"""How candidates are judged: on steps that are short enough for what they found."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spnode_core import check_arrays
from spnode_core.nonlinear.polynomial import factors
from spnode_core.spec import SurrogateSpec, UniformStepsSpec
from spnode_core.surrogate import Surrogate
from spnode_core.training.candidates import GOOD, candidates
from spnode_core.training.contest import Contest
from spnode_core.training.execution import Execution
from spnode_core.training.initial_operators import polynomial_of, with_polynomial
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.parts import Parts
from spnode_core.training.progress import Reporter
from spnode_core.training.stages import Record

BIND, LEAVE, REACT = 1e3, 1.0, 10.0
"""Of an enzyme: its substrate runs out late, and within a thousandth of the time."""


def enzyme(_, y):
    s, e, c = y
    bound = BIND * s * e - LEAVE * c
    return [-bound, -bound + REACT * c, bound - REACT * c]


def measured(count):
    rng = np.random.default_rng(3)
    times = np.append(0.0, np.geomspace(1e-5, 30.0, 45))
    states = []
    for _ in range(count):
        start = [rng.uniform(0.5, 2.0), rng.uniform(0.01, 0.03), 0.0]
        made = solve_ivp(
            enzyme, (0, 30), start, method="LSODA", t_eval=times, rtol=1e-9, atol=1e-12
        )
        states.append(made.y.T)
    return check_arrays({"states": np.stack(states), "times": times})


@pytest.fixture(scope="module")
def found():
    """The data, and the polynomial that they come from, as a candidate found it."""
    dataset = measured(8)
    candidate = candidates(dataset, None, None)[0]
    surrogate = create_surrogate(dataset, candidate.spec, 0)
    scale = np.asarray(surrogate.normaliser.states.normalise(jnp.ones(3)))
    index = factors(3, 2).tolist()
    exact = np.zeros((3, len(index)))
    product, bound = index.index([0, 1]), index.index([2, 3])
    exact[:, product] = np.array([-BIND, -BIND, BIND]) / scale[0] / scale[1] * scale
    exact[:, bound] = (
        np.array([LEAVE, LEAVE + REACT, -LEAVE - REACT]) / scale[2] * scale
    )
    return dataset, candidate, with_polynomial(surrogate, exact)


@dataclasses.dataclass
class Found(Execution):
    """Training after which a surrogate is found."""

    found: tuple[Surrogate, ...] = ()

    def _inferred(self, members: list[Surrogate], record: Record) -> list[Surrogate]:
        return [*self.found]


def entered(dataset, candidate, surrogate, contest=None):
    parts, reporter = Parts(dataset, dataset, dataset), Reporter(lambda _: None)
    execution = Found(
        parts,
        candidate.spec,
        candidate.training,
        0,
        reporter,
        identity={"surrogate": candidate.spec.model_dump(mode="json")},
        path=None,
        checkpoint_s=10.0,
        may_divide=candidate.may_divide,
        found=(surrogate,),
    )
    contest = contest or Contest(parts, 0, reporter)
    return contest.enter(candidate, execution, is_last=False), contest


def test_steps_are_divided_where_something_runs_out_within_one(found):
    dataset, candidate, exact = found
    whole = dataclasses.replace(candidate, may_divide=False)
    is_good, _ = entered(dataset, whole, exact)
    assert not is_good, "the data's own steps, divided by four, are too long"
    is_good, contest = entered(dataset, candidate, exact)
    assert is_good
    kept = contest.winner()
    assert kept.error < GOOD
    assert kept.choices[-1]["what"] == "surrogate.steps"
    divided = len(kept.surrogate.grid.times) - 1
    assert divided in {2 * (len(exact.grid.times) - 1), 4 * (len(exact.grid.times) - 1)}
    assert kept.execution.spec == kept.surrogate.spec, "of further members too"
    described = kept.surrogate.spec.model_dump(mode="json")
    assert kept.execution.identity["surrogate"] == described, "and in the report"


def lorenz(_, y):
    return [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]]


def test_on_chaos_the_right_equations_win_over_the_mean():
    rng, times, states = np.random.default_rng(0), np.arange(0, 60, 0.1), []
    for _ in range(4):
        start = solve_ivp(lorenz, (0, 20), rng.normal(size=3)).y[:, -1]
        made = solve_ivp(lorenz, (0, 60), start, t_eval=times, rtol=1e-9, atol=1e-9)
        states.append(made.y.T)
    dataset = check_arrays({"states": np.stack(states), "times": times})
    candidate = dataclasses.replace(
        candidates(dataset, None, None)[0], may_divide=False
    )
    surrogate = create_surrogate(dataset, candidate.spec, 0)
    scale = np.asarray(surrogate.normaliser.states.normalise(jnp.ones(3)))
    index = factors(3, 2).tolist()
    exact, mean = np.zeros((3, len(index))), np.zeros((3, len(index)))
    for row, terms in enumerate(
        ({(0, 3): -10, (1, 3): 10}, {(0, 3): 28, (0, 2): -1, (1, 3): -1})
    ):
        for term, value in terms.items():
            others = np.prod([scale[each] for each in term if each < 3])
            exact[row, index.index([*term])] = value * scale[row] / others
    exact[2, index.index([0, 1])] = scale[2] / scale[0] / scale[1]
    exact[2, index.index([2, 3])] = -8 / 3
    mean[:, 0] = 9 * scale * dataset.states.mean(axis=(0, 1))
    mean[[0, 1, 2], [1, 2, 3]] = -9
    _, contest = entered(dataset, candidate, with_polynomial(surrogate, exact))
    other = dataclasses.replace(candidate, name="the mean")
    entered(dataset, other, with_polynomial(surrogate, mean), contest)
    right, middle = contest._entries
    assert middle.error < right.error < 2.0
    assert contest.winner().name == candidate.name
    told = contest.winner().choices
    assert any("of a trajectory, longest" in str(each["why"]) for each in told)


def test_the_test_part_chooses_nothing(found, monkeypatch):
    dataset, candidate, exact = found
    parts, reporter = Parts(dataset, dataset, dataset), Reporter(lambda _: None)
    test = dataclasses.replace(dataset, states=dataset.states + 0.0)
    contest = Contest(dataclasses.replace(parts, test=test), 0, reporter)
    monkeypatch.setattr(
        "spnode_core.training.contest.is_finite", lambda _, part: part is not test
    )
    _, contest = entered(dataset, candidate, exact, contest)
    assert np.isfinite(contest.winner().error)


@pytest.mark.parametrize("digits", ["of a solver", "of single precision"])
def test_noise_around_a_state_that_stands_still_judges_nobody(found, digits):
    dataset, candidate, exact = found
    noise = np.random.default_rng(0).normal(0.767, 1e-11, dataset.states[..., :1].shape)
    if digits == "of single precision":
        noise = (
            noise + np.random.default_rng(0).choice([0, 6e-8], noise.shape)
        ).astype(np.float32)
    states = np.concatenate([dataset.states, noise], axis=2)
    inert = check_arrays({"states": states, "times": dataset.times[0]})
    candidate = candidates(inert, None, None)[0]
    surrogate = create_surrogate(inert, candidate.spec, 0)
    known = factors(3, 2).tolist()
    index = factors(4, 2).tolist()
    coefficients = np.zeros((4, len(index)))
    for term, column in zip(known, polynomial_of(exact).T, strict=True):
        # Constants and first powers are products with a 1, which stands last.
        place = index.index([4 if each == 3 else each for each in term])
        coefficients[:3, place] = column
    surrogate = with_polynomial(surrogate, coefficients)
    is_good, contest = entered(inert, candidate, surrogate)
    assert is_good
    assert contest.winner().error < GOOD


def test_steps_that_the_caller_gave_stay(found):
    given = SurrogateSpec(steps=UniformStepsSpec(step=0.1))
    assert not any(each.may_divide for each in candidates(found[0], given, None))
