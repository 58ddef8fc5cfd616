"""A request made to fit a model: full shapes, checked values, ready to be gathered.

Rows of several requests share a device call only where everything but the rows is the
same, so the batching key holds the bytes of the output times and of the control times.
That is the simplest rule that is right: callers that ask for the model's own times, or
for one set of times, are gathered; others run on their own. No JAX here.
"""

import numpy as np

from services.rollouts.directions import (
    check_count,
    cotangents_by_row,
    count_tangents,
    repeated,
    tangents_by_row,
)
from services.rollouts.jacobian import Columns
from services.rollouts.objective import objective_rows
from services.rollouts.request import DIFFERENTIABLE, RANK, Arrays, Request
from services.rollouts.served import Served
from services.rollouts.sweep import Grid, unrolled
from services.rollouts.times import control_times, output_times
from services.rollouts.uncertainty import coverage_of, spread_of
from services.rollouts.wire import JacobianOptions
from services.rollouts.work import USUAL, Layout, Limits, Variant, Work
from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature

# Most requests differ from others in the values of their rows alone: so many kinds are
# known of each version, with times of up to this many bytes.
_REMEMBERED = 32
_REMEMBERED_BYTES = 4096
_NONE = np.empty(0)


def canonical(request: Request, served: Served, limits: Limits) -> tuple[Work, Layout]:
    """Check a request against a version and give its rows their full shapes.

    Raises:
        InvalidInput: A shape, a name or a value that the version does not take.
    """
    if (sweep := request.options.sweep) is not None:
        request, grid = unrolled(request, sweep, served.signature, limits.rows)
        return _planned(request, served, limits, grid)
    given = [request.arrays.get(name, _NONE) for name in ("times", "control_times")]
    if sum(array.nbytes for array in given) > _REMEMBERED_BYTES:
        return _planned(request, served, limits)
    asked = (limits, *_asked(request, *given))
    known = served.known.get(asked)
    if known is None:
        work, layout = _planned(request, served, limits)
        named = 8 * len(layout.states or ())
        if layout.times.nbytes + named <= _REMEMBERED_BYTES:
            if len(served.known) >= _REMEMBERED:
                del served.known[next(iter(served.known))]
            # Without the version, which would never be let go of by itself.
            served.known[asked] = work.of({}), layout
        return work, layout
    work, layout = known
    rows = _rows(request, layout, served.signature)[1]
    return work.of(rows, served), layout


def _asked(request: Request, times: np.ndarray, switches: np.ndarray) -> tuple:
    """All that the layout of a request depends on: all but the values of its rows."""
    options, arrays = request.options, request.arrays
    outputs = options.outputs
    return (
        times.tobytes(),
        None if request.times is None else tuple(request.times.__dict__.items()),
        switches.tobytes(),
        request.operation,
        options.mode,
        options.precision,
        options.intervals,
        options.spread,
        tuple(options.inputs or ()) if isinstance(options, JacobianOptions) else None,
        outputs.times,
        outputs.latent,
        None if outputs.states is None else tuple(outputs.states),
        tuple([(name, array.shape) for name, array in arrays.items()]),
    )


def _planned(
    request: Request, served: Served, limits: Limits, grid: Grid | None = None
) -> tuple[Work, Layout]:
    """The same for a request that no other was like."""
    signature = served.signature
    arrays = request.arrays
    times = output_times(request, limits.times)
    final = request.options.outputs.times == "final"
    switches = control_times(arrays, signature)
    ranks = {name: arrays[name].ndim for name in DIFFERENTIABLE if name in arrays}
    _check_shapes(arrays, signature, switches)
    batched, count = _count_rows(arrays)
    values = count * (1 if final else len(times)) * len(signature.states)
    coverage = coverage_of(request, signature)
    spread = spread_of(request, signature)
    # Numbers for each: itself, two ends of an interval, a spread.
    each = 1 + 2 * (coverage is not None) + spread
    _check_limits(count, each * values, limits)
    states = _states(request, signature)
    directions = _directions(request, batched, final, values, limits)
    columns = _columns(request, served, len(times), states, arrays)
    if columns is not None:
        columns.check(count, limits.output_values)
    layout = Layout(
        batched,
        count,
        ranks,
        times,
        final,
        states,
        directions,
        columns,
        grid,
        coverage,
        spread,
    )
    operation, rows = _rows(request, layout, signature)
    shared = {"times": times[-1:] if final else times}
    if switches is not None:
        shared["control_times"] = switches
    work = Work(
        operation,
        served.digest,
        rows,
        shared,
        count * layout.repeats,
        _variant(request, served),
        signature.members,
        served,
    )
    return work, layout


def _rows(request: Request, layout: Layout, signature: Signature) -> tuple[str, Arrays]:
    """What executors are to compute, and the rows for it."""
    arrays, count = request.arrays, layout.count
    rows = {name: repeated(arrays[name], RANK[name], count) for name in layout.ranks}
    return _completed(request, layout, signature, rows, count)


def _completed(
    request: Request, layout: Layout, signature: Signature, rows: Arrays, count: int
) -> tuple[str, Arrays]:
    """What executors are to compute, with all the rows that it takes."""
    operation = request.operation
    if request.options.outputs.latent:
        if operation != "rollout":
            raise InvalidInput(
                "outputs.latent",
                found="true",
                expected="false: derivatives are those of the states",
            )
        if signature.members > 1:
            raise InvalidInput(
                "outputs.latent",
                found="true",
                expected=f"false: this version has {signature.members} members, each "
                "with latent states of its own",
            )
        return "latent", rows
    width = len(signature.states)
    kept = width if layout.states is None else len(layout.states)
    shape = (kept,) if layout.final else (len(layout.times), kept)
    if operation == "objective":
        return operation, rows | objective_rows(
            request, shape, count, layout.states, width
        )
    if layout.columns is not None:
        reverse = layout.columns.is_reverse
        return "vjp" if reverse else "jvp", layout.columns.rows(rows, count)
    if operation in ("jvp", "hvp"):
        rows |= tangents_by_row(request.arrays, layout.leading, count)
    if operation in ("vjp", "hvp"):
        many = layout.leading if operation == "vjp" else ()
        whole = (count, *shape) if layout.batched else shape
        cotangents = cotangents_by_row(
            request.arrays["cotangents"], many, whole, count, layout.states, width
        )
        rows["cotangents"] = cotangents if operation == "vjp" else cotangents[:, 0]
    return operation, rows


def _columns(
    request: Request,
    served: Served,
    times: int,
    states: list[int] | None,
    arrays: Arrays,
) -> Columns | None:
    if request.operation != "jacobian":
        return None
    options = request.options
    asked = options.inputs if isinstance(options, JacobianOptions) else None
    given = [name for name in DIFFERENTIABLE if name in arrays]
    for place, name in enumerate(asked or ()):
        if name not in given:
            raise InvalidInput(
                f"inputs[{place}]",
                found=repr(name),
                expected=f"inputs of this version: {', '.join(given)}",
            )
    shapes = {
        name: arrays[name].shape[-RANK[name] :]
        for name in given
        if asked is None or name in asked
    }
    if options.outputs.times == "final":
        times = 1
    return Columns(shapes, times, states, len(served.signature.states))


def _variant(request: Request, served: Served) -> Variant:
    options = request.options
    # A version whose networks are in float64 already runs with everybody's batches.
    double = options.precision == "float64" and served.spec.precision != "float64"
    throughput = options.mode == "throughput"
    return Variant(throughput, double) if throughput or double else USUAL


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
    rank = RANK[field]
    wanted = f"{len(names)} {noun} in the order {', '.join(names)}"
    has_axes = array.ndim in (rank, rank + 1)
    if not has_axes or array.size == 0:
        expected = wanted
        if has_axes and array.shape[-1] == len(names):
            is_of_rows = array.ndim > rank and array.shape[0] == 0
            expected = f"at least one {'row' if is_of_rows else 'interval'} of {wanted}"
        elif field == "controls":
            expected = f"(interval, {len(names)}), for each interval {wanted}"
        raise InvalidInput(
            field, found=f"an array of shape {array.shape}", expected=expected
        )
    if array.shape[-1] != len(names):
        place = field + "[0]" * (array.ndim - 1)
        raise InvalidInput(place, found=f"{array.shape[-1]} numbers", expected=wanted)


def _count_rows(arrays: Arrays) -> tuple[bool, int]:
    counts = {
        name: len(arrays[name])
        for name in DIFFERENTIABLE
        if name in arrays and arrays[name].ndim > RANK[name]
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


def _directions(
    request: Request, batched: bool, final: bool, values: int, limits: Limits
) -> int | None:
    """Length of the leading axis of directions or cotangents, None without one."""
    arrays, found, field = request.arrays, None, "tangents"
    if request.operation in ("jvp", "hvp"):
        found = count_tangents(arrays)
    elif request.operation == "vjp":
        given, field = arrays["cotangents"], "cotangents"
        found = len(given) if given.ndim > 1 + batched + (not final) else None
    if found is not None:
        check_count(field, found, values, limits.output_values)
    return found
