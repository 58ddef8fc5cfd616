"""The rollout in the service as a torch function, twice differentiable.

::

    _Rollout   x(inputs)            backward: _Pullback        forward mode: J v
    _Pullback  J^T w                backward: hvp by the inputs, J u by the weights
    _Push      J v                  _Curve    H(w) v             neither has another

Tensors of any device and dtype come in; they travel as float64 from the CPU.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from spnode_client.arrays import real_floats
from spnode_client.functions.served import ServedRollout

Make = Callable[[Any, Any], ServedRollout]


def torch_function(make: Make) -> Callable[..., Any]:
    """The function of ``Model.as_torch``.

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
    ) -> torch.Tensor:
        switches = _times("control_times", control_times)
        function = make(_times("times", times), switches)
        given = {"x0": x0, "parameters": parameters, "controls": controls}
        inputs = _broadcast(function, function.ordered(given, "a tensor"))
        return _Rollout.apply(function, *inputs)

    # A request is not to be traced, nor what makes it.
    return torch.compiler.disable(rollout)


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(function: ServedRollout, *inputs: torch.Tensor) -> torch.Tensor:
        return _tensor(function.rollout(_arrays(inputs)), inputs[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *weights: torch.Tensor) -> Any:
        return (None, *_Pullback.apply(ctx.function, weights[0], *ctx.saved_tensors))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> torch.Tensor:
        inputs = ctx.saved_tensors
        return _Push.apply(ctx.function, *inputs, *_filled(tangents, inputs))

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: ServedRollout, *tensors: Any) -> Any:
        return _Rollout.apply(function, *_rows(info, in_dims, tensors)), 0


class _Push(torch.autograd.Function):
    @staticmethod
    def forward(function: ServedRollout, *tensors: torch.Tensor) -> torch.Tensor:
        count = len(function.names)
        inputs, moved = _arrays(tensors[:count]), _arrays(tensors[count:])
        return _tensor(function.jvp(inputs, moved), tensors[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        """Nothing is kept: it has no derivative."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: ServedRollout, *tensors: Any) -> Any:
        return _Push.apply(function, *_rows(info, in_dims, tensors)), 0


class _Pullback(torch.autograd.Function):
    @staticmethod
    def forward(
        function: ServedRollout, weights: torch.Tensor, *inputs: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        gradients = function.vjp(_arrays(inputs), _arrays([weights])[0])
        return tuple(map(_tensor, gradients, inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)

        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *along: torch.Tensor | None) -> Any:
        function, (weights, *inputs) = ctx.function, ctx.saved_tensors
        moved = _filled(along, inputs)
        by_weights = by_inputs = None
        if ctx.needs_input_grad[1]:
            by_weights = _Push.apply(function, *inputs, *moved)
        if any(ctx.needs_input_grad[2:]):
            by_inputs = _Curve.apply(function, weights, *inputs, *moved)
        return (None, by_weights, *(by_inputs or (None,) * len(inputs)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> Any:
        function, (weights, *inputs) = ctx.function, ctx.saved_tensors
        moved_weights, *moved = tangents
        parts = []
        if moved_weights is not None:
            parts.append(_Pullback.apply(function, moved_weights, *inputs))
        if any(each is not None for each in moved):
            along = _filled(moved, inputs)
            parts.append(_Curve.apply(function, weights, *inputs, *along))
        return tuple(sum(each[1:], each[0]) for each in zip(*parts, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: ServedRollout, *tensors: Any) -> Any:
        found = _Pullback.apply(function, *_rows(info, in_dims, tensors))
        return found, (0,) * len(found)


class _Curve(torch.autograd.Function):
    @staticmethod
    def forward(
        function: ServedRollout, weights: torch.Tensor, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        count = len(function.names)
        inputs, moved = _arrays(tensors[:count]), _arrays(tensors[count:])
        products = function.hvp(inputs, _arrays([weights])[0], moved)
        return tuple(map(_tensor, products, tensors[:count]))

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        """Nothing is kept: it has no derivative."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: ServedRollout, *tensors: Any) -> Any:
        found = _Curve.apply(function, *_rows(info, in_dims, tensors))
        return found, (0,) * len(found)


def _rows(info: Any, in_dims: Sequence[Any], tensors: Sequence[Any]) -> list[Any]:
    """Tensors with the axis of ``vmap`` in front: its rows are those of a request."""
    return [
        each.expand(info.batch_size, *each.shape)
        if axis is None
        else each.movedim(axis, 0)
        for each, axis in zip(tensors, in_dims[1:], strict=True)
    ]


def _filled(given: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    pairs = zip(given, like, strict=True)
    return [torch.zeros_like(b) if a is None else a for a, b in pairs]


def _broadcast(function: ServedRollout, given: list[Any]) -> list[torch.Tensor]:
    """Inputs of one dtype and with the same leading axes."""
    kinds = [torch.as_tensor(each).dtype for each in given if _has_dtype(each)]
    floating = [kind for kind in kinds if kind.is_floating_point]
    default = torch.get_default_dtype()
    kind = functools.reduce(torch.promote_types, floating) if floating else default
    # Numbers in lists are float64 until the others' dtype is known.
    tensors = [
        _real(each)
        if isinstance(each, torch.Tensor)
        else torch.as_tensor(real_floats(each))
        for each in given
    ]
    ranks = function.ranks
    function.check_shapes([tuple(each.shape) for each in tensors])
    leads = [
        each.shape[: each.ndim - k] for each, k in zip(tensors, ranks, strict=True)
    ]
    lead = torch.broadcast_shapes(*leads)
    return [
        each.to(kind).expand(*lead, *each.shape[each.ndim - rank :])
        for each, rank in zip(tensors, ranks, strict=True)
    ]


def _has_dtype(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and _has_dtype(value[0])
    return isinstance(value, (torch.Tensor, np.ndarray))


def _arrays(tensors: Sequence[torch.Tensor]) -> tuple[np.ndarray, ...]:
    return tuple(each.detach().cpu().double().numpy() for each in tensors)


def _real(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_complex():
        raise ValueError(f"found a tensor of {tensor.dtype}; expected real numbers")
    return tensor


def _tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=like.dtype).to(
        like.device
    )


def _times(name: str, times: Any) -> Any:
    if not isinstance(times, torch.Tensor):
        return times
    if times.requires_grad:
        raise ValueError(
            f"{name}: found a tensor that requires grad; expected times without: they "
            "choose the steps, and there is no derivative by them"
        )
    # What makes a tensor of it would be a part of torch.func's transforms.
    return times.tolist()
