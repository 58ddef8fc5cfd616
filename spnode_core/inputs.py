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
    start = _finite("x0", x0)
    single = start.ndim == 1
    start = start[None] if single else start
    _expect("x0", start, (None, len(signature.states)), signature.states)
    batch = start.shape[0]
    p = None
    if _wanted("parameters", parameters, signature.parameters):
        p = _finite("parameters", parameters)
        p = jnp.broadcast_to(p, (batch, *p.shape)) if p.ndim == 1 else p
        _expect(
            "parameters", p, (batch, len(signature.parameters)), signature.parameters
        )
    u = None
    if _wanted("controls", controls, signature.controls):
        intervals = () if control_times is None else np.shape(control_times)
        if len(intervals) != 1:
            raise InvalidInput(
                "control_times",
                found=f"shape {intervals}" if intervals else "none",
                expected="the start of each control interval, a list of times",
            )
        u = _finite("controls", controls)
        u = jnp.broadcast_to(u, (batch, *u.shape)) if u.ndim == 2 else u
        expected = (batch, intervals[0], len(signature.controls))
        _expect("controls", u, expected, signature.controls)
    return single, (start, p, u)


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
    if not isinstance(array, Tracer) and not bool(jnp.isfinite(array).all()):
        place = [int(i) for i in np.argwhere(~np.isfinite(np.asarray(array)))[0]]
        raise InvalidInput(
            f"{field}{place}",
            found=repr(float(array[tuple(place)])),
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
