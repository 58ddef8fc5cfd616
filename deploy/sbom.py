"""The software bill of materials: what is installed, and under which licence."""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.dependency_groups import resolve_dependency_groups
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.folder import ROOT

IMAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gateway": ("gateway", ()),
    "worker": ("worker", ("jax",)),
}
"""By image, for a CPU: the group of its packages, and extras of the project's own."""


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


def write_bill(path: Path, image: str | None = None) -> Materials:
    """Write the bill of this environment, without times and random numbers.

    Args:
        path: Where to.
        image: List what this image has alone; one of ``IMAGES``.

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
    if image is not None:
        _keep(path, packages_of(image))
    components = json.loads(path.read_text())["components"]
    found = {each["name"]: _licences(each) for each in components}
    return Materials(
        path,
        len(components),
        dict(Counter(name for names in found.values() for name in names).most_common()),
        sorted(name for name, names in found.items() if not names),
    )


def packages_of(image: str) -> set[str]:
    """Names of the packages that an image has, by what those here require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    group, extras = IMAGES[image]
    texts = [*resolve_dependency_groups(project["dependency-groups"], group)]
    if extras:
        texts += project["project"]["dependencies"]
    for extra in extras:
        texts += project["project"]["optional-dependencies"][extra]
    waiting = [Requirement(each) for each in texts]
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, asked = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, asked) in seen:
            continue
        seen.add((name, asked))
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue  # of another platform
        found.add(name)
        each_extra = [{"extra": extra} for extra in ("", *asked)]
        waiting += [
            each
            for each in map(Requirement, needed)
            if each.marker is None or any(map(each.marker.evaluate, each_extra))
        ]
    return found


def _keep(path: Path, names: set[str]) -> None:
    """Leave the other packages out of a bill."""
    bill = json.loads(path.read_text())
    bill["components"] = [
        each for each in bill["components"] if canonicalize_name(each["name"]) in names
    ]
    own = bill["metadata"]["component"]["bom-ref"]
    kept = {each["bom-ref"] for each in bill["components"]} | {own}
    bill["dependencies"] = [
        {**each, "dependsOn": [to for to in each.get("dependsOn", ()) if to in kept]}
        for each in bill["dependencies"]
        if each["ref"] in kept
    ]
    path.write_text(json.dumps(bill, indent=2) + "\n")


def _licences(component: dict) -> list[str]:
    found = []
    for each in component.get("licenses", ()):
        licence = each.get("license", {})
        name = each.get("expression") or licence.get("id") or licence.get("name")
        found += [name] if name else []
    return sorted(set(found))
