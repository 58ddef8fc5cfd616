"""Derivatives over the wire, in float64, against the library and finite differences.

The models have float32 networks. For each integrator the library gives the Jacobian and
a Hessian of one trajectory by all inputs; what the service answers is a product of these.
Requests are chosen to share compiled shapes.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.surrogate import cast_networks
from tests.api.differentiable import (
    GIVEN,
    INTEGRATORS,
    ROWS,
    SCALE,
    SIZES,
    SWITCHES,
    TIMES,
    directions,
    options,
    surrogate,
)


@dataclass(frozen=True)
class Truth:
    """The library's states, Jacobian and Hessian of ``sum(weights * x)``, by row."""

    x: np.ndarray
    jacobian: dict[str, np.ndarray]
    hessian: dict[str, dict[str, np.ndarray]]
    weights: np.ndarray


@pytest.fixture(scope="module")
def truth():
    @functools.cache
    def of(name):
        double = cast_networks(surrogate(name), jnp.float64)
        weights = np.random.default_rng(3).normal(size=(3, 3)) / SCALE

        def states(inputs):
            return double.rollout(
                inputs["x0"][None],
                TIMES,
                parameters=inputs["parameters"],
                controls=inputs["controls"][None],
                control_times=SWITCHES,
            )[0]

        def weighted(inputs):
            return (weights * states(inputs)).sum()

        @jax.jit
        def all_of_it(inputs):
            hessian = jax.jacfwd(jax.jacrev(weighted))(inputs)
            return states(inputs), jax.jacrev(states)(inputs), hessian

        rows = [
            all_of_it(
                {n: GIVEN[n] if n == "parameters" else GIVEN[n][row] for n in GIVEN}
            )
            for row in range(ROWS)
        ]
        x, jacobian, hessian = jax.tree.map(lambda *a: np.stack(a), *rows)
        return Truth(x, jacobian, hessian, weights)

    return of


def close(found, expected, sizes=1.0, tolerance=1e-10):
    """Equal relative to the largest number, after scaling by the sizes of the axes."""
    found, expected = np.asarray(found) * sizes, np.asarray(expected) * sizes
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 0
    assert np.abs(found - expected).max() <= tolerance * scale


def along(derivative, tangents):
    """A derivative by input, ``(row, …, *input)``, times tangents: ``(k, row, …)``."""
    total = 0
    for name, each in tangents.items():
        rows = derivative[name].shape[0]
        ways = each if name != "parameters" else np.repeat(each[:, None], rows, axis=1)
        axes = each.ndim - (1 if name == "parameters" else 2)
        flat = ways.reshape(*ways.shape[:2], -1)
        lead = derivative[name].shape[: derivative[name].ndim - axes]
        total = total + np.einsum(
            "r...n,krn->kr...", derivative[name].reshape(*lead, -1), flat
        )
    return total


def summed(gradients):
    """Gradients by row, those of the shared parameters summed."""
    return {
        name: each.sum(axis=-2) if name == "parameters" else each
        for name, each in gradients.items()
    }


@pytest.mark.parametrize("name", INTEGRATORS)
def test_many_tangents_are_those_of_the_library(exact, truth, name):
    expected, tangents = truth(name), directions(8, seed=1)
    answer = exact.jvp(f"{name}@latest", GIVEN["x0"], TIMES, tangents, **options())
    close(answer["x"], expected.x, 1 / SCALE, 1e-12)
    close(answer["jvp"], along(expected.jacobian, tangents), 1 / SCALE)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_many_cotangents_of_final_states_are_those_of_the_library(exact, truth, name):
    expected = truth(name)
    weights = np.random.default_rng(4).normal(size=(3, ROWS, 3)) / SCALE
    answer = exact.vjp(
        f"{name}@latest",
        GIVEN["x0"],
        TIMES,
        weights,
        **options(outputs={"times": "final"}),
    )
    gradients = {
        part: np.einsum("krs,rs...->kr...", weights, each[:, -1])
        for part, each in expected.jacobian.items()
    }
    for part, each in summed(gradients).items():
        close(answer["vjp"][part], each, SIZES[part])


@pytest.mark.parametrize("name", INTEGRATORS)
def test_hessian_products_are_those_of_the_library(exact, truth, name):
    expected, tangents = truth(name), directions(2, seed=6)
    cotangents = np.stack([expected.weights] * ROWS)
    answer = exact.hvp(
        f"{name}@latest", GIVEN["x0"], TIMES, cotangents, tangents, **options()
    )
    gradients = {
        part: np.einsum("ts,rts...->r...", expected.weights, each)
        for part, each in expected.jacobian.items()
    }
    products = {part: along(expected.hessian[part], tangents) for part in GIVEN}
    for part, each in summed(gradients).items():
        close(answer["vjp"][part], each, SIZES[part])
    for part, each in summed(products).items():
        close(answer["hvp"][part], each, SIZES[part])
    # Symmetric: <v, H w> = <w, H v>.
    pair = [
        sum((tangents[part][k] * answer["hvp"][part][1 - k]).sum() for part in GIVEN)
        for k in (0, 1)
    ]
    assert pair[0] == pytest.approx(pair[1], rel=1e-9)


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("name", INTEGRATORS)
def test_jacobians_are_those_of_the_library(exact, truth, name, final):
    """Of the trajectory by directions (9 outputs, 8 inputs), at its end by gradients."""
    expected = truth(name)
    more = {"outputs": {"times": "final"}} if final else {}
    answer = exact.jacobian(f"{name}@latest", GIVEN["x0"], TIMES, **options(**more))
    for part, each in expected.jacobian.items():
        sizes = SIZES[part] / SCALE.reshape(3, *[1] * SIZES[part].ndim)
        close(answer["jacobian"][part], each[:, -1] if final else each, sizes)
    x = expected.x[:, -1] if final else expected.x
    close(answer["x"], x, 1 / SCALE, 1e-12)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_an_objective_has_the_gradient_of_the_library(exact, truth, name):
    expected = truth(name)
    observations = expected.x * 1.1
    observations[0, 1, 1] = np.nan
    misfit = {
        "kind": "misfit",
        "observations": observations,
        "weights": SCALE**-2.0,
    }
    answer = exact.objective(f"{name}@latest", GIVEN["x0"], TIMES, misfit, **options())
    residual = np.nan_to_num(expected.x - observations) / SCALE**2
    values = (residual**2 * SCALE**2).sum(axis=(1, 2))
    np.testing.assert_allclose(answer["values"], values, rtol=1e-10)
    assert answer["value"] == pytest.approx(values.sum(), rel=1e-10)
    gradients = {
        part: np.einsum("rts,rts...->r...", 2 * residual, each)
        for part, each in expected.jacobian.items()
    }
    for part, each in summed(gradients).items():
        close(answer["gradient"][part], each, SIZES[part])


@pytest.mark.parametrize("name", INTEGRATORS)
def test_jacobians_agree_with_finite_differences_over_the_wire(exact, truth, name):
    steps = {part: 1e-5 * sizes for part, sizes in SIZES.items()}
    first = {p: v if p == "parameters" else v[0] for p, v in GIVEN.items()}
    perturbed = {part: [] for part in GIVEN}
    for part in GIVEN:
        for place in np.ndindex(SIZES[part].shape):
            for sign in (1, -1):
                for other, value in first.items():
                    moved = np.array(value, float)
                    if other == part:
                        moved[place] += sign * steps[part][place]
                    perturbed[other].append(moved)
    x0 = np.stack(perturbed.pop("x0"))
    rest = {part: np.stack(each) for part, each in perturbed.items()}
    x = exact.rollout(f"{name}@latest", x0, TIMES, **options(**rest))
    start = 0
    for part, sizes in SIZES.items():
        stop = start + 2 * sizes.size
        slopes = (x[start:stop:2] - x[start + 1 : stop : 2]) / (
            2 * steps[part].reshape(-1, 1, 1)
        )
        known = truth(name).jacobian[part][0].reshape(3, 3, -1)
        scaled = sizes.reshape(1, 1, -1) / SCALE[:, None]
        close(np.moveaxis(slopes, 0, -1), known, scaled, 1e-6)
        start = stop
