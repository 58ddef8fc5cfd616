"""What this door says of the service and of its models."""

from collections.abc import Callable
from typing import Any, TypeVar

from services.database.paging import Page
from services.registry import Registry
from services.rollouts.served import Served
from services.settings import Settings
from services.versions import ModelRecord

T = TypeVar("T")

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
PLATFORM = "spnode_artifact"
_PAGE = 100


def server_metadata(version: str) -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "spnode", "version": version, "extensions": list(EXTENSIONS)}


def metadata(registry: Registry, served: Served) -> dict[str, Any]:
    """A model: all its versions, and inputs and outputs of the one that is meant."""
    signature = served.signature
    versions = _all(
        lambda after: registry.versions(served.model, limit=_PAGE, after=after)
    )
    return {
        "name": served.model,
        "versions": [str(version.number) for version in reversed(versions)],
        "platform": PLATFORM,
        "inputs": [_tensor(*each) for each in _inputs(served)],
        "outputs": [_tensor(*each) for each in _outputs(served)],
        "properties": {
            "version": str(served.version),
            "digest": served.digest,
            "states": ", ".join(signature.states),
            "units": ", ".join(signature.units),
            "parameters": ", ".join(signature.parameters),
            "controls": ", ".join(signature.controls),
            "time_unit": signature.time_unit,
            "end_of_training_data": repr(signature.domain.end),
        },
    }


def config(served: Served, settings: Settings) -> dict[str, Any]:
    """A model's configuration, in the form of Triton's ModelConfig.

    Shapes hold the axis of rows, since ``times`` has none: so ``max_batch_size`` is 0,
    and the limits stand among the parameters.
    """
    needed = ("x0", "parameters", "controls")
    limits = {
        "max_rows": settings.max_rows,
        "max_times": settings.max_times,
        "max_output_values": settings.max_output_values,
        "max_batch_rows": settings.max_batch_rows,
        "precision": served.spec.precision,
    }
    return {
        "name": served.model,
        "platform": PLATFORM,
        "backend": "spnode",
        "version_policy": {"all": {}},
        "max_batch_size": 0,
        "input": [
            {**_configured(*each), "optional": each[0] not in needed}
            for each in _inputs(served)
        ],
        "output": [_configured(*each) for each in _outputs(served)],
        "parameters": {
            name: {"string_value": str(value)} for name, value in limits.items()
        },
    }


def index(registry: Registry) -> list[dict[str, str]]:
    """The newest version of every model, and those that aliases point at."""
    found = []
    for model in _all(lambda after: registry.models(limit=_PAGE, after=after)):
        for number, reason in sorted(_named(model).items()):
            found.append(
                {
                    "name": model.name,
                    "version": str(number),
                    "state": "READY",
                    "reason": reason,
                }
            )
    return found


def _named(model: ModelRecord) -> dict[int, str]:
    """Versions that a word stands for, each with its words."""
    words: dict[int, list[str]] = {}
    if model.latest is not None:
        words[model.latest] = ["latest"]
    for alias, number in sorted(model.aliases.items()):
        words.setdefault(number, []).append(alias)
    return {number: ", ".join(each) for number, each in words.items()}


def _inputs(served: Served) -> list[tuple[str, str, list[int]]]:
    signature = served.signature
    found = [("x0", "FP64", [-1, len(signature.states)])]
    if signature.parameters:
        found.append(("parameters", "FP64", [-1, len(signature.parameters)]))
    if signature.controls:
        found.append(("controls", "FP64", [-1, -1, len(signature.controls)]))
        found.append(("control_times", "FP64", [-1]))
    return [*found, ("times", "FP64", [-1])]


def _outputs(served: Served) -> list[tuple[str, str, list[int]]]:
    """What may be asked for together; ``latent`` may be on its own alone."""
    signature = served.signature
    like_x = ["x"]
    if signature.intervals is not None:
        like_x += ["lower", "upper"]
    if signature.members > 1:
        like_x.append("spread")
    found = [(name, "FP64", [-1, -1, len(signature.states)]) for name in like_x]
    return [*found, ("times", "FP64", [-1]), ("inside", "BOOL", [-1])]


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _configured(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{datatype}", "dims": shape}


def _all(page_after: Callable[[str | None], Page[T]]) -> list[T]:
    """Every item of a list that is read page by page."""
    found: list[T] = []
    after = None
    while True:
        page = page_after(after)
        found += page.items
        if page.next is None:
            return found
        after = page.next
