"""What was decided where the caller left it open: JSON, for report, log and card."""

from typing import Any

Choices = list[dict[str, Any]]


def chosen(choices: Choices, what: str, value: Any, why: str) -> None:
    """Add a decision: the field, its value and the reason in words."""
    choices.append({"what": what, "value": value, "why": why})
