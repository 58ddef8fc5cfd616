"""What a version's record says of its errors."""

from datetime import UTC, datetime

import pytest

from services.gates import failures
from services.versions import VersionRecord

HUGE = int("1" + "0" * 400)


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"test": {"normalised_rmse": 0.5}, "validation": {"normalised_rmse": 1}}, 0.5),
        ({"test": {}, "validation": {"normalised_rmse": 1}}, 1.0),
        ({}, None),
        ({"test": {"normalised_rmse": None}}, None),
        ({"test": {"normalised_rmse": HUGE}}, None),
        ({"test": {"normalised_rmse": float("nan")}}, None),
        ({"test": {"normalised_rmse": "0.5"}}, None),
        ({"test": ["normalised_rmse"]}, None),
    ],
)
def test_the_error_of_a_version_is_a_finite_number_or_nothing(evaluation, said):
    """An imported archive may say anything."""
    parts = {name: {} for name in ("signature", "spec", "card", "certificate")}
    names = {"model": "m", "number": 1, "owner": "me", "digest": "d", "size_bytes": 1}
    at = datetime(2026, 1, 2, tzinfo=UTC)
    more = {"evaluation": evaluation, "job_id": None, "created_at": at}
    assert VersionRecord(**names, **parts, **more).normalised_rmse == said


def test_a_number_too_large_for_one_is_no_error_of_a_champion():
    (failure,) = failures({"test": {"scaled_mse": HUGE}}, {"bounded": {}})
    assert failure.startswith("its scaled mean squared error on test data is 1000")
