"""Derivatives of a model with float32 networks at the door of Tesseract, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.surrogate import cast_networks
from tests.api.differentiable import (
    GIVEN,
    ROWS,
    SCALE,
    SIZES,
    SWITCHES,
    TIMES,
    directions,
)
from tests.protocols.environments import FOLDER, run_client
from tests.protocols.kinetics import close

WEIGHTS = np.random.default_rng(4).normal(size=(ROWS, len(TIMES), 3)) / SCALE
ALONG = {name: each[0] for name, each in directions(1, seed=1).items()}
BY = (tuple(GIVEN), ("x0", "parameters"), ("controls",))


@pytest.fixture(scope="module")
def jacobians(service):
    """Of each row by each of its inputs, by the library: ``(row, time, state, …)``."""
    exact = cast_networks(service.surrogates["forced"], jnp.float64)

    @jax.jit
    @jax.jacfwd
    def of_row(inputs):
        return exact.rollout(
            inputs["x0"],
            TIMES,
            parameters=inputs["parameters"],
            controls=inputs["controls"],
            control_times=SWITCHES,
        )

    rows = [
        of_row(
            {n: each if n == "parameters" else each[row] for n, each in GIVEN.items()}
        )
        for row in range(ROWS)
    ]
    return jax.tree.map(lambda *each: np.stack(each), *rows)


@pytest.fixture(scope="module")
def found(service, tmp_path_factory):
    """What tesseract-core's client was answered."""
    folder = tmp_path_factory.mktemp("derivatives")
    given = folder / "given.npz"
    tangents = {f"tangent_{name}": each for name, each in ALONG.items()}
    times = {"times": TIMES, "control_times": SWITCHES}
    np.savez(given, **GIVEN, **tangents, **times, cotangent=WEIGHTS)
    run_client(
        "clients",
        FOLDER / "programs" / "tesseract_derivatives.py",
        f"{service.signed}/tesseract/forced/1",
        given,
        folder / "found.npz",
    )
    with np.load(folder / "found.npz") as members:
        return dict(members)


def by_all_rows(name, blocks):
    """The Jacobian by an input as it was sent, from that of each row by its own."""
    if name == "parameters":
        return blocks
    axes = GIVEN[name].ndim - 1
    full = np.zeros((*blocks.shape[:-axes], *GIVEN[name].shape))
    for row, block in enumerate(blocks):
        full[(row, ..., row, *[slice(None)] * axes)] = block
    return full


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("by", BY, ids="+".join)
def test_derivatives_are_those_of_the_library(found, jacobians, by, final):
    key = f"{final} {' '.join(by)}"
    moved = 0.0
    for name in by:
        sizes, blocks = SIZES[name], jacobians[name]
        weights = WEIGHTS[:, -1] if final else WEIGHTS
        blocks = blocks[:, -1] if final else blocks
        full = by_all_rows(name, blocks)
        scaled = sizes / SCALE.reshape(3, *[1] * GIVEN[name].ndim)
        close(found[f"{key} jacobian {name}"], full, scaled)
        gradient = np.tensordot(weights, full, weights.ndim)
        close(found[f"{key} vjp {name}"], gradient, sizes)
        moved += np.tensordot(full, ALONG[name], GIVEN[name].ndim)
    close(found[f"{key} jvp"], moved, 1 / SCALE)
