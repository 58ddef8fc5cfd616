"""The shapes that callers asked for, kept over restarts beside the compiled programs.

One small JSON file for each architecture: versions that differ in their weights alone
have the same shapes, so a new version is ready for what its predecessor was asked.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from services.rollouts.shapes import Shape
from services.rollouts.work import Variant
from spnode_core.atomic import replacing
from spnode_core.timegrid import Plan, TimeGrid

_LOG = logging.getLogger(__name__)
# Shapes of an architecture that are kept: the last ones that were new.
_KEPT = 32


class Remembered:
    """Shapes by architecture.

    Args:
        folder: Where the files lie; made when the first shape is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def shapes(self, architecture: str) -> list[Shape]:
        """The shapes that were asked for; a file that cannot be read has none."""
        path = self._path(architecture)
        try:
            content = json.loads(path.read_bytes())
            return [_shape(fields) for fields in content["shapes"]]
        except FileNotFoundError:
            return []
        except (OSError, KeyError, TypeError, ValueError) as error:
            _LOG.warning("remembered shapes in %s cannot be read: %s", path, error)
            return []

    def add(self, architecture: str, shape: Shape) -> None:
        """Keep a shape; where that fails a later start only compiles it again."""
        shapes = [each for each in self.shapes(architecture) if each != shape]
        shapes = [*shapes, shape][-_KEPT:]
        content = {"shapes": [_fields(each) for each in shapes]}
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replacing(self._path(architecture)) as file:
                file.write(json.dumps(content, indent=1).encode())
        except OSError as error:
            _LOG.warning("a shape could not be remembered: %s", error)

    def _path(self, architecture: str) -> Path:
        return self._folder / f"{architecture}.json"


def example_plan(grid: TimeGrid, shape: Shape) -> Plan:
    """A plan of a shape's sizes over a model's own steps, to compile it with."""
    on_grid, steps, outputs, distinct = shape.plan
    own = np.diff(grid.times) if grid.uniform is None else np.array([grid.uniform])
    index = np.linspace(0, steps, outputs).astype(np.int32)
    rest = np.zeros(outputs) if on_grid else np.resize(0.5 * own, outputs)
    return Plan(
        distinct=np.resize(own, distinct),
        step_kind=np.resize(np.arange(max(distinct, 1), dtype=np.int32), steps),
        step_control=np.zeros(steps, np.int32),
        output_index=index,
        output_step=rest,
        output_control=np.zeros(outputs, np.int32),
        on_grid=on_grid,
    )


def _fields(shape: Shape) -> dict[str, Any]:
    return shape._asdict() | {"variant": shape.variant._asdict()}


def _shape(fields: dict[str, Any]) -> Shape:
    on_grid, steps, outputs, distinct = fields["plan"]
    return Shape(
        str(fields["operation"]),
        (bool(on_grid), int(steps), int(outputs), int(distinct)),
        tuple((str(name), tuple(map(int, axes))) for name, axes in fields["rows"]),
        Variant(**fields["variant"]),
    )
