"""Lowers the rollout of a surrogate at given times to StableHLO.

What no trajectory changes is worked out here and becomes constants: weights, scalings
and the propagators of all steps. So matrices are factored before, not in the export.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.export import Exported, SymbolicScope, symbolic_args_specs
from jax.export import export as lower

from spnode_core.errors import InvalidInput
from spnode_core.rollout import prepared_rollout, rollout, shared_propagators
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan

try:
    from jax.errors import (  # pyright: ignore[reportAttributeAccessIssue]
        InconclusiveDimensionOperation,  # pyright: ignore[reportAttributeAccessIssue]
    )
except ImportError:  # JAX before 0.10
    from jax.core import InconclusiveDimensionOperation

MOST_CONSTANT_BYTES = 256 * 1024**2
"""What propagators may take, since every file of an export holds them."""
_CALLS = re.compile(r"custom_call @(\w+)")
# JAX replaces its own when it loads an export.
_OF_JAX = frozenset({"shape_assertion"})
_VERSION = re.compile(rb"StableHLO_v([0-9.]+)")
_LOCK = threading.Lock()
# What JAX raises of what it cannot lower, or not for any number of rows.
_REFUSALS = (
    ValueError,
    NotImplementedError,
    jax.errors.JAXTypeError,
    InconclusiveDimensionOperation,
)


@dataclass(frozen=True)
class Program:
    """A rollout that is ready to be lowered.

    Args:
        function: ``(x0[, parameters][, controls]) -> x``.
        sizes: Trailing axes of each input, by its name, in order.
    """

    function: Any
    sizes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, surrogate: Surrogate, plan: Plan, intervals: int) -> "Program":
        """A surrogate's rollout over a plan.

        Args:
            surrogate: The model.
            plan: Its steps and output times.
            intervals: Number of intervals of the controls, where there are any.

        Raises:
            InvalidInput: The constants of these times are too large.
        """
        signature = surrogate.signature
        sizes: dict[str, tuple[int, ...]] = {"x0": (len(signature.states),)}
        if signature.parameters:
            sizes["parameters"] = (len(signature.parameters),)
        if signature.controls:
            sizes["controls"] = (intervals, len(signature.controls))
        if signature.members > 1:
            return cls(jax.jit(_of_all_members(surrogate, plan, tuple(sizes))), sizes)
        prepared = eqx.filter_jit(lambda given: given.prepared())(surrogate)
        shared = eqx.filter_jit(shared_propagators)(prepared, plan)
        _check_size(shared, plan)

        def prepared_program(*inputs: Any) -> Any:
            given = dict(zip(sizes, inputs, strict=True))
            return prepared_rollout(
                prepared,
                shared,
                given["x0"],
                plan,
                given.get("parameters"),
                given.get("controls"),
            )

        return cls(jax.jit(prepared_program), sizes)

    def lowered(self, rows: int | None, platforms: tuple[str, ...]) -> Exported:
        """The program for so many rows, or for any number.

        Raises:
            InvalidInput: It computes what an export cannot hold.
        """
        shapes = [
            jax.ShapeDtypeStruct((rows or 1, *size), np.float64)
            for size in self.sizes.values()
        ]
        if rows is None:
            names = tuple(f"rows, {'_, ' * len(size)}" for size in self.sizes.values())
            shapes = symbolic_args_specs(tuple(shapes), names, scope=SymbolicScope())
        try:
            with _without_paths():
                return lower(self.function, platforms=platforms)(*shapes)
        except _REFUSALS as error:
            raise _refused(error) from error


def serialised(exported: Exported) -> bytes:
    """What ``jax.export.deserialize`` reads, differentiable once in reverse.

    Raises:
        InvalidInput: It holds what no file can.
    """
    try:
        with _without_paths():
            return bytes(exported.serialize(vjp_order=1))
    except _REFUSALS as error:
        raise _refused(error) from error


def custom_calls(exported: Exported) -> list[str]:
    """Functions beside StableHLO that it calls, which not every host has."""
    return sorted({*_CALLS.findall(exported.mlir_module())} - _OF_JAX)


def stablehlo_version(exported: Exported) -> str:
    """The version of StableHLO that it is written in."""
    found = _VERSION.search(bytes(exported.mlir_module_serialized[:64]))
    return found.group(1).decode() if found else "unknown"


def _of_all_members(
    surrogate: Surrogate, plan: Plan, names: tuple[str, ...]
) -> Callable[..., Any]:
    """The mean of the members, whose propagators each call works out anew."""

    def mean(*inputs: Any) -> Any:
        given = dict(zip(names, inputs, strict=True))
        others = (given.get("parameters"), given.get("controls"))
        return rollout(surrogate, given["x0"], plan, *others)

    return mean


def _refused(error: Exception) -> InvalidInput:
    return InvalidInput(
        "surrogate",
        found=f"what an export cannot hold: {str(error).splitlines()[0]}",
        expected="operations of StableHLO for any number of rows, without calls back "
        "into Python",
    )


def _check_size(shared: Any, plan: Plan) -> None:
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(shared))
    if size > MOST_CONSTANT_BYTES:
        raise InvalidInput(
            "times",
            found=f"{plan.outputs} times over {plan.steps} steps, whose propagators "
            f"take {size} bytes",
            expected=f"at most {MOST_CONSTANT_BYTES} bytes: fewer times, or times on "
            "the model's own grid, which need no propagators of their own",
        )


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Keep the paths of source files out of what is lowered, so that bytes repeat."""
    name = "jax_traceback_in_locations_limit"
    with _LOCK:
        before = getattr(jax.config, name)
        jax.config.update(name, 0)
        try:
            yield
        finally:
            jax.config.update(name, before)
