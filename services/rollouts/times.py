"""The times of a request: what is asked for, and when its controls switch."""

import functools

import numpy as np

from services.rollouts.request import Arrays, Request
from services.rollouts.wire import SpacedTimes, SteppedTimes
from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature
from spnode_core.timegrid import check_increasing, check_times

# Making and checking cost 30 us each, and most callers ask for the same times again:
# those of up to this many bytes are remembered.
_REMEMBERED_BYTES = 8192


def output_times(request: Request, most: int) -> np.ndarray:
    """The times that a request asks for: ``times_of`` its form or its array."""
    form = request.arrays["times"] if request.times is None else request.times
    return times_of(form, most)


def times_of(form: np.ndarray | SpacedTimes | SteppedTimes, most: int) -> np.ndarray:
    """The times that are asked for, increasing strictly.

    Args:
        form: A list, or spaced or stepped times.
        most: How many there may be.

    Raises:
        InvalidInput: They are not such times, or too many.
    """
    if isinstance(form, SpacedTimes | SteppedTimes):
        times = _made(form, most)
    else:
        times = form
        if times.ndim != 1 or times.size == 0:
            raise InvalidInput(
                "times",
                found=f"an array of shape {times.shape}",
                expected="a list of at least one time",
            )
    if len(times) > most:
        raise InvalidInput(
            "times", found=f"{len(times)} times", expected=f"at most {most}"
        )
    content = times.tobytes()
    return (_checked if len(content) <= _REMEMBERED_BYTES else _check)(content)


def _check(content: bytes) -> np.ndarray:
    return check_increasing(np.frombuffer(content))


_checked = functools.lru_cache(maxsize=256)(_check)


def _made(form: SpacedTimes | SteppedTimes, most: int) -> np.ndarray:
    count = form.count if isinstance(form, SpacedTimes) else form.steps + 1
    field = "times.count" if isinstance(form, SpacedTimes) else "times.steps"
    if count > most:
        raise InvalidInput(field, found=f"{count} times", expected=f"at most {most}")
    if isinstance(form, SteppedTimes):
        return form.dt * np.arange(count)
    make = _remembered if 8 * count <= _REMEMBERED_BYTES else _spaced
    return make(form.start, form.stop, count, form.spacing)


def _spaced(start: float, stop: float, count: int, spacing: str) -> np.ndarray:
    if count == 1:
        return np.array([stop])
    if stop <= start:
        raise InvalidInput(
            "times.stop", found=repr(stop), expected=f"above start {start!r}"
        )
    if spacing == "linear":
        return np.linspace(start, stop, count)
    if start <= 0:
        raise InvalidInput(
            "times.start",
            found=repr(start),
            expected="above 0 where spacing is 'log'",
        )
    return np.geomspace(start, stop, count)


_remembered = functools.lru_cache(maxsize=256)(_spaced)


def control_times(arrays: Arrays, signature: Signature) -> np.ndarray | None:
    """The times at which controls switch, from 0; None without controls.

    Raises:
        InvalidInput: They are missing, or no such times.
    """
    times = arrays.get("control_times")
    controls = arrays.get("controls")
    if controls is None:
        if times is not None:
            raise InvalidInput(
                "control_times", found="times", expected="none without controls"
            )
        return None
    if times is None:
        # What lacks the axis of intervals is refused for its shape.
        if controls.ndim < 2 or controls.shape[-2] == 1:
            return np.zeros(1)
        raise InvalidInput(
            "control_times",
            found="nothing",
            expected="the times at which the controls switch, the first one 0",
        )
    times = check_times(times, "control_times")
    if times.ndim != 1 or times[0] != 0 or (np.diff(times) <= 0).any():
        raise InvalidInput(
            "control_times",
            found=f"{times.tolist()[:4]!r}…",
            expected="a list that begins with 0 and increases strictly",
        )
    return times
