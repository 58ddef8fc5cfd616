"""Leading axes of a Tesseract's inputs, on a map whose derivatives are known."""

import numpy as np
import pytest

from api.protocols.tesseract.leading import Leading
from spnode_core.spec import DomainSpec, Signature
from tests.protocols.kinetics import close

SIGNATURE = Signature(
    states=("a", "b", "c"),
    parameters=("p0", "p1"),
    latent=3,
    domain=DomainSpec(
        lower=(0.0,) * 3,
        upper=(1.0,) * 3,
        parameters_lower=(0.0,) * 2,
        parameters_upper=(1.0,) * 2,
        end=1.0,
    ),
)
DRAWS = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("x0", "parameters", "shape"),
    [
        ((), (), ()),
        ((1,), (), (1,)),
        ((2,), (1,), (2,)),
        ((1,), (2,), (2,)),
        ((4, 1), (5,), (4, 5)),
        ((), (2, 3), (2, 3)),
    ],
)
def test_leading_axes_repeat_as_numpy_does(x0, parameters, shape):
    """Of the map x = p0 * x0, whose derivatives are known."""
    given = {
        "x0": DRAWS.normal(size=(*x0, 3)),
        "parameters": DRAWS.normal(size=(*parameters, 2)),
        "times": np.array([1.0]),
    }
    shapes = {name: array.shape for name, array in given.items()}
    leading = Leading.of(shapes, SIGNATURE, final=True)
    assert leading.shape == shape
    rows = {
        name: np.broadcast_to(
            leading.by_row(name, given[name]), (leading.rows, given[name].shape[-1])
        )
        for name in ("x0", "parameters")
    }
    factor = rows["parameters"][:, 0]
    x = (rows["x0"] * factor[:, None]).reshape(leading.x)
    expected = given["x0"] * given["parameters"][..., :1]
    np.testing.assert_array_equal(x, expected)
    by_x0 = np.eye(3) * factor[:, None, None]
    by_parameters = np.stack([rows["x0"], np.zeros((leading.rows, 3))], axis=-1)
    cotangents = DRAWS.normal(size=(leading.rows, 3))
    found = {}
    for name, blocks in (("x0", by_x0), ("parameters", by_parameters)):
        full = leading.jacobian(name, blocks)
        assert full.shape == (*leading.x, *given[name].shape)
        change = DRAWS.normal(size=given[name].shape)
        moved = {**given, name: given[name] + change}
        after = moved["x0"] * moved["parameters"][..., :1]
        close(np.tensordot(full, change, change.ndim), after - expected)
        each = np.einsum("ri,rij->rj", cotangents, blocks)
        # The service sums over the rows of an input that it got once.
        is_once = leading.by_row(name, given[name]).ndim == 1
        found[name] = leading.gradient(name, each.sum(axis=0) if is_once else each)
        weights = cotangents.reshape(leading.x)
        axes = len(leading.x)
        close(found[name], np.tensordot(weights, full, axes))
