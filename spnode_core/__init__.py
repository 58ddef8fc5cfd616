"""Fast, differentiable surrogates of stiff systems with proved stability.

Names are loaded when they are first used, so ``import spnode_core`` imports no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spnode_core.artifact import load, read_card, read_plots, read_spec, save
    from spnode_core.calibration.calibrate import calibrate
    from spnode_core.calibration.result import Calibration, Estimate
    from spnode_core.comparison import compare
    from spnode_core.data_report import summarise
    from spnode_core.dataset import (
        Dataset,
        check_arrays,
        load_dataset,
        save_dataset,
    )
    from spnode_core.ensemble import Ensemble
    from spnode_core.errors import (
        ArtifactError,
        CalibrationError,
        InvalidInput,
        SpnodeError,
        TrainingError,
    )
    from spnode_core.exports import export
    from spnode_core.intervals import interval_bounds
    from spnode_core.metrics import evaluate, with_intervals
    from spnode_core.plots import draw_training
    from spnode_core.spec import (
        ArtifactSpec,
        PriorSpec,
        Signature,
        SplitSpec,
        SurrogateSpec,
        TrainingSpec,
        UnknownSpec,
        UnknownsSpec,
    )
    from spnode_core.surrogate import Surrogate
    from spnode_core.systems import generate
    from spnode_core.timegrid import TimeGrid
    from spnode_core.training.fit import Progress, Run, Stopped, fit
    from spnode_core.training.joining import join
    from spnode_core.xarrays import as_xarray, from_xarray, to_xarray

_HOMES = {
    "ArtifactError": "errors",
    "ArtifactSpec": "spec",
    "Calibration": "calibration.result",
    "CalibrationError": "errors",
    "Dataset": "dataset",
    "Ensemble": "ensemble",
    "Estimate": "calibration.result",
    "InvalidInput": "errors",
    "PriorSpec": "spec",
    "Progress": "training.progress",
    "Run": "training.fit",
    "Signature": "spec",
    "SplitSpec": "spec",
    "SpnodeError": "errors",
    "Stopped": "training.progress",
    "Surrogate": "surrogate",
    "SurrogateSpec": "spec",
    "TimeGrid": "timegrid",
    "TrainingError": "errors",
    "TrainingSpec": "spec",
    "UnknownSpec": "spec",
    "UnknownsSpec": "spec",
    "as_xarray": "xarrays",
    "calibrate": "calibration.calibrate",
    "check_arrays": "dataset",
    "compare": "comparison",
    "draw_training": "plots",
    "evaluate": "metrics",
    "export": "exports",
    "fit": "training.fit",
    "from_xarray": "xarrays",
    "generate": "systems",
    "interval_bounds": "intervals",
    "join": "training.joining",
    "load": "artifact",
    "load_dataset": "dataset",
    "read_card": "artifact_file",
    "read_plots": "artifact_file",
    "read_spec": "artifact_file",
    "save": "artifact",
    "save_dataset": "dataset",
    "summarise": "data_report",
    "to_xarray": "xarrays",
    "with_intervals": "metrics",
}

__all__ = [
    "ArtifactError",
    "ArtifactSpec",
    "Calibration",
    "CalibrationError",
    "Dataset",
    "Ensemble",
    "Estimate",
    "InvalidInput",
    "PriorSpec",
    "Progress",
    "Run",
    "Signature",
    "SplitSpec",
    "SpnodeError",
    "Stopped",
    "Surrogate",
    "SurrogateSpec",
    "TimeGrid",
    "TrainingError",
    "TrainingSpec",
    "UnknownSpec",
    "UnknownsSpec",
    "as_xarray",
    "calibrate",
    "check_arrays",
    "compare",
    "draw_training",
    "evaluate",
    "export",
    "fit",
    "from_xarray",
    "generate",
    "interval_bounds",
    "join",
    "load",
    "load_dataset",
    "read_card",
    "read_plots",
    "read_spec",
    "save",
    "save_dataset",
    "summarise",
    "to_xarray",
    "with_intervals",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
