"""Plans of rollouts on the devices, with the propagators of their steps.

::

    times                  ->  padded plan                 kept by the times
    its lengths of step h  ->  e^{hA}, phi_k(hA), ...      kept with the plan

Propagators depend on nothing else that callers send, so a program of their own computes
them, once for all tiles and batches: a dense ``A`` of 64 latent variables takes 45 ms
for 50 lengths, where a row's steps take 1 ms. Only where ``A`` depends on parameters
does each row compute its own.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from services.rollouts.shapes import padded_plan
from services.settings import MIB
from spnode_core.integrators.base import Propagators
from spnode_core.rollout import Shared, propagators_of_all
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan, TimeGrid

COMPILER_OPTIONS = {
    # The widest registers that the processor has, where 256 bits are the default.
    "xla_cpu_prefer_vector_width": 512,
    # Products of a tile are too small to be shared out, and round alike in all sizes.
    "xla_cpu_multi_thread_eigen": False,
}
# Plans that a model keeps, and bytes of them on one device.
_KEPT, _KEPT_BYTES = 64, 256 * MIB
Whole = Callable[[list[Any]], Surrogate]
"""Puts a surrogate together from its leaves."""


class Stepped(NamedTuple):
    """What operations take: a plan, and the propagators that its rows share."""

    plan: Plan
    shared: Shared


class Plans:
    """A padded plan on each device.

    Args:
        plan: On the host.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.by_device: tuple[Plan, ...] = on_devices(plan)
        self.stepped: tuple[Stepped, ...] | None = None
        """With propagators, once they were computed, unless they are too large."""
        self.size_bytes = _size_bytes(self.by_device[0])
        """On one device."""

    def __len__(self) -> int:
        """Number of devices."""
        return len(self.by_device)

    @property
    def counts(self) -> set[int]:
        """Numbers of lengths that propagators are computed for."""
        distinct = len(self.plan.distinct)
        return {distinct} if self.plan.on_grid else {distinct, self.plan.outputs}

    @property
    def first(self) -> Any:
        """What is on the first device."""
        return self.by_device[0] if self.stepped is None else self.stepped[0]

    def keep(self, stepped: tuple[Stepped, ...] | None) -> None:
        """Keep propagators with the plan unless they are too large, or no more."""
        size = _size_bytes(self.by_device[0] if stepped is None else stepped[0])
        if stepped is None or size <= _KEPT_BYTES:
            self.stepped, self.size_bytes = stepped, size


def on_devices(tree: Any) -> tuple[Any, ...]:
    """A tree of arrays on each device of this process."""
    return tuple(jax.device_put(tree, device) for device in jax.local_devices())


class Steps:
    """The plans of one model, the last ones asked for.

    Args:
        grid: The model's own grid of times.
        arrays: Its leaves on each device.
        whole: Puts it together from them.
    """

    def __init__(
        self, grid: TimeGrid, arrays: tuple[list[Any], ...], whole: Whole
    ) -> None:
        self.grid = grid
        self._arrays, self._whole = arrays, whole
        self._kept: OrderedDict[bytes, Plans] = OrderedDict()
        self._functions: dict[int, Callable[..., Propagators | None]] = {}
        """By the number of lengths, so that each goes with what it has compiled."""
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Bytes of what is kept, on one device."""
        with self._lock:
            # Plans with the same steps share their propagators.
            leaves = jax.tree.leaves([each.first for each in self._kept.values()])
        return sum({id(leaf): leaf.nbytes for leaf in leaves}.values())

    def planned(self, times: np.ndarray, control_times: np.ndarray | None) -> Plans:
        """The padded plan for some times."""
        key = times.tobytes()
        if control_times is not None:
            key += b"|" + control_times.tobytes()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        plan = self.grid.plan(times, control_times)
        plans = Plans(padded_plan(self.grid, plan))
        with self._lock:
            plans = self._kept.setdefault(key, plans)
        self._forget_plans()
        return plans

    def stepped(self, plans: Plans) -> tuple[Stepped, ...]:
        """A plan with its propagators, by device; they are computed the first time."""
        if plans.stepped is not None:
            return plans.stepped
        steps = self._steps_of_another(plans.plan) or self._propagators(
            plans, lambda plan: plan.distinct
        )
        rests: Iterable[Propagators | None] = [None] * len(plans)
        if not plans.plan.on_grid:
            rests = self._propagators(plans, lambda plan: plan.output_step)
        found = tuple(map(Stepped, plans.by_device, zip(steps, rests, strict=True)))
        with self._lock:
            # What has left is not counted.
            if any(plans is each for each in self._kept.values()):
                plans.keep(found)
        self._forget_plans()
        return found

    def forget(self, lengths: set[int]) -> None:
        """Let go of what computes propagators, but for these numbers of lengths."""
        for count in self._functions.keys() - lengths:
            self._functions.pop(count, None)
        with self._lock:
            for plans in self._kept.values():
                if not plans.counts <= lengths:
                    plans.keep(None)

    def _propagators(
        self, plans: Plans, lengths: Callable[[Plan], Any]
    ) -> list[Propagators | None]:
        """Those of some lengths, by device; None where each row has its own."""
        count = len(lengths(plans.plan))
        function = self._functions.get(count)
        if function is None:
            made = jax.jit(
                partial(_propagators, self._whole), compiler_options=COMPILER_OPTIONS
            )
            function = self._functions.setdefault(count, made)
        return [
            function(leaves, lengths(plan))
            for leaves, plan in zip(self._arrays, plans.by_device, strict=True)
        ]

    def _steps_of_another(self, plan: Plan) -> list[Propagators | None]:
        """Those of a plan with the same steps to other outputs, if one is kept."""
        with self._lock:
            kept = [*self._kept.values()]
        for other in reversed(kept):
            if other.stepped and np.array_equal(other.plan.distinct, plan.distinct):
                return [each.shared[0] for each in other.stepped]
        return []

    def _forget_plans(self) -> None:
        """Keep the last plan, and of those before what there is room for."""
        with self._lock:
            sizes = [plans.size_bytes for plans in self._kept.values()]
            while len(sizes) > 1 and (len(sizes) > _KEPT or sum(sizes) > _KEPT_BYTES):
                self._kept.popitem(last=False)[1].keep(None)
                sizes.pop(0)


def _propagators(whole: Whole, leaves: list[Any], steps: Any) -> Propagators | None:
    return propagators_of_all(whole(leaves), steps)


def _size_bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
