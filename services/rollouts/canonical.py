"""A request made to fit a model: full shapes, checked values, ready to be gathered.

Rows of several requests share a device call only where everything but the rows is the
same, so the batching key holds the bytes of the output times and of the control times.
That is the simplest rule that is right: callers that ask for the model's own times, or
for one set of times, are gathered; others run on their own. No JAX here.
"""

import functools
from dataclasses import dataclass

import numpy as np

from services.rollouts.request import DIFFERENTIABLE, Arrays, Request
from services.rollouts.served import Served
from services.rollouts.times import control_times, output_times
from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    rows: int
    times: int
    output_values: int


@dataclass(frozen=True)
class Variant:
    """How a batch is computed, where there is a choice; part of the batching key.

    Args:
        throughput: Large tiles: more rows a second, and a row's bits then depend on the
            size of its batch.
        double: Networks in float64, whatever dtype their weights were stored in.
    """

    throughput: bool = False
    double: bool = False


USUAL = Variant()
"""Fixed tiles, networks in their own dtype."""


@dataclass(frozen=True)
class Work:
    """One request in the form that executors take.

    Args:
        operation: ``rollout``, ``latent``, ``jvp`` or ``vjp``.
        digest: The artifact to run.
        rows: Arrays with a leading axis of rows.
        shared: Arrays that every row shares: ``times``, ``control_times``.
        count: Number of rows.
        variant: How they are computed.
    """

    operation: str
    digest: str
    rows: Arrays
    shared: Arrays
    count: int
    variant: Variant = USUAL

    @functools.cached_property
    def key(self) -> tuple:
        """What must be equal for rows of two requests to run in one batch."""
        return (
            self.digest,
            self.operation,
            self.variant,
            *((name, array.tobytes()) for name, array in sorted(self.shared.items())),
            *((name, array.shape[1:]) for name, array in sorted(self.rows.items())),
        )


@dataclass(frozen=True)
class Layout:
    """How the answer to a request is shaped.

    Args:
        batched: Whether ``x`` has an axis of rows.
        ranks: Number of axes that each input had when it was given.
        times: The output times.
        final: Whether only the last time is returned, without its axis.
        states: Indices of the states to return, None for all.
        directions: Length of the leading axis of tangents or cotangents, None without
            one.
    """

    batched: bool
    ranks: dict[str, int]
    times: np.ndarray
    final: bool
    states: list[int] | None
    directions: int | None = None

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of that axis."""
        return () if self.directions is None else (self.directions,)


def canonical(request: Request, served: Served, limits: Limits) -> tuple[Work, Layout]:
    """Check a request against a version and give its rows their full shapes.

    Raises:
        InvalidInput: A shape, a name or a value that the version does not take.
    """
    signature = served.signature
    arrays = dict(request.arrays)
    times = output_times(request, limits.times)
    final = request.options.outputs.times == "final"
    switches = control_times(arrays, signature)
    ranks = {name: arrays[name].ndim for name in DIFFERENTIABLE if name in arrays}
    _check_shapes(arrays, signature, switches)
    batched, count = _count_rows(arrays)
    values = count * (1 if final else len(times)) * len(signature.states)
    _check_limits(count, values, limits)
    states = _states(request, signature)
    directions = _directions(request, batched, final)
    if directions is not None:
        _check_directions(request, directions, values, limits)
    layout = Layout(batched, ranks, times, final, states, directions)
    rows = {
        name: _spread(arrays[name], _rank(name), count) for name in ranks
    } | _derivatives(request, layout, signature, count)
    shared = {"times": times[-1:] if final else times}
    if switches is not None:
        shared["control_times"] = switches
    operation = request.operation
    if request.options.outputs.latent:
        if operation != "rollout":
            raise InvalidInput(
                "outputs.latent",
                found="true",
                expected="false: derivatives are those of the states",
            )
        operation = "latent"
    variant = _variant(request, served)
    return Work(operation, served.digest, rows, shared, count, variant), layout


def _variant(request: Request, served: Served) -> Variant:
    options = request.options
    # A version whose networks are in float64 already runs with everybody's batches.
    stored = served.spec.precision
    return Variant(
        throughput=options.mode == "throughput",
        double=options.precision == "float64" and stored != "float64",
    )


def _check_shapes(
    arrays: Arrays, signature: Signature, switches: np.ndarray | None
) -> None:
    names = {
        "x0": ("states", signature.states),
        "parameters": ("parameters", signature.parameters),
        "controls": ("controls", signature.controls),
    }
    for field, (noun, expected) in names.items():
        array = arrays.get(field)
        if array is None:
            if expected:
                raise InvalidInput(
                    field,
                    found="nothing",
                    expected=f"{len(expected)} {noun}: {', '.join(expected)}",
                )
            continue
        if not expected:
            raise InvalidInput(
                field,
                found=f"an array of shape {array.shape}",
                expected=f"none: this version takes no {noun}",
            )
        _check_axes(field, array, noun, expected)
    controls = arrays.get("controls")
    if switches is None or controls is None:
        return
    if controls.shape[-2] != len(switches):
        raise InvalidInput(
            "controls",
            found=f"{controls.shape[-2]} values in time",
            expected=f"{len(switches)}, one for each of control_times",
        )


def _check_axes(
    field: str, array: np.ndarray, noun: str, names: tuple[str, ...]
) -> None:
    rank = _rank(field)
    wanted = f"{len(names)} {noun} in the order {', '.join(names)}"
    if array.ndim not in (rank, rank + 1) or array.size == 0:
        raise InvalidInput(
            field, found=f"an array of shape {array.shape}", expected=wanted
        )
    if array.shape[-1] != len(names):
        place = field + "[0]" * (array.ndim - 1)
        raise InvalidInput(place, found=f"{array.shape[-1]} numbers", expected=wanted)


def _rank(field: str) -> int:
    return 2 if field == "controls" else 1


def _count_rows(arrays: Arrays) -> tuple[bool, int]:
    counts = {
        name: len(arrays[name])
        for name in DIFFERENTIABLE
        if name in arrays and arrays[name].ndim > _rank(name)
    }
    if len(set(counts.values())) > 1:
        first, *others = counts
        other = next(name for name in others if counts[name] != counts[first])
        raise InvalidInput(
            other,
            found=f"{counts[other]} rows",
            expected=f"{counts[first]}, as in {first}, or one for all rows",
        )
    return bool(counts), max(counts.values(), default=1)


def _check_limits(rows: int, values: int, limits: Limits) -> None:
    if rows > limits.rows:
        raise InvalidInput(
            "x0", found=f"{rows} rows", expected=f"at most {limits.rows} in a request"
        )
    if values > limits.output_values:
        raise InvalidInput(
            "x0",
            found=f"an answer of {values} numbers (rows x times x states)",
            expected=f"at most {limits.output_values}; ask for fewer rows or times",
        )


def _states(request: Request, signature: Signature) -> list[int] | None:
    wanted = request.options.outputs.states
    if wanted is None:
        return None
    known = {name: index for index, name in enumerate(signature.states)}
    for place, name in enumerate(wanted):
        if name not in known:
            raise InvalidInput(
                f"outputs.states[{place}]",
                found=repr(name),
                expected=f"one of {', '.join(signature.states)}",
            )
    return [known[name] for name in wanted]


def _spread(array: np.ndarray, rank: int, count: int) -> np.ndarray:
    if array.ndim == rank:
        return np.ascontiguousarray(np.broadcast_to(array, (count, *array.shape)))
    return array


def _directions(request: Request, batched: bool, final: bool) -> int | None:
    """Length of the leading axis of directions or cotangents, None without one."""
    arrays = request.arrays
    if request.operation == "vjp":
        given = arrays["cotangents"]
        many = given.ndim > 1 + batched + (not final)
        return len(given) if many else None
    if request.operation != "jvp":
        return None
    for name in DIFFERENTIABLE:
        tangent = arrays.get(f"tangents.{name}")
        if tangent is not None and name in arrays:
            return len(tangent) if tangent.ndim > arrays[name].ndim else None
    if any(name.startswith("tangents.") for name in arrays):
        return None
    raise InvalidInput(
        "tangents",
        found="nothing",
        expected=f"a direction of at least one of {', '.join(DIFFERENTIABLE)}",
    )


def _check_directions(request: Request, k: int, values: int, limits: Limits) -> None:
    values *= k
    if k == 0 or values > limits.output_values:
        raise InvalidInput(
            "cotangents" if request.operation == "vjp" else "tangents",
            found=f"{k} of them: {values} numbers (k x rows x times x states)",
            expected=f"at least one, and at most {limits.output_values} numbers",
        )


def _derivatives(
    request: Request, layout: Layout, signature: Signature, count: int
) -> Arrays:
    if request.operation == "jvp":
        return _tangents(request.arrays, layout, count)
    if request.operation == "vjp":
        return {"cotangents": _cotangents(request.arrays, layout, signature, count)}
    return {}


def _tangents(arrays: Arrays, layout: Layout, count: int) -> Arrays:
    """By row, then by direction: ``(row, k, ...)``; zero for an input without one."""
    leading = layout.leading
    found: Arrays = {}
    for name in DIFFERENTIABLE:
        tangent = arrays.get(f"tangents.{name}")
        if tangent is None:
            if name in arrays:
                shape = arrays[name].shape[-_rank(name) :]
                found[f"tangents.{name}"] = np.zeros(
                    (count, *(leading or (1,)), *shape)
                )
            continue
        if name not in arrays or tangent.shape != (*leading, *arrays[name].shape):
            shape = (*leading, *arrays[name].shape) if name in arrays else "nothing"
            raise InvalidInput(
                f"tangents.{name}",
                found=f"an array of shape {tangent.shape}",
                expected=f"the shape of {name}, {shape}",
            )
        each = tangent if leading else tangent[None]
        rows = [_spread(direction, _rank(name), count) for direction in each]
        found[f"tangents.{name}"] = np.stack(rows, axis=1)
    return found


def _cotangents(
    arrays: Arrays, layout: Layout, signature: Signature, count: int
) -> np.ndarray:
    """Those of the whole ``x``, ``(row, k, time, state)``; zero for other states."""
    given = arrays["cotangents"]
    times = 1 if layout.final else len(layout.times)
    width = len(signature.states if layout.states is None else layout.states)
    expected = (
        *layout.leading,
        *((count,) if layout.batched else ()),
        *(() if layout.final else (times,)),
        width,
    )
    if given.shape != expected:
        raise InvalidInput(
            "cotangents",
            found=f"an array of shape {given.shape}",
            expected=f"the shape of the answer's x, {expected}",
        )
    full = given.reshape(-1, count, times, width).swapaxes(0, 1)
    if layout.states is None:
        return np.ascontiguousarray(full)
    spread = np.zeros((*full.shape[:-1], len(signature.states)))
    for place, state in enumerate(layout.states):
        spread[..., state] += full[..., place]
    return spread
