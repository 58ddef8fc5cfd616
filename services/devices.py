"""Which accelerators there are, without JAX; what JAX is told, has, and may use."""

import os
from pathlib import Path

from services import heap
from services.settings import Settings

# Computations of an accelerator, of which some are on their way to it or back.
_IN_FLIGHT = 4


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as CUDA names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    found = Path("/dev").glob("nvidia[0-9]*")
    return sorted((each.name.removeprefix("nvidia") for each in found), key=int)


def configure_jax(settings: Settings) -> None:
    """Set what JAX must know before its first computation: this is an entry point."""
    import jax

    start_backend()
    cache = settings.data_folder / "compiled"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def start_backend() -> None:
    """Start JAX for processes that serve: a CPU computes in the thread that asks.

    That thread waits for it anyway, and handing one row over took up to half of its
    time again. What is set here counts only before the backend starts.
    """
    import jax

    heap.for_computing()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.local_devices()


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
    return cores()


def cores() -> int:
    """Cores that this process may compute on; 1 where an accelerator computes."""
    import jax

    if jax.default_backend() != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
