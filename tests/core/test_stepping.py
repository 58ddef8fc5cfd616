"""Steps of few rows as one function: the same states, only where it is faster."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.rollout import rollout
from spnode_core.spec import (
    HurwitzSpec,
    MLPSpec,
    ModalSpec,
    QuadraticSpec,
    RelaxationSpec,
    SymbolSpec,
)
from spnode_core.stepping import fits_one_piece
from tests.core.models import GRID, RATES, small_surrogate

ROWS = np.random.default_rng(3).uniform(0.1, 1.0, (2, 3))
ONE_FUNCTION = 'inlineable="false"'
BY_PARAMETERS = ModalSpec(rates=RATES, depends_on_parameters=True)
SYMBOL = SymbolSpec(length=6.0, coefficients=(-0.5, 1.0, 0.2))


def tolerance(fields):
    """As compiled in tests; that served bits are the same, an engine finds out."""
    return 1e-5 if fields.get("precision") == "mixed" else 1e-11


def compiled(surrogate, *, in_one_piece, rows=2, **inputs):
    """The program of a rollout, whose arguments are weights, and what it gives."""
    x0, plan = np.resize(ROWS, (rows, 3)), surrogate.grid.plan(GRID)
    arrays, static = eqx.partition(surrogate, eqx.is_array)

    def states(arrays, x0, inputs):
        whole = eqx.combine(arrays, static)
        return rollout(
            whole, x0, plan, **inputs, by_size=True, in_one_piece=in_one_piece
        )

    program = jax.jit(states).lower(arrays, x0, inputs).compile()
    return str(program.as_text()), np.asarray(program(arrays, x0, inputs))


@pytest.mark.parametrize(
    "fields",
    [
        {"nonlinear": RelaxationSpec(width=24, depth=2)},
        {"nonlinear": RelaxationSpec(width=128, depth=2), "precision": "mixed"},
        {"nonlinear": MLPSpec(width=16, depth=2), "integrator": "etd2rk"},
        {"nonlinear": MLPSpec(width=16, depth=2), "integrator": "krogstad"},
    ],
)
def test_one_function_gives_the_same_states(fields):
    surrogate = small_surrogate(parameters=2, controls=1, **fields)
    inputs = {
        "parameters": np.array([[0.7, 1.9], [1.5, 0.6]]),
        "controls": np.array([[[0.3]], [[-0.8]]]),
    }
    text, one = compiled(surrogate, in_one_piece=True, **inputs)
    usual, other = compiled(surrogate, in_one_piece=False, **inputs)
    assert ONE_FUNCTION in text
    assert ONE_FUNCTION not in usual
    np.testing.assert_allclose(one, other, rtol=tolerance(fields))


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"nonlinear": RelaxationSpec(width=24, depth=2)}, 3),
        ({"nonlinear": RelaxationSpec(width=129, depth=1)}, 2),
        ({"nonlinear": QuadraticSpec()}, 2),
        ({"nonlinear": MLPSpec(), "linear": HurwitzSpec(rates=RATES)}, 2),
        ({"nonlinear": MLPSpec(), "linear": SYMBOL}, 2),
        ({"nonlinear": MLPSpec(), "integrator": "rodas4"}, 2),
        ({"nonlinear": MLPSpec(), "linear": BY_PARAMETERS}, 2),
    ],
)
def test_what_would_be_slower_or_fail_stays_as_it_is(fields, rows):
    parameters = 1 if fields.get("linear") is BY_PARAMETERS else 0
    surrogate = small_surrogate(parameters=parameters, **fields)
    inputs = {"parameters": np.ones((rows, 1))} if parameters else {}
    text, _ = compiled(surrogate, in_one_piece=True, rows=rows, **inputs)
    assert ONE_FUNCTION not in text


def test_weights_that_are_constants_stay_as_they_are():
    surrogate = small_surrogate(nonlinear=RelaxationSpec(width=64, depth=2))
    plan, seen = surrogate.grid.plan(GRID), []

    def states(x0):
        seen.append(fits_one_piece(surrogate.prepared(), len(x0)))
        return rollout(surrogate, x0, plan, by_size=True, in_one_piece=True)

    assert np.isfinite(jax.jit(states)(ROWS)).all()
    assert seen == [False]


def test_derivatives_pass_through_one_function():
    surrogate = small_surrogate(nonlinear=RelaxationSpec(width=24, depth=2))
    plan = surrogate.grid.plan(GRID)
    arrays, static = eqx.partition(surrogate, eqx.is_array)

    def slope(in_one_piece):
        def total(x0, arrays):
            kinds = {"by_size": True, "in_one_piece": in_one_piece}
            whole = eqx.combine(arrays, static)
            return jnp.sum(rollout(whole, x0, plan, **kinds) ** 2)

        return jax.jit(jax.grad(total))(ROWS, arrays)

    np.testing.assert_allclose(slope(True), slope(False), rtol=1e-12)
