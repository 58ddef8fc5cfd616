"""Refinements of a plan's steps, one of which is drawn in each iteration.

A coarse step can be right on the grid of the data and on one refinement of it, and far
wrong beside them: with a loss on h and h/4 alone Robertson's error was 2e-7 on both and
2e-4 on h/2; with h and h/3, one seed in three failed on h/4. So each interval is passed
in 2, 3, ... parts in turn. The parts that are not needed have no length: such a step
changes nothing, exactly.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from spnode_core.timegrid import Plan, TimeGrid


class Refinements(NamedTuple):
    """The plan with the most parts, and the lengths of its steps for each number."""

    plan: Plan
    widths: Float[Array, "refinement step"]

    def draw(self, key: PRNGKeyArray) -> Plan:
        """The plan of one of the refinements."""
        chosen = jax.random.randint(key, (), 0, self.widths.shape[0])
        return dataclasses.replace(self.plan, distinct=self.widths[chosen])


def refinements(coarse: Plan, fine: Plan, factor: int) -> Refinements | None:
    """Those with 2 to ``factor`` parts of each interval.

    Args:
        coarse: The plan on the grid itself.
        fine: The plan on the grid with every interval in ``factor`` parts.
        factor: At least 2.

    Returns:
        None where outputs or controls begin inside an interval of the grid.
    """
    index, control = np.asarray(coarse.output_index), np.asarray(coarse.step_control)
    fits = (
        coarse.on_grid
        and fine.on_grid
        and fine.steps == factor * coarse.steps
        and np.array_equal(fine.output_index, factor * index)
        and np.array_equal(fine.step_control, np.repeat(control, factor))
    )
    if not fits:
        return None
    is_uniform = len(coarse.distinct) == 1
    widths = np.asarray(coarse.distinct)
    if not is_uniform:
        widths = widths[np.asarray(coarse.step_kind)]
    grid = TimeGrid(np.append(0.0, np.cumsum(widths)))
    table = [_with_room(grid, parts, factor) for parts in range(2, factor + 1)]
    kind = np.arange(fine.steps) % (factor if is_uniform else fine.steps)
    plan = dataclasses.replace(
        fine,
        distinct=jnp.asarray(table[-1]),
        step_kind=jnp.asarray(kind, jnp.int32),
    )
    return Refinements(plan, jnp.asarray(np.stack(table)))


def _with_room(grid: TimeGrid, parts: int, factor: int) -> np.ndarray:
    """Steps of the grid in ``parts``, then as many empty ones as there is room for."""
    widths = np.diff(grid.refined(parts).times).reshape(-1, parts)
    return np.pad(widths, ((0, 0), (0, factor - parts))).ravel()
