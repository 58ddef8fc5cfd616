"""What is odd about the units of a dataset, by pint (of the extra ``formats``).

Units are kept as they were given: nothing is converted.
"""

import functools
import importlib
import re
from typing import Any

from spnode_core.dataset import Dataset

# `m s-1` and `m3`, as climate data write it, for `m s**-1` and `m**3`; not `1e-3`.
_POWER = re.compile(r"(?<![0-9][eE])(?<=[A-Za-zµΩ])(-?[0-9])")
# Numbers to a power, and large powers, of which pint would compute for ever.
_BOMB = re.compile(r"[0-9.]\s*(\*\*|\^)|(\*\*|\^)[\s+-]*[0-9.]{3}")
_LONGEST = 100
_WITHOUT = ("", "-", "none")


def unit_problems(dataset: Dataset) -> list[str]:
    """What is odd about the units, in words; empty where pint is not installed.

    Units that are not known, a unit of time that is none, and conserved sums that add
    what has different dimensions.
    """
    units = (
        dict(zip(dataset.names, dataset.units, strict=True)) if dataset.units else {}
    )
    found = []
    dimensions: dict[str, Any] = {}
    for name, unit in units.items():
        try:
            dimensions[name] = _dimension(unit)
        except ValueError:
            found.append(f"{name}: {unit!r} is no known unit")
        except ImportError:
            return []
    try:
        if dataset.time_unit and _dimension(dataset.time_unit) != _dimension("s"):
            found.append(f"times: {dataset.time_unit!r} is no unit of time")
    except ValueError:
        found.append(f"times: {dataset.time_unit!r} is no known unit")
    except ImportError:
        return []
    for title, sums in dataset.conserved.items():
        terms = [name for name in sums if name in dimensions]
        other = next((n for n in terms if dimensions[n] != dimensions[terms[0]]), None)
        if other is not None:
            found.append(
                f"conserved sum {title!r}: it adds {terms[0]} in {units[terms[0]]!r} "
                f"and {other} in {units[other]!r}"
            )
    return found


def _dimension(unit: str) -> Any:
    """The dimension of a unit.

    Raises:
        ValueError: It is not known.
        ImportError: pint is not installed.
    """
    registry = _registry()
    if unit.strip().lower() in _WITHOUT:
        return registry.Unit("").dimensionality
    if len(unit) > _LONGEST or _BOMB.search(unit):
        raise ValueError(unit)
    try:
        return registry.Unit(unit).dimensionality
    # Of a text that is no unit pint raises what its parser happens to meet.
    except Exception as error:
        raise ValueError(unit) from error


@functools.cache
def _registry() -> Any:
    pint = importlib.import_module("pint")
    return pint.UnitRegistry(preprocessors=[lambda text: _POWER.sub(r"**\1", text)])
