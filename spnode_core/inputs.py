"""Checks and shapes the inputs of a rollout against a surrogate's signature."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature

Inputs = tuple[
    Float[Array, "batch state"],
    Float[Array, "batch parameter"] | None,
    Float[Array, "batch interval control"] | None,
]


def batched_inputs(
    signature: Signature,
    x0: ArrayLike,
    parameters: ArrayLike | None,
    controls: ArrayLike | None,
    control_times: ArrayLike | None,
) -> tuple[bool, Inputs]:
    """Whether there was one row only, and the inputs with a batch axis.

    Raises:
        InvalidInput: An input that is missing, of the wrong shape, or not finite.
    """
    start, p, u = _finite("x0", x0), None, None
    if _wanted("parameters", parameters, signature.parameters):
        p = _finite("parameters", parameters)
    intervals = 1
    if _wanted("controls", controls, signature.controls):
        u = _finite("controls", controls)
        intervals = _intervals(control_times, u)
    # One row of an input goes with all rows of the others.
    rows = [
        each.shape[0]
        for each, rank in ((start, 1), (p, 1), (u, 2))
        if each is not None and each.ndim == rank + 1
    ]
    batch = rows[0] if rows else 1
    known = {
        "x0": (start, (len(signature.states),), signature.states),
        "parameters": (p, (len(signature.parameters),), signature.parameters),
        "controls": (u, (intervals, len(signature.controls)), signature.controls),
    }
    found = []
    for field, (given, shape, names) in known.items():
        array = given
        if array is not None:
            if array.ndim == len(shape):
                array = jnp.broadcast_to(array, (batch, *array.shape))
            _expect(field, array, (None if field == "x0" else batch, *shape), names)
        found.append(array)
    return not rows, (found[0], found[1], found[2])


def _intervals(control_times: ArrayLike | None, controls: Float[Array, "..."]) -> int:
    """How many control intervals there are; one needs no time."""
    if control_times is None and controls.ndim > 1 and controls.shape[-2] == 1:
        return 1
    shape = () if control_times is None else np.shape(control_times)
    if len(shape) != 1:
        raise InvalidInput(
            "control_times",
            found=f"shape {shape}" if shape else "none",
            expected="the start of each control interval, a list of times",
        )
    return shape[0]


def _wanted(field: str, value: object, names: tuple[str, ...]) -> bool:
    if names and value is None:
        raise InvalidInput(field, found="none", expected=f"values of {_list(names)}")
    if not names and value is not None:
        raise InvalidInput(
            field, found="values", expected="none, since the model takes no " + field
        )
    return bool(names)


def _finite(field: str, value: ArrayLike | None) -> Float[Array, "..."]:
    try:
        # JAX would drop the imaginary part with a warning only.
        if np.iscomplexobj(value):  # type: ignore[arg-type]
            raise TypeError("complex numbers")
        array = jnp.asarray(value, jnp.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(field, found=repr(value)[:80], expected="numbers") from error
    if isinstance(array, Tracer):
        return array
    # By NumPy: what is known is not to be traced, where others of the inputs are.
    known = np.asarray(array)
    is_finite = np.isfinite(known)
    if not is_finite.all():
        place = [int(i) for i in np.argwhere(~is_finite)[0]]
        raise InvalidInput(
            f"{field}{place}",
            found=repr(float(known[tuple(place)])),
            expected="a finite number",
        )
    return array


def _expect(
    field: str,
    array: Float[Array, "..."],
    shape: tuple[int | None, ...],
    names: tuple[str, ...],
) -> None:
    fits = array.ndim == len(shape) and all(
        want is None or want == have
        for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("batch" if size is None else str(size) for size in shape)
        raise InvalidInput(
            field,
            found=f"shape {array.shape}",
            expected=f"shape ({sizes}), the last axis being {_list(names)}",
        )


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown}, ... ({len(names)})" if len(names) > 8 else shown
