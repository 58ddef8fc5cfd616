"""Every kind of operator and integrator: saved, loaded, rolled out and trained."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import STATES, random_states, small_spec, small_surrogate
from pydantic import ValidationError

from spnode_core.artifact import load, save
from spnode_core.dataset import check_arrays
from spnode_core.spec import (
    BilinearSpec,
    ContractingSpec,
    DenseSpec,
    DissipativeSpec,
    FixedSpec,
    HurwitzSpec,
    LipschitzSpec,
    MLPSpec,
    ModalSpec,
    NoNonlinearSpec,
    PolynomialSpec,
    QuadraticSpec,
    RatesSpec,
    RelaxationSpec,
    ResidualSpec,
    SparseSpec,
    SurrogateSpec,
    SymbolSpec,
    TrainingSpec,
    UniformStepsSpec,
)
from spnode_core.surrogate import cast_networks, trainable
from spnode_core.training.fit import fit
from spnode_core.training.optimisers import weight_flags

RATES = RatesSpec(minimum=0.5, maximum=20.0)
SKEWED = ((-1.0, 2.0, 0.0), (-2.0, -1.0, 0.5), (0.0, 0.0, -7.0))
LINEAR = {
    "hurwitz": HurwitzSpec(rates=RATES),
    "imported": HurwitzSpec(matrix=SKEWED),
    "dissipative": DissipativeSpec(rates=RATES),
    "modal": ModalSpec(rates=RATES, oscillating=1),
    "dense": DenseSpec(rates=RATES),
    "fixed": FixedSpec(matrix=SKEWED),
    "sparse": SparseSpec(
        size=3, rows=(0, 1, 2, 0), columns=(0, 1, 2, 1), values=(-1.0, -2.0, -9.0, 3.0)
    ),
    "symbol": SymbolSpec(length=6.0, coefficients=(-0.5, 1.0, 0.2)),
}
NONLINEAR = {
    "none": NoNonlinearSpec(),
    "polynomial": PolynomialSpec(),
    "bilinear": BilinearSpec(),
    "quadratic": QuadraticSpec(),
    "turning": QuadraticSpec(energy_preserving=True, width=4, depth=1),
    "lipschitz": LipschitzSpec(width=4, depth=1),
    "gram": LipschitzSpec(width=4, depth=1, layer_norm="gram"),
    "contracting": ContractingSpec(width=4, depth=1),
    "mlp": MLPSpec(width=4, depth=1),
    "relaxation": RelaxationSpec(width=4, depth=1),
    "contraction": RelaxationSpec(width=4, depth=1, contraction=0.9),
}
INTEGRATORS = {
    name: {"integrator": name.removesuffix(" free"), "propagators": propagators}
    for name, propagators in {
        "etd1": "precomputed",
        "etd2rk": "precomputed",
        "krogstad": "precomputed",
        "exprb32": "precomputed",
        "rodas4": "precomputed",
        "imex_ssp2": "precomputed",
        "etd1 free": "matrix_free",
        "etd2rk free": "matrix_free",
        "krogstad free": "matrix_free",
    }.items()
}
TIMES = (0.0, 0.1, 0.25, 0.6)


def fields_of(linear, nonlinear, integrator):
    return {
        "latent": 3,
        "linear": LINEAR[linear],
        "nonlinear": NONLINEAR[nonlinear],
        "steps": UniformStepsSpec(step=0.25),
        "autoencoder": ResidualSpec(width=4, depth=1),
        **INTEGRATORS[integrator],
    }


def is_allowed(*kinds):
    try:
        small_spec(**fields_of(*kinds))
    except ValidationError:
        return False
    return True


ALLOWED = [
    kinds
    for kinds in itertools.product(LINEAR, NONLINEAR, INTEGRATORS)
    if is_allowed(*kinds)
]


def few():
    """A few of what is allowed, with every kind of each part among them."""
    chosen, missing = [], {*LINEAR, *NONLINEAR, *INTEGRATORS}
    # Those that can stand beside least first.
    order = sorted(
        ALLOWED, key=lambda kinds: sum(set(kinds) <= set(a) for a in ALLOWED)
    )
    while missing:
        best = max(order, key=lambda kinds: len(missing & set(kinds)))
        chosen.append(best)
        missing -= set(best)
    return chosen


FEW = few()
# Compiling them all takes minutes: not in each run.
pytestmark = pytest.mark.slow
# Compiling the gradients of the others takes minutes.
TRAINED_ALWAYS = {"exprb32"}
both = pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(kinds, marks=() if kinds in FEW else pytest.mark.slow)
        for kinds in ALLOWED
    ],
    ids="-".join,
)


def test_all_kinds_of_the_description_are_here():
    for field, here in (("linear", LINEAR), ("nonlinear", NONLINEAR)):
        schema = SurrogateSpec.model_json_schema()["properties"][field]
        known = set(schema["discriminator"]["mapping"])
        assert known == {spec.kind for spec in here.values()}
    assert len(ALLOWED) > 300
    assert {name for kinds in FEW for name in kinds} == {
        *LINEAR, *NONLINEAR, *INTEGRATORS,
    }  # fmt: skip


@both
def test_every_kind_is_saved_loaded_and_rolled_out_at_any_time(kinds, tmp_path):
    scalings = dict.fromkeys((*STATES, "p0"), "linear")
    surrogate = small_surrogate(
        parameters=1, normalisation=scalings, **fields_of(*kinds)
    )
    digest = save(surrogate, tmp_path / "a.spnode")
    again = load(tmp_path / "a.spnode", digest=digest)
    x0 = random_states(2)
    states = again.rollout(x0, TIMES, parameters=[[0.7], [1.5]])
    expected = surrogate.rollout(x0, TIMES, parameters=[[0.7], [1.5]])
    np.testing.assert_array_equal(states, expected)
    assert np.isfinite(states).all()
    # What is asked for beside a time does not change it.
    others = surrogate.rollout(x0, (0.0, 0.1, 0.3, 0.6), parameters=[[0.7], [1.5]])
    same = np.array([0, 1, 3])
    np.testing.assert_allclose(others[:, same], states[:, same], rtol=1e-9)


def decay():
    """Two decaying states, one of which feeds the other; exact."""
    random = np.random.default_rng(0)
    times = np.linspace(0.0, 1.0, 4)
    a, b = random.uniform(0.2, 1.0, (2, 12, 1))
    fast, slow = np.exp(-4 * times), np.exp(-times)
    states = np.stack([a * fast, b * slow + a / 3 * (slow - fast)], axis=-1)
    return check_arrays({"states": states, "times": times})


# A training compiles for a quarter of a minute.
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(kinds, marks=() if {*kinds} & TRAINED_ALWAYS else pytest.mark.slow)
        for kinds in FEW
    ],
    ids="-".join,
)
def test_every_kind_is_trained(kinds):
    training = TrainingSpec(
        iterations=2, batch=4, refine=1, polish="none", learning_rate=1e-3
    )
    spec = SurrogateSpec(**fields_of(*kinds))
    run = fit(decay(), spec, training, on_progress=lambda _: None)
    assert np.isfinite(run.report["metrics"]["test"]["scaled_mse"])
    assert run.report["outcome"] == "all iterations done"


@pytest.mark.parametrize("integrator", ["imex_ssp2", "exprb32", "rodas4"])
def test_matrix_free_is_refused_where_a_matrix_is_needed(integrator):
    with pytest.raises(ValidationError, match="needs A as a matrix"):
        SurrogateSpec(
            nonlinear=MLPSpec(), integrator=integrator, propagators="matrix_free"
        )


@pytest.mark.parametrize("name", ["dissipative", "symbol"])
def test_matrix_free_rollouts_equal_precomputed_ones(name):
    fields = fields_of(name, "mlp", "etd2rk")
    surrogate = small_surrogate(**fields)
    free = small_surrogate(**{**fields, "propagators": "matrix_free"})
    x0 = random_states(2)
    times = np.array([[0.0, 0.1, 0.6], [0.25, 0.3, 0.5]])
    np.testing.assert_allclose(
        free.rollout(x0, times), surrogate.rollout(x0, times), rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("linear", ["hurwitz", "sparse"])
def test_matrix_free_rollouts_have_both_derivatives(linear):
    surrogate = small_surrogate(**fields_of(linear, "gram", "etd2rk free"))
    x0 = jnp.asarray(random_states(2))

    @jax.jit
    def outputs(x):
        return surrogate.rollout(x, TIMES)

    rng = np.random.default_rng(0)
    direction, weights = rng.normal(size=x0.shape), rng.normal(size=(2, 4, 3))
    direction *= np.array([1.0, 4e-5, 1.0])
    _, forwards = jax.jvp(outputs, (x0,), (jnp.asarray(direction),))
    _, pull = jax.vjp(outputs, x0)
    (backwards,) = pull(jnp.asarray(weights))
    np.testing.assert_allclose(
        np.sum(weights * forwards), np.sum(direction * backwards), rtol=1e-9
    )
    size = 1e-6
    either = [outputs(x0 + s * size * direction) for s in (1, -1)]
    np.testing.assert_allclose(
        forwards, (either[0] - either[1]) / (2 * size), rtol=1e-5, atol=1e-9
    )


def test_polynomial_coefficients_stay_double_where_networks_are_cast():
    surrogate = small_surrogate(**fields_of("dissipative", "turning", "etd1"))
    cast = cast_networks(surrogate, jnp.float32)
    f = cast.dynamics.nonlinear
    assert f.turning.dtype == f.affine.dtype == jnp.float64
    assert f.network.weights[0].dtype == jnp.float32
    linear = jax.tree.leaves(cast.dynamics.linear)
    assert {leaf.dtype for leaf in linear} == {np.dtype("float64")}


@pytest.mark.parametrize("linear", ["hurwitz", "dissipative", "dense"])
def test_entries_of_a_are_no_weight_matrices(linear):
    surrogate = small_surrogate(**fields_of(linear, "mlp", "etd1"))
    arrays = eqx.filter(surrogate, trainable(surrogate))
    found = jax.tree_util.tree_leaves_with_path(arrays)
    paths = [jax.tree_util.keystr(path) for path, _ in found]
    flags = weight_flags(paths, [leaf for _, leaf in found])
    for path, flag in zip(paths, flags, strict=True):
        assert flag == (".dynamics.linear" not in path and ".biases" not in path), path
