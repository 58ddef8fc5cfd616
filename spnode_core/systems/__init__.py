"""Benchmark systems by name, and datasets made from them. Nothing here imports JAX."""

from typing import Any

import numpy as np

from spnode_core.dataset import Dataset, check_arrays
from spnode_core.errors import InvalidInput
from spnode_core.systems.base import AbstractSystem
from spnode_core.systems.kuramoto_sivashinsky import KuramotoSivashinsky
from spnode_core.systems.robertson import Robertson
from spnode_core.systems.transient_growth import TransientGrowth

_SYSTEMS: dict[str, type[AbstractSystem]] = {
    system.name: system for system in (KuramotoSivashinsky, Robertson, TransientGrowth)
}


def names() -> tuple[str, ...]:
    """Return the names that ``get`` knows."""
    return tuple(sorted(_SYSTEMS))


def get(name: str, **options: Any) -> AbstractSystem:
    """Build a system by name; ``options`` are those of its class.

    Raises:
        InvalidInput: No such system, or no such option of it.
    """
    if name not in _SYSTEMS:
        raise InvalidInput(
            "system", found=repr(name), expected=f"one of {', '.join(names())}"
        )
    try:
        return _SYSTEMS[name](**options)
    except TypeError as error:
        raise InvalidInput(
            "options", found=str(error), expected=f"options of {name}"
        ) from error


def generate(name: str, trajectories: int, seed: int = 0, **options: Any) -> Dataset:
    """Make a dataset of a system from its sampler and its reference solver.

    Args:
        name: One of ``names()``.
        trajectories: How many to solve.
        seed: Source of the initial states.
        **options: Those of the system's class.

    Raises:
        InvalidInput: Unknown system or option, or fewer than two trajectories.
    """
    system = get(name, **options)
    if trajectories < 2:
        raise InvalidInput(
            "trajectories", found=str(trajectories), expected="at least 2"
        )
    times = system.times()
    arrays: dict[str, Any] = {
        "states": system.reference(system.sample(trajectories, seed), times),
        "times": times,
        "names": np.array(system.states),
        "positive": np.array(system.positive),
    }
    if system.units:
        arrays["units"] = np.array(system.units)
    if system.conserved:
        arrays["conserved_names"] = np.array(list(system.conserved))
        arrays["conserved"] = np.array(
            [[s.get(n, 0.0) for n in system.states] for s in system.conserved.values()]
        )
    return check_arrays(arrays)
