"""What commands that queue jobs say of their schedule."""

import pytest

from spnode_client.commands.schedule import parse_duration, schedule_of
from spnode_client.terminal import UsageError


def test_nothing_said_is_nothing_sent() -> None:
    assert schedule_of(None, None, False) is None


def test_options_become_the_fields_of_the_request() -> None:
    expected = {"priority": -2, "deadline_seconds": 5400.0, "device": "gpu"}
    assert schedule_of(-2, "1.5h", True) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("30m", 1800.0), ("2d", 172_800.0)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text, seconds) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1m", "0", "inf", "nan", "soon"])
def test_a_duration_that_is_none_is_a_usage_error(text) -> None:
    with pytest.raises(UsageError, match="--deadline"):
        parse_duration(text)
