"""The rollout in the service as JAX primitives: derivatives and batches are requests.

::

    rollout  ──jvp──▶  jvp (linear in tangents)  ──transpose──▶  vjp
    vjp      ──jvp──▶  hvp + vjp of the moved cotangents
    hvp      ──transpose──▶  hvp: the Hessian is symmetric

Batching adds a leading axis to every operand, so ``vmap`` stays one request. What would
need the derivative of a Jacobian-vector product by the inputs (forward over forward) is
refused: ``jax.hessian``, forward over reverse, does the same.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from spnode_client.functions.served import ServedRollout

Make = Callable[[Any, Any], ServedRollout]


def jax_function(make: Make) -> Callable[..., Any]:
    """The function of ``Model.as_jax``.

    Args:
        make: Gives the rollout at some times.
    """

    def rollout(
        x0: Any,
        times: Any,
        *,
        parameters: Any = None,
        controls: Any = None,
        control_times: Any = None,
    ) -> jax.Array:
        function = make(times, control_times)
        given = {"x0": x0, "parameters": parameters, "controls": controls}
        inputs = _broadcast(function, function.ordered(given, "an array"))
        return _rollout_p.bind(*inputs, function=function)[0]

    return rollout


def _broadcast(function: ServedRollout, given: list[Any]) -> list[jax.Array]:
    """Inputs of one dtype and with the same leading axes."""
    arrays = [jnp.asarray(each) for each in given]
    function.check_shapes([each.shape for each in arrays])
    kind = jnp.result_type(float, *arrays)
    ranks = function.ranks
    leads = [each.shape[: each.ndim - k] for each, k in zip(arrays, ranks, strict=True)]
    lead = np.broadcast_shapes(*leads)
    return [
        jnp.broadcast_to(each.astype(kind), (*lead, *each.shape[each.ndim - rank :]))
        for each, rank in zip(arrays, ranks, strict=True)
    ]


def _primitive(
    name: str,
    shapes: Callable[..., list[Any]],
    ask: Callable[..., Sequence[np.ndarray]],
) -> Primitive:
    """A primitive that is a request.

    Args:
        name: Of the primitive.
        shapes: From operands to the arrays that come back, as shapes and dtypes.
        ask: From numpy operands to these arrays.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def asked(*operands: Any, function: ServedRollout) -> tuple[np.ndarray, ...]:
        found = shapes(*operands, function=function)
        answers = ask(function, *(np.asarray(each) for each in operands))
        return tuple(
            np.asarray(each, shape.dtype).reshape(shape.shape)
            for each, shape in zip(answers, found, strict=True)
        )

    def call(*operands: Any, function: ServedRollout) -> list[Any]:
        found = tuple(shapes(*operands, function=function))
        later = functools.partial(asked, function=function)
        return list(jax.pure_callback(later, found, *operands))

    def abstract(*operands: Any, function: ServedRollout) -> list[Any]:
        return [
            ShapedArray(each.shape, each.dtype)
            for each in shapes(*operands, function=function)
        ]

    def batch(
        operands: Sequence[Any], axes: Sequence[Any], *, function: ServedRollout
    ) -> tuple[list[Any], list[int]]:
        pairs = list(zip(operands, axes, strict=True))
        size = next(x.shape[axis] for x, axis in pairs if isinstance(axis, int))
        moved = [
            jnp.moveaxis(each, axis, 0)
            if isinstance(axis, int)
            else jnp.broadcast_to(each, (size, *each.shape))
            for each, axis in pairs
        ]
        found = primitive.bind(*moved, function=function)
        return found, [0] * len(found)

    def now(*operands: Any, function: ServedRollout) -> list[Any]:
        # Outside of compiled code: a callback would be compiled anew for each call.
        return [jnp.asarray(each) for each in asked(*operands, function=function)]

    primitive.def_impl(now)
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(call, multiple_results=True))
    return primitive


def _state_shapes(*operands: Any, function: ServedRollout) -> list[Any]:
    batch = function.batch_shape(operands)
    shape = (*batch, *function.output_shape)
    return [jax.ShapeDtypeStruct(shape, operands[0].dtype)]


def _input_shapes(*operands: Any, function: ServedRollout) -> list[Any]:
    inputs = operands[: len(function.names)]
    return [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in inputs]


def _ask_rollout(function: ServedRollout, *inputs: np.ndarray) -> list[np.ndarray]:
    return [function.rollout(inputs)]


def _ask_jvp(function: ServedRollout, *operands: np.ndarray) -> list[np.ndarray]:
    count = len(function.names)
    return [function.jvp(operands[:count], operands[count:])]


def _ask_vjp(function: ServedRollout, *operands: np.ndarray) -> Sequence[np.ndarray]:
    *inputs, cotangents = operands
    return function.vjp(inputs, cotangents)


def _ask_hvp(function: ServedRollout, *operands: np.ndarray) -> Sequence[np.ndarray]:
    count = len(function.names)
    inputs, cotangents = operands[:count], operands[count]
    return function.hvp(inputs, cotangents, operands[count + 1 :])


_rollout_p = _primitive("spnode_rollout", _state_shapes, _ask_rollout)
_jvp_p = _primitive("spnode_jvp", _state_shapes, _ask_jvp)
_vjp_p = _primitive("spnode_vjp", _input_shapes, _ask_vjp)
_hvp_p = _primitive("spnode_hvp", _input_shapes, _ask_hvp)


def _moved(primals: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Tangents as arrays, zeros where something does not move."""
    return [
        jnp.zeros_like(primal) if type(tangent) is ad.Zero else tangent
        for primal, tangent in zip(primals, tangents, strict=True)
    ]


def _rollout_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: ServedRollout
) -> tuple[list[Any], list[Any]]:
    x = _rollout_p.bind(*primals, function=function)
    moved = _moved(primals, tangents)
    return x, _jvp_p.bind(*primals, *moved, function=function)


def _jvp_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: ServedRollout
) -> tuple[list[Any], list[Any]]:
    count = len(function.names)
    if any(type(each) is not ad.Zero for each in tangents[:count]):
        raise NotImplementedError(
            "the service has no derivative of a forward derivative of a rollout; "
            "jax.hessian, or jacfwd of grad, asks for the same in a way that it has, "
            "and grad of what takes jacrev instead of jacfwd"
        )
    moved = _moved(primals[count:], tangents[count:])
    found = _jvp_p.bind(*primals, function=function)
    return found, _jvp_p.bind(*primals[:count], *moved, function=function)


def _jvp_transpose(
    cotangents: Sequence[Any], *operands: Any, function: ServedRollout
) -> list[Any]:
    count = len(function.names)
    inputs, tangents = operands[:count], operands[count:]
    (weights,) = cotangents
    if type(weights) is ad.Zero:
        return [None] * len(operands)
    gradients = _vjp_p.bind(*inputs, weights, function=function)
    return [None] * count + _wanted(tangents, gradients)


def _vjp_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: ServedRollout
) -> tuple[list[Any], list[Any]]:
    *inputs, weights = primals
    *moved, moved_weights = tangents
    found = _vjp_p.bind(*primals, function=function)
    parts = []
    if type(moved_weights) is not ad.Zero:
        parts.append(_vjp_p.bind(*inputs, moved_weights, function=function))
    if any(type(each) is not ad.Zero for each in moved):
        along = _moved(inputs, moved)
        parts.append(_hvp_p.bind(*inputs, weights, *along, function=function))
    changes = [sum(each[1:], each[0]) for each in zip(*parts, strict=True)]
    return found, changes


def _vjp_transpose(
    cotangents: Sequence[Any], *operands: Any, function: ServedRollout
) -> list[Any]:
    """Of ``w -> J^T w``: ``u -> J u``."""
    *inputs, _ = operands
    if all(type(each) is ad.Zero for each in cotangents):
        return [None] * len(operands)
    along = _moved(inputs, cotangents)
    return [None] * len(inputs) + _jvp_p.bind(*inputs, *along, function=function)


def _hvp_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, function: ServedRollout
) -> tuple[list[Any], list[Any]]:
    count = len(function.names) + 1
    if any(type(each) is not ad.Zero for each in tangents[:count]):
        raise NotImplementedError("the service has no third derivatives of a rollout")
    moved = _moved(primals[count:], tangents[count:])
    found = _hvp_p.bind(*primals, function=function)
    return found, _hvp_p.bind(*primals[:count], *moved, function=function)


def _hvp_transpose(
    cotangents: Sequence[Any], *operands: Any, function: ServedRollout
) -> list[Any]:
    count = len(function.names)
    inputs, weights = operands[:count], operands[count]
    if all(type(each) is ad.Zero for each in cotangents):
        return [None] * len(operands)
    along = _moved(inputs, cotangents)
    products = _hvp_p.bind(*inputs, weights, *along, function=function)
    return [None] * (count + 1) + _wanted(operands[count + 1 :], products)


def _wanted(operands: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    """Cotangents of those operands that are linear ones."""
    return [
        value if ad.is_undefined_primal(operand) else None
        for operand, value in zip(operands, found, strict=True)
    ]


ad.primitive_jvps[_rollout_p] = _rollout_jvp
ad.primitive_jvps[_jvp_p] = _jvp_jvp
ad.primitive_jvps[_vjp_p] = _vjp_jvp
ad.primitive_jvps[_hvp_p] = _hvp_jvp
ad.primitive_transposes[_jvp_p] = _jvp_transpose
ad.primitive_transposes[_vjp_p] = _vjp_transpose
ad.primitive_transposes[_hvp_p] = _hvp_transpose
