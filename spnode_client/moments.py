"""When something was, and how long it took, in words."""

import math
from datetime import UTC, datetime
from typing import Any


def moment(text: Any) -> str:
    """A time of the service, to the second; what is none stays as it is."""
    at = _read(text)
    return str(text or "") if at is None else f"{at:%Y-%m-%d %H:%M:%SZ}"


def span(start: Any, end: Any) -> str:
    """How long it was from one time to another; empty where one is missing."""
    first, last = _read(start), _read(end)
    if first is None or last is None:
        return ""
    return lasting((last - first).total_seconds())


def lasting(seconds: Any) -> str:
    """Seconds in the largest unit that fits; empty for what is no number."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return ""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _read(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
