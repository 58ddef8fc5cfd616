"""Which rows of an answer lie outside the training domain, and in which words."""

import dataclasses

import numpy as np
import pytest

from services.rollouts.domain import domain_fields
from services.rollouts.served import Served
from spnode_core.spec import DomainSpec, Signature, SurrogateSpec

SERVED = Served(
    "decay",
    3,
    "0" * 64,
    Signature(
        states=("a", "b"),
        latent=2,
        domain=DomainSpec(lower=(-1.0, 1e-6), upper=(1.0, 1.0), end=10.0),
    ),
    SurrogateSpec(latent=2, normalisation={"a": "linear", "b": "log"}),
)


def fields(x0, *, served=SERVED, distance=None, listed=True):
    far = None if distance is None else np.array(distance)
    rows = {"x0": np.array(x0, float)}
    return domain_fields(served, rows, 1.0, distance=far, listed=listed)


@pytest.mark.parametrize(
    ("state", "is_inside"),
    [
        ([1.03, 0.5], True),
        ([1.05, 0.5], False),
        ([-1.05, 0.5], False),
        # In the logarithm: six decades, of which 2 % are a factor of 1.3.
        ([0.0, 8e-7], True),
        ([0.0, 7e-7], False),
        ([0.0, 1.3], True),
        ([0.0, 1.4], False),
    ],
)
def test_the_box_has_a_margin_of_two_percent(state, is_inside):
    assert fields([state])["domain"]["inside"] == [is_inside]


def test_what_was_never_negative_has_no_margin_below_nothing():
    linear = SurrogateSpec(latent=2)
    served = dataclasses.replace(SERVED, spec=linear)
    assert fields([[0.0, 0.0]], served=served)["domain"]["inside"] == [True]
    assert fields([[0.0, -1e-6]], served=served)["domain"]["inside"] == [False]


def test_a_row_in_the_box_that_is_far_from_all_samples_is_said():
    x0 = [[0.0, 0.5], [0.1, 0.5], [9.0, 0.5]]
    found = fields(x0, distance=[0.4, 1.7, 0.9])
    assert found["domain"]["inside"] == [True, False, False]
    assert found["domain"]["distance"] == [0.4, 1.7, 0.9]
    places = [(each["row"], each["field"]) for each in found["domain"]["outside"]]
    assert places == [(2, "x0"), (1, "latent")]
    box, far = found["warnings"]
    assert "a = 9.0 in row 2" in box
    assert far.startswith("1 of 3 rows lie far from every training sample")
    assert "first row 1, at 1.7 times" in far


def test_near_rows_are_inside_and_old_versions_know_no_distance():
    assert fields([[0.0, 0.5]], distance=[0.9], listed=False) == {
        "warnings": [],
        "domain": {"inside": [True]},
    }
    assert "distance" not in fields([[0.0, 0.5]])["domain"]


@pytest.mark.parametrize(
    ("k", "is_inside"),
    [(1e4, True), (9e3, True), (5e3, False), (10.0, False), (0.0, False), (2e9, False)],
)
def test_a_range_of_decades_has_a_margin_of_ratios_however_it_was_learned(k, is_inside):
    signature = SERVED.signature.model_copy(
        update={
            "parameters": ("k",),
            "domain": SERVED.signature.domain.model_copy(
                update={"parameters_lower": (1e4,), "parameters_upper": (1e9,)}
            ),
        }
    )
    # As polynomials take them: divided by the largest.
    spec = SurrogateSpec(latent=2, normalisation={"k": "max"})
    served = dataclasses.replace(SERVED, signature=signature, spec=spec)
    rows = {"x0": np.array([[0.0, 0.5]]), "parameters": np.array([[k]])}
    found = domain_fields(served, rows, 1.0, distance=None, listed=True)
    assert found["domain"]["inside"] == [is_inside]
