"""Statistics of models, in the form of Triton's statistics extension.

They are of this process, since it began, and of all doors. What is not measured has a
count of 0: preparing inputs and outputs is part of ``compute_infer``, and nothing is
answered from a cache.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from services.rollouts.served import Served
from services.rollouts.statistics import Durations, Tally

Version = tuple[str, int, str]
_UNMEASURED = ("compute_input", "compute_output")


def statistics(
    tallies: Mapping[str, Tally], versions: Iterable[Version], served: Served | None
) -> dict[str, Any]:
    """Statistics of some versions.

    Args:
        tallies: By digest.
        versions: Those that were computed here.
        served: The version that is meant, whether it was or not; None for all models.
    """
    found = {
        (model, number): tallies[digest]
        for model, number, digest in versions
        if served is None or model == served.model
    }
    if served is not None:
        key = served.model, served.version
        found[key] = tallies.get(served.digest, Tally())
    return {"model_stats": [_of(*each, found[each]) for each in sorted(found)]}


def _of(model: str, number: int, tally: Tally) -> dict[str, Any]:
    computed = Durations()
    for durations in tally.batches.values():
        computed.count += durations.count
        computed.seconds += durations.seconds
    return {
        "name": model,
        "version": str(number),
        "last_inference": round(tally.last * 1000),
        "inference_count": tally.rows,
        "execution_count": computed.count,
        "inference_stats": {
            "success": _durations(tally.computed),
            "fail": _durations(tally.failed),
            "queue": _durations(tally.waited),
            "compute_infer": _durations(computed),
            **_unmeasured(),
            "cache_hit": _durations(Durations()),
            "cache_miss": _durations(Durations()),
        },
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _durations(each), **_unmeasured()}
            for rows, each in sorted(tally.batches.items())
        ],
    }


def _unmeasured() -> dict[str, dict[str, int]]:
    return {name: _durations(Durations()) for name in _UNMEASURED}


def _durations(durations: Durations) -> dict[str, int]:
    return {"count": durations.count, "ns": round(durations.seconds * 1e9)}
