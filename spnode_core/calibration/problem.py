"""What was observed, what is known and what is to be found, checked against a model.

All inputs of a rollout form one vector, ``(x0, parameters, controls)``; an unknown is a
place in it. Nothing here imports JAX: a gateway checks requests with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature, UnknownSpec, UnknownsSpec
from spnode_core.timegrid import check_times

Floats = NDArray[np.float64]
FIELDS = ("x0", "parameters", "controls")


@dataclass(frozen=True)
class Unknown:
    """One number that is to be found.

    Args:
        field: ``x0``, ``parameters`` or ``controls``.
        name: The model's name for it.
        interval: Which interval of the controls it belongs to, from 0; else None.
        place: Its place in the vector of all inputs.
        spec: Bounds, start and prior.
    """

    field: str
    name: str
    interval: int | None
    place: int
    spec: UnknownSpec

    @property
    def label(self) -> str:
        """How people refer to it, e.g. ``parameters.k1`` or ``controls.u[2]``."""
        part = "" if self.interval is None else f"[{self.interval}]"
        return f"{self.field}.{self.name}{part}"


@dataclass(frozen=True)
class Problem:
    """A calibration that fits its model.

    Args:
        signature: Of the model.
        times: ``(time,)``, increasing, from the start of the rollout.
        states: Indices of the observed states.
        observations: ``(time, observed)``, NaN where there is none.
        noise: Standard deviation of each observation, of their shape, or None where
            it is to be found too.
        model_error: Standard deviation of the model's own error, ``(observed,)``.
        known: All inputs, NaN where unknown.
        control_times: Start of each control interval, or None without controls.
        unknowns: What is to be found.
    """

    signature: Signature
    times: Floats
    states: tuple[int, ...]
    observations: Floats
    noise: Floats | None
    model_error: Floats
    known: Floats
    control_times: Floats | None
    unknowns: tuple[Unknown, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the observed states."""
        return tuple(self.signature.states[i] for i in self.states)

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """Where there is an observation, ``(time, observed)``."""
        return np.isfinite(self.observations)

    @property
    def places(self) -> NDArray[np.int32]:
        """Places of the unknowns among the inputs."""
        return np.array([each.place for each in self.unknowns], np.int32)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of states, parameters and control intervals."""
        intervals = 1 if self.control_times is None else len(self.control_times)
        return len(self.signature.states), len(self.signature.parameters), intervals

    def inputs(self, values: Floats) -> dict[str, Floats]:
        """Inputs of rollouts with these values of the unknowns.

        Args:
            values: ``(row, unknown)``.

        Returns:
            ``x0`` and, where the model takes them, ``parameters`` and ``controls``,
            each with a leading axis of rows.
        """
        rows = np.tile(self.known, (len(values), 1))
        rows[:, self.places] = values
        states, parameters, intervals = self.sizes
        x0, p, u = np.split(rows, [states, states + parameters], axis=1)
        found = {"x0": x0}
        if self.signature.parameters:
            found["parameters"] = p
        if self.signature.controls:
            found["controls"] = u.reshape(len(values), intervals, -1)
        return found


def pose(
    signature: Signature,
    times: ArrayLike,
    observations: ArrayLike,
    unknowns: UnknownsSpec | Mapping[str, Any],
    *,
    states: Sequence[str] | None = None,
    noise: ArrayLike | None = None,
    model_error: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    parameters: ArrayLike | None = None,
    controls: ArrayLike | None = None,
    control_times: ArrayLike | None = None,
) -> Problem:
    """Check a calibration against a model; the arguments are those of ``calibrate``.

    Raises:
        InvalidInput: What cannot be used, where, and what belongs there.
    """
    asked = _asked(unknowns)
    when = check_times(times)
    if when.ndim != 1:
        raise InvalidInput("times", found=f"shape {when.shape}", expected="(time,)")
    columns = _columns(signature, states)
    y = _numbers("observations", observations, gaps=True)
    if y.shape != (len(when), len(columns)):
        raise InvalidInput(
            "observations",
            found=f"shape {y.shape}",
            expected=f"({len(when)}, {len(columns)}): a row a time, a column a state",
        )
    seen = np.isfinite(y)
    if not seen.any():
        raise InvalidInput("observations", found="none", expected="at least one")
    switches = _control_times(signature, control_times)
    known, found = _inputs(signature, asked, (x0, parameters, controls), switches)
    sd = None if noise is None else _noise(noise, seen)
    _check_noise_unknown(sd, model_error, found, seen)
    error = np.zeros(len(columns))
    if model_error is not None:
        error = _numbers("model_error", model_error)
        if error.shape != (len(columns),) or (error < 0).any():
            raise InvalidInput(
                "model_error",
                found=f"{error.tolist()}"[:80],
                expected=f"a standard deviation of at least 0 for each of "
                f"{len(columns)} states",
            )
    return Problem(signature, when, columns, y, sd, error, known, switches, found)


def _asked(unknowns: UnknownsSpec | Mapping[str, Any]) -> UnknownsSpec:
    if isinstance(unknowns, UnknownsSpec):
        return unknowns
    try:
        return UnknownsSpec.model_validate(unknowns)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(
            ".".join(["unknowns", *map(str, first["loc"])]),
            found=repr(first["input"])[:80],
            expected=said.rpartition("; expected ")[2],
        ) from error


def _columns(signature: Signature, states: Sequence[str] | None) -> tuple[int, ...]:
    if states is None:
        return tuple(range(len(signature.states)))
    for i, name in enumerate(states):
        if name not in signature.states or name in states[:i]:
            raise InvalidInput(
                f"states[{i}]",
                found=repr(name) + (" again" if name in signature.states else ""),
                expected=f"one of {', '.join(signature.states[:20])}, each once",
            )
    return tuple(signature.states.index(name) for name in states)


def _control_times(
    signature: Signature, control_times: ArrayLike | None
) -> Floats | None:
    if control_times is None:
        # Of one interval there is nothing to say.
        return np.zeros(1) if signature.controls else None
    if not signature.controls:
        raise InvalidInput(
            "control_times",
            found="times",
            expected="nothing, since the model takes no controls",
        )
    switches = check_times(control_times, "control_times")
    if switches.ndim != 1 or switches[0] != 0 or (np.diff(switches) == 0).any():
        raise InvalidInput(
            "control_times",
            found=f"{switches.tolist()}"[:80],
            expected="increasing times, the first 0",
        )
    return switches


def _inputs(
    signature: Signature,
    unknowns: UnknownsSpec,
    given: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
    switches: Floats | None,
) -> tuple[Floats, tuple[Unknown, ...]]:
    """All inputs as one vector, and what in it is unknown."""
    intervals = 0 if switches is None else len(switches)
    shapes = {
        "x0": (len(signature.states),),
        "parameters": (len(signature.parameters),),
        "controls": (intervals, len(signature.controls)),
    }
    names = (signature.states, signature.parameters, signature.controls)
    known, found, begin = [], [], 0
    for field, own, values in zip(FIELDS, names, given, strict=True):
        shape = shapes[field]
        array = np.full(shape, np.nan)
        if values is not None:
            array = _numbers(field, values, gaps=True).copy()
            if array.shape != shape:
                raise InvalidInput(
                    field, found=f"shape {array.shape}", expected=f"shape {shape}"
                )
        for name, spec in getattr(unknowns, field).items():
            if name not in own:
                raise InvalidInput(
                    f"unknowns.{field}.{name}",
                    found="a name that the model has not",
                    expected=f"one of {', '.join(own[:20])}" if own else "nothing",
                )
            column = own.index(name)
            places = np.arange(array.size).reshape(shape)[..., column].ravel()
            array[..., column] = np.nan
            for i, place in enumerate(places.tolist()):
                interval = i if field == "controls" else None
                found.append(Unknown(field, name, interval, begin + place, spec))
        begin += array.size
        known.append(array)
    _check_known(known, found)
    return np.concatenate([each.ravel() for each in known]), tuple(found)


def _check_known(known: list[Floats], found: list[Unknown]) -> None:
    """Each input is either given or unknown."""
    unknown, begin = {each.place for each in found}, 0
    for field, array in zip(FIELDS, known, strict=True):
        for place in np.argwhere(np.isnan(array)).tolist():
            flat = int(np.ravel_multi_index(place, array.shape))
            if begin + flat not in unknown:
                raise InvalidInput(
                    f"{field}[{', '.join(map(str, place))}]",
                    found="nothing",
                    expected=f"its value, or its bounds in unknowns.{field}",
                )
        begin += array.size


def _noise(noise: ArrayLike, seen: NDArray[np.bool_]) -> Floats:
    sd = _numbers("noise", noise, gaps=True)
    if sd.shape not in (seen.shape[1:], seen.shape):
        raise InvalidInput(
            "noise",
            found=f"shape {sd.shape}",
            expected=f"shape {seen.shape[1:]}, one a state, or {seen.shape}, that of "
            "the observations",
        )
    spread = np.broadcast_to(sd, seen.shape)
    bad = seen & ~(spread > 0)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()[-sd.ndim :]
        raise InvalidInput(
            f"noise[{', '.join(map(str, place))}]",
            found=repr(float(sd[tuple(place)])),
            expected="a standard deviation above 0",
        )
    return np.where(seen, spread, 1.0)


def _check_noise_unknown(
    noise: Floats | None,
    model_error: ArrayLike | None,
    unknowns: tuple[Unknown, ...],
    seen: NDArray[np.bool_],
) -> None:
    """What makes sense only where the noise is known."""
    if noise is not None:
        return
    if any(each.spec.prior for each in unknowns):
        raise InvalidInput(
            "noise",
            found="nothing, beside a prior",
            expected="standard deviations, without which a prior has no weight",
        )
    if model_error is not None and np.any(model_error):
        raise InvalidInput(
            "model_error",
            found="it, without noise",
            expected="0: where the noise is estimated it holds the model's error too",
        )
    if seen.sum() <= len(unknowns):
        raise InvalidInput(
            "noise",
            found=f"nothing, with {seen.sum()} observations of {len(unknowns)} "
            "unknowns",
            expected="standard deviations, or more observations than unknowns",
        )


def _numbers(field: str, values: ArrayLike, *, gaps: bool = False) -> Floats:
    """An array; with ``gaps``, None and NaN stand for what is missing."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            field, found=repr(values)[:80], expected="an array of numbers"
        ) from error
    bad = np.isinf(array) if gaps else ~np.isfinite(array)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise InvalidInput(
            f"{field}[{', '.join(map(str, place))}]",
            found=repr(float(array[tuple(place)])),
            expected="a finite number",
        )
    return array
