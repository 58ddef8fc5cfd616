"""What the arrays of a dataset must look like, checked one after the other.

Every failure names the first wrong place with its value, and what belongs there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from spnode_core.errors import InvalidInput, counted, one_of

KEYS = frozenset(
    {
        "states",
        "times",
        "names",
        "units",
        "time_unit",
        "parameters",
        "parameter_names",
        "controls",
        "control_names",
        "mask",
        "lengths",
        "conserved",
        "conserved_names",
        "positive",
    }
)
"""Arrays that a dataset may hold."""
_LONGEST_NAME = 200
# Beyond it squares and differences overflow, and training would see infinities.
_LARGEST = 1e150
USABLE = f"a finite number of at most {_LARGEST:g} in size"
"""What states, times, parameters and controls are."""


def checked(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``Dataset`` in canonical form.

    Raises:
        InvalidInput: The first thing that is wrong.
    """
    _check_keys(arrays)
    states = _numbers(arrays["states"], "states")
    _check_states_shape(states)
    batch, samples, size = states.shape
    lengths = _lengths(arrays.get("lengths"), batch, samples)
    mask = _mask(arrays.get("mask"), lengths, states)
    _check_states(states, mask, missing_declared="mask" in arrays)
    times = _times(arrays["times"], mask)
    names = _names(arrays, "names", size, "x")
    parameters = _parameters(arrays, batch)
    controls, control_names = _controls(arrays, mask)
    _check_distinct(names, parameters["parameter_names"], control_names)
    units = _texts(arrays["units"], "units", size) if "units" in arrays else ()
    # Samples that no trajectory has are no part of the content.
    end = int(np.flatnonzero(mask.any(axis=(0, 2)))[-1]) + 1
    return {
        "states": np.where(mask, states, np.nan)[:, :end],
        "times": times[:, :end],
        "mask": mask[:, :end],
        "names": names,
        "units": units,
        "time_unit": _text(arrays.get("time_unit", ""), "time_unit"),
        **parameters,
        "controls": controls[:, :end],
        "control_names": control_names,
        "conserved": _conserved(arrays, names),
        "positive": _positive(arrays.get("positive", False), states, mask),
    }


def _check_keys(arrays: Mapping[str, Any]) -> None:
    unknown = sorted(set(arrays) - KEYS)
    if unknown:
        raise InvalidInput(
            unknown[0],
            found="an unknown array",
            expected=one_of(unknown[0], sorted(KEYS)),
        )
    for key in ("states", "times"):
        if key not in arrays:
            raise InvalidInput(key, found="no such array", expected="it is required")
    for key, names in (
        ("parameters", "parameter_names"),
        ("controls", "control_names"),
        ("conserved", "conserved_names"),
    ):
        if names in arrays and key not in arrays:
            raise InvalidInput(names, found=f"no {key}", expected=f"{key} beside it")


def _numbers(value: Any, key: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise InvalidInput(
            key, found=f"dtype {array.dtype}", expected="real numbers, e.g. float64"
        )
    # A copy: the dataset must not change when the caller's arrays do.
    return np.array(array, dtype=np.float64, order="C")


def is_usable(array: np.ndarray) -> np.ndarray:
    """Where numbers are finite, and small enough to be squared."""
    return np.abs(array) <= _LARGEST


def _place(key: str, index: np.ndarray | tuple[int, ...]) -> str:
    return f"{key}[{', '.join(str(int(i)) for i in index)}]"


def _require(
    condition: np.ndarray, values: np.ndarray, key: str, expected: str
) -> None:
    """Raise at the first place where ``condition`` is False."""
    if not condition.all():
        index = tuple(np.argwhere(~condition)[0])
        raise InvalidInput(
            _place(key, index), found=str(values[index]), expected=expected
        )


def _check_states_shape(states: np.ndarray) -> None:
    if states.ndim != 3:
        raise InvalidInput(
            "states",
            found=f"shape {states.shape}",
            expected="three dimensions (trajectory, time, state)",
        )
    batch, samples, size = states.shape
    if size < 1 or samples < 2:
        raise InvalidInput(
            "states",
            found=f"shape {states.shape} (trajectory, time, state)",
            expected="at least 2 times and 1 state",
        )
    if batch < 1:
        raise InvalidInput(
            "states",
            found=f"no trajectory in shape {states.shape}",
            expected="at least 1 (trajectory, time, state), and 3 unless a training "
            "cuts them into pieces",
        )


def _lengths(value: Any, batch: int, samples: int) -> np.ndarray:
    if value is None:
        return np.full(batch, samples)
    lengths = np.asarray(value)
    if lengths.dtype.kind not in "iu" or lengths.shape != (batch,):
        raise InvalidInput(
            "lengths",
            found=f"dtype {lengths.dtype}, shape {lengths.shape}",
            expected=f"integers of shape ({batch},), the samples of each trajectory",
        )
    good = (lengths >= 2) & (lengths <= samples)
    _require(good, lengths, "lengths", f"from 2 to {samples}")
    return lengths.astype(np.int64)


def _mask(value: Any, lengths: np.ndarray, states: np.ndarray) -> np.ndarray:
    batch, samples, _ = states.shape
    within = np.arange(samples) < lengths[:, None]
    mask = np.broadcast_to(within[:, :, None], states.shape)
    if value is None:
        return mask.copy()
    given = np.asarray(value)
    if given.dtype.kind != "b":
        raise InvalidInput(
            "mask", found=f"dtype {given.dtype}", expected="bool, True = present"
        )
    if given.shape == (batch, samples):
        given = given[:, :, None]
    if given.shape not in (states.shape, (batch, samples, 1)):
        raise InvalidInput(
            "mask",
            found=f"shape {given.shape}",
            expected=f"{states.shape} or {states.shape[:2]}",
        )
    return mask & given


def _check_states(
    states: np.ndarray, mask: np.ndarray, *, missing_declared: bool
) -> None:
    hint = "" if missing_declared else ", or a mask or lengths that mark it as missing"
    _require(is_usable(states) | ~mask, states, "states", f"{USABLE}{hint}")
    first = mask[:, 0]
    if not first.all():
        row, state = np.argwhere(~first)[0]
        raise InvalidInput(
            _place("mask", (row, 0, state)),
            found="a missing sample",
            expected="the first sample of every trajectory complete: a rollout "
            "starts there",
        )
    alone = ~mask[:, 1:].any(axis=(1, 2))
    if alone.any():
        raise InvalidInput(
            _place("mask", (int(np.argmax(alone)),)),
            found="only the first sample",
            expected="at least one later sample in every trajectory",
        )


def _times(value: Any, mask: np.ndarray) -> np.ndarray:
    """Times ``(trajectory, time)``, strictly increasing up to the last sample."""
    batch, samples, _ = mask.shape
    times = _numbers(value, "times")
    if times.shape not in {(samples,), (batch, samples)}:
        raise InvalidInput(
            "times",
            found=f"shape {times.shape}",
            expected=f"({samples},) or ({batch}, {samples}), as in states",
        )
    if times.ndim == 1:
        _check_increasing(
            times[None], np.ones((1, samples), bool), "times", shared=True
        )
        return np.broadcast_to(times, (batch, samples)).copy()
    within = _up_to_last_sample(mask)
    _check_increasing(times, within, "times", shared=False)
    # Whatever stands behind the last sample is padding: as the times go on where
    # trajectories share them, else the last time again.
    counts = within.sum(axis=1)
    longest = times[counts.argmax()]
    if counts.max() == samples and (times == longest)[within].all():
        return np.broadcast_to(longest, (batch, samples)).copy()
    return np.where(within, times, times[np.arange(batch), counts - 1][:, None])


def _check_increasing(
    times: np.ndarray, within: np.ndarray, key: str, *, shared: bool
) -> None:
    where = (lambda i: (i[1],)) if shared else (lambda i: tuple(i))
    bad = ~is_usable(times) & within
    if bad.any():
        index = np.argwhere(bad)[0]
        raise InvalidInput(
            _place(key, where(index)),
            found=str(times[tuple(index)]),
            expected=USABLE,
        )
    with np.errstate(invalid="ignore"):
        bad = (np.diff(times, axis=1) <= 0) & within[:, 1:]
    if bad.any():
        row, k = np.argwhere(bad)[0]
        raise InvalidInput(
            _place(key, where((row, k + 1))),
            found=f"{times[row, k + 1]} after {times[row, k]}",
            expected="strictly increasing times",
        )


def _text(value: Any, key: str) -> str:
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "US":
        raise InvalidInput(
            key, found=f"dtype {array.dtype}, shape {array.shape}", expected="one text"
        )
    return _decoded(array.item(), key)


def _decoded(item: str | bytes, key: str) -> str:
    text = item.decode("utf-8", "replace") if isinstance(item, bytes) else item
    if len(text) > _LONGEST_NAME or not (text.isprintable() or text == ""):
        raise InvalidInput(
            key,
            found=f"{text[:40]!r}",
            expected=f"printable text of at most {_LONGEST_NAME} characters",
        )
    return text


def _texts(value: Any, key: str, size: int) -> tuple[str, ...]:
    array = np.asarray(value)
    if array.shape != (size,) or array.dtype.kind not in "US":
        raise InvalidInput(
            key,
            found=f"dtype {array.dtype}, shape {array.shape}",
            expected=f"{counted(size, 'text')}, shape ({size},)",
        )
    return tuple(_decoded(item, f"{key}[{i}]") for i, item in enumerate(array.tolist()))


def _names(
    arrays: Mapping[str, Any], key: str, size: int, letter: str
) -> tuple[str, ...]:
    if key not in arrays:
        return tuple(f"{letter}{i + 1}" for i in range(size))
    names = _texts(arrays[key], key, size)
    seen = {""}
    for i, name in enumerate(names):
        if name in seen:
            raise InvalidInput(
                f"{key}[{i}]", found=repr(name), expected="a name of its own, not empty"
            )
        seen.add(name)
    return names


def _check_distinct(*groups: tuple[str, ...]) -> None:
    """Names also say which scaling is whose, across states, parameters, controls."""
    seen: set[str] = set()
    for key, names in zip(
        ("names", "parameter_names", "control_names"), groups, strict=True
    ):
        for i, name in enumerate(names):
            if name in seen:
                raise InvalidInput(
                    f"{key}[{i}]",
                    found=f"{name!r}, the name of something else",
                    expected="different names for states, parameters and controls",
                )
        seen.update(names)


def _parameters(arrays: Mapping[str, Any], batch: int) -> dict[str, Any]:
    if "parameters" not in arrays:
        return {"parameters": np.zeros((batch, 0)), "parameter_names": ()}
    parameters = _numbers(arrays["parameters"], "parameters")
    if parameters.ndim != 2 or parameters.shape[0] != batch or not parameters.shape[1]:
        raise InvalidInput(
            "parameters",
            found=f"shape {parameters.shape}",
            expected=f"({batch}, number of parameters), a row a trajectory",
        )
    _require(is_usable(parameters), parameters, "parameters", USABLE)
    names = _names(arrays, "parameter_names", parameters.shape[1], "p")
    return {"parameters": parameters, "parameter_names": names}


def _controls(
    arrays: Mapping[str, Any], mask: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    batch, samples, _ = mask.shape
    if "controls" not in arrays:
        return np.zeros((batch, samples, 0)), ()
    controls = _numbers(arrays["controls"], "controls")
    if (
        controls.ndim != 3
        or controls.shape[:2] != (batch, samples)
        or not controls.shape[2]
    ):
        raise InvalidInput(
            "controls",
            found=f"shape {controls.shape}",
            expected=f"({batch}, {samples}, number of controls), as in states",
        )
    within = _up_to_last_sample(mask)[:, :, None]
    _require(is_usable(controls) | ~within, controls, "controls", USABLE)
    names = _names(arrays, "control_names", controls.shape[2], "u")
    # Whatever stands behind the last sample is padding: it must not widen the range
    # that scalings and domain are taken from.
    last = within.sum(axis=1) - 1
    held = np.take_along_axis(controls, last[:, :, None], axis=1)
    return np.where(within, controls, held), names


def _up_to_last_sample(mask: np.ndarray) -> np.ndarray:
    present = np.asarray(mask.any(axis=2))
    return present[:, ::-1].cumsum(axis=1)[:, ::-1] > 0


def _conserved(
    arrays: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    if "conserved" not in arrays:
        return {}
    sums = _numbers(arrays["conserved"], "conserved")
    if sums.ndim != 2 or sums.shape[1] != len(names):
        raise InvalidInput(
            "conserved",
            found=f"shape {sums.shape}",
            expected=f"(number of sums, {len(names)}), a coefficient a state",
        )
    _require(is_usable(sums), sums, "conserved", USABLE)
    largest = np.abs(sums).max(axis=1)
    _require(largest > 0, largest, "conserved", "a coefficient other than 0")
    titles = _names(arrays, "conserved_names", len(sums), "sum")
    return {
        title: {name: float(c) for name, c in zip(names, row, strict=True) if c != 0}
        for title, row in zip(titles, sums, strict=True)
    }


def _positive(value: Any, states: np.ndarray, mask: np.ndarray) -> bool:
    flag = np.asarray(value)
    if flag.shape != () or flag.dtype.kind != "b":
        raise InvalidInput(
            "positive",
            found=f"dtype {flag.dtype}, shape {flag.shape}",
            expected="one bool",
        )
    if flag:
        good = ~mask | (states >= 0)
        _require(good, states, "states", "no negative value, as positive is set")
    return bool(flag)
