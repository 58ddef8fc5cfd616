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
from spnode_core.training.initial_operators import with_polynomial
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


def entered(dataset, candidate, surrogate):
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
    contest = Contest(parts, 0, reporter)
    return contest.enter(candidate, execution, is_last=False), contest


def test_steps_are_divided_where_something_runs_out_within_one(found):
    dataset, candidate, exact = found
    whole = dataclasses.replace(candidate, may_divide=False)
    is_good, _ = entered(dataset, whole, exact)
    assert not is_good, "the data's own steps, divided by four, are too long"
    is_good, contest = entered(dataset, candidate, exact)
    assert is_good
    kept = contest.winner
    assert kept.error < GOOD
    assert kept.choices[-1]["what"] == "surrogate.steps"
    divided = len(kept.surrogate.grid.times) - 1
    assert divided in {2 * (len(exact.grid.times) - 1), 4 * (len(exact.grid.times) - 1)}
    assert kept.execution.spec == kept.surrogate.spec, "of further members too"
    described = kept.surrogate.spec.model_dump(mode="json")
    assert kept.execution.identity["surrogate"] == described, "and in the report"


def test_steps_that_the_caller_gave_stay(found):
    given = SurrogateSpec(steps=UniformStepsSpec(step=0.1))
    assert not any(each.may_divide for each in candidates(found[0], given, None))
