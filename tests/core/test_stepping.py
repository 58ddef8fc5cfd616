"""Steps of few rows as one function: the same bits, and only where it is faster."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.rollout import rollout
from spnode_core.spec import HurwitzSpec, MLPSpec, QuadraticSpec, RelaxationSpec
from spnode_core.stepping import fits_one_piece
from tests.core.models import GRID, RATES, small_surrogate

ROWS = np.random.default_rng(3).uniform(0.1, 1.0, (2, 3))
ONE_FUNCTION = 'inlineable="false"'
DENSE = {"linear": HurwitzSpec(rates=RATES), "nonlinear": MLPSpec(width=16, depth=2)}


def compiled(surrogate, *, in_one_piece, rows=2):
    """The program of a rollout, and what it gives."""
    x0 = np.resize(ROWS, (rows, 3))
    plan = surrogate.grid.plan(GRID)
    program = jax.jit(
        lambda x0: rollout(surrogate, x0, plan, by_size=True, in_one_piece=in_one_piece)
    )
    program = program.lower(x0).compile()
    return str(program.as_text()), np.asarray(program(x0))


@pytest.mark.parametrize(
    "fields",
    [
        {"nonlinear": RelaxationSpec(width=24, depth=2)},
        DENSE | {"integrator": "etd2rk"},
        DENSE | {"integrator": "krogstad"},
    ],
)
def test_one_function_gives_the_same_bits(fields):
    surrogate = small_surrogate(**fields)
    text, one = compiled(surrogate, in_one_piece=True)
    usual, other = compiled(surrogate, in_one_piece=False)
    assert ONE_FUNCTION in text
    assert ONE_FUNCTION not in usual
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"nonlinear": RelaxationSpec(width=24, depth=2)}, 3),
        ({"nonlinear": RelaxationSpec(width=129, depth=1)}, 2),
        ({"nonlinear": QuadraticSpec(), "linear": HurwitzSpec(rates=RATES)}, 2),
        (DENSE | {"integrator": "rodas4"}, 2),
        (DENSE | {"propagators": "matrix_free"}, 2),
    ],
)
def test_what_would_be_slower_stays_as_it_is(fields, rows):
    surrogate = small_surrogate(**fields)
    assert not fits_one_piece(surrogate, rows)
    assert ONE_FUNCTION not in compiled(surrogate, in_one_piece=True, rows=rows)[0]


def test_derivatives_pass_through_one_function():
    surrogate = small_surrogate(nonlinear=RelaxationSpec(width=24, depth=2))
    plan = surrogate.grid.plan(GRID)

    def total(x0, in_one_piece):
        kinds = {"by_size": True, "in_one_piece": in_one_piece}
        return jnp.sum(rollout(surrogate, x0, plan, **kinds) ** 2)

    one, other = (
        jax.jit(jax.grad(total), static_argnums=1)(ROWS, b) for b in (True, False)
    )
    np.testing.assert_allclose(one, other, rtol=1e-12)
