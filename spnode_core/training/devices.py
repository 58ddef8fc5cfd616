"""Data-parallel training: each local device has some rows of every minibatch."""

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")


def over_devices(rows: T, count: int) -> T:
    """Lay the rows of a minibatch over the local devices; to be called under ``jit``.

    As many devices are used as divide the rows evenly; XLA computes losses and
    gradients where the rows lie, and adds them up. Sums are taken in another order than
    on one device, so parameters agree up to rounding, and to the bit for equal numbers
    of devices.

    Args:
        rows: Arrays whose first axis is that of the rows.
        count: Number of rows.
    """
    devices = jax.local_devices()
    used = next(n for n in range(len(devices), 0, -1) if count % n == 0)
    if used == 1:
        return rows
    sharding = NamedSharding(
        Mesh(np.array(devices[:used]), "row"), PartitionSpec("row")
    )
    return jax.lax.with_sharding_constraint(rows, sharding)


def on_one_device(values: T) -> T:
    """Bring values back that are whole on each of several devices."""
    first, *others = jax.local_devices()
    return jax.device_put(values, first) if others else values
