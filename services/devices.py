"""Which accelerators this machine shows, without JAX, and what JAX holds on them."""

import os
from pathlib import Path

# Computations of an accelerator, of which some are on their way to it or back.
_IN_FLIGHT = 4


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as CUDA names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    found = Path("/dev").glob("nvidia[0-9]*")
    return sorted((each.name.removeprefix("nvidia") for each in found), key=int)


def bytes_in_use() -> int:
    """Memory in use on this process's devices, as far as they tell; CPUs do not.

    It is for processes that compute: it starts JAX's backend where there is none.
    """
    import jax

    told = (device.memory_stats() or {} for device in jax.local_devices())
    return sum(int(each.get("bytes_in_use", 0)) for each in told)


def worth_at_a_time() -> int:
    """Computations that are worth having under way at a time: a CPU has cores.

    It starts JAX's backend, too.
    """
    import jax

    if jax.default_backend() != "cpu":
        return _IN_FLIGHT * jax.local_device_count()
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
