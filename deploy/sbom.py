"""The software bill of materials: what is installed, and under which licence."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from deploy.folder import ROOT


@dataclass(frozen=True)
class Materials:
    """What a bill lists.

    Args:
        file: The bill, CycloneDX JSON.
        components: How many packages.
        licences: How many packages are under each licence, by its SPDX id or name.
        unknown: Packages that do not say.
    """

    file: Path
    components: int
    licences: dict[str, int]
    unknown: list[str]


def write_bill(path: Path) -> Materials:
    """Write the bill of this environment, without times and random numbers.

    Raises:
        RuntimeError: It could not be made, with the reason.
    """
    command = [
        *(sys.executable, "-m", "cyclonedx_py", "environment"),
        *("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"),
        *("-o", str(path), sys.executable),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        raise RuntimeError(f"no bill of materials: {lines[-1]}")
    components = json.loads(path.read_text())["components"]
    found = {each["name"]: _licences(each) for each in components}
    return Materials(
        path,
        len(components),
        dict(Counter(name for names in found.values() for name in names).most_common()),
        sorted(name for name, names in found.items() if not names),
    )


def _licences(component: dict) -> list[str]:
    found = []
    for each in component.get("licenses", ()):
        licence = each.get("license", {})
        name = each.get("expression") or licence.get("id") or licence.get("name")
        found += [name] if name else []
    return sorted(set(found))
