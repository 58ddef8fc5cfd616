"""Rollouts at fixed times: those of ``rollout``, with what they share worked out once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core import rollout as module
from spnode_core.ensemble import ensemble_of
from spnode_core.errors import InvalidInput
from spnode_core.spec import ContractingSpec, HurwitzSpec, ModalSpec
from tests.core.models import GRID, RATES, random_states, small_surrogate

DENSE = {
    "linear": HurwitzSpec(rates=RATES),
    "nonlinear": ContractingSpec(width=8),
    "normalisation": dict.fromkeys("abc", "linear"),
}
TIMES = np.geomspace(2e-3, 5e2, 7)


@pytest.mark.parametrize("kind", ["dense", "ensemble", "depends", "controls"])
def test_they_are_those_of_rollout(kind):
    surrogate, given, control_times = small_surrogate(**DENSE), {}, None
    if kind == "ensemble":
        surrogate = ensemble_of([small_surrogate(seed=s, **DENSE) for s in (0, 1)])
    if kind == "depends":
        linear = ModalSpec(rates=RATES, depends_on_parameters=True)
        surrogate = small_surrogate(parameters=1, linear=linear)
        given = {"parameters": [0.7]}
    if kind == "controls":
        surrogate = small_surrogate(controls=1, **DENSE)
        given = {"controls": [[0.3], [-0.2]]}
        control_times = [0.0, 5.0]
    x0 = random_states(3)
    for times in (TIMES, GRID[1:], np.stack([TIMES, 0.9 * TIMES, 0.8 * TIMES])):
        at = surrogate.at(times, control_times)
        expected = surrogate.rollout(x0, times, control_times=control_times, **given)
        np.testing.assert_allclose(at(x0, **given), expected, rtol=1e-9, atol=1e-13)
        if times.ndim == 1:
            one = at(x0[0], **given)
            np.testing.assert_allclose(one, expected[0], rtol=1e-9, atol=1e-13)
    at, whole = surrogate.at(TIMES, control_times), surrogate.rollout
    if not given:
        jitted = jax.jit(at)(jnp.asarray(x0))
        np.testing.assert_allclose(jitted, at(x0), rtol=1e-9, atol=1e-13)
    found = jax.jit(jax.grad(lambda x: at(x, **given).sum()))(x0)
    more = {"control_times": control_times, **given}
    expected = jax.grad(lambda x: whole(x, TIMES, **more).sum())(x0)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


def test_propagators_are_no_part_of_a_call(monkeypatch):
    at = small_surrogate(**DENSE).at(TIMES)

    def refused(*_):
        raise AssertionError("propagators were computed")

    monkeypatch.setattr(module, "propagators_of", refused)
    assert np.isfinite(at(random_states(5))).all()
    with pytest.raises(AssertionError, match="were computed"):
        small_surrogate(seed=3, **DENSE).at(TIMES[:3])


def test_what_does_not_fit_is_refused():
    surrogate = small_surrogate(**DENSE)
    with pytest.raises(InvalidInput, match="times"):
        surrogate.at([1.0, 0.5])
    with pytest.raises(InvalidInput, match="x0"):
        surrogate.at(TIMES)([1.0, 2.0])
    with pytest.raises(InvalidInput, match="parameters: found values"):
        surrogate.at(TIMES)(random_states(1), parameters=[1.0])
    each = surrogate.at(np.stack([TIMES, TIMES]))
    with pytest.raises(InvalidInput, match="a row for each initial state: 3"):
        each(random_states(3))
