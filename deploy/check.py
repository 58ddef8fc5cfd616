"""``check``: lint, format, types, import arrows, names, lengths, documentation."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.folder import ROOT
from spnode_client.terminal import err

PACKAGES = (
    "spnode_core",
    "spnode_client",
    "services",
    "api",
    "worker",
    "deploy",
    "benchmarks",
)
LONGEST_FILE = 400
VAGUE_NAMES = re.compile(r"^(utils?|helpers?|misc|common|tools?|stuff)(\.py)?$")
_VARIABLE = re.compile(r"SPNODE_[A-Z_]+")
TOOLS: dict[str, list[str]] = {
    "lint": [sys.executable, "-m", "ruff", "check"],
    "format": [sys.executable, "-m", "ruff", "format", "--check"],
    "types": [sys.executable, "-m", "pyright"],
    "import arrows": [str(Path(sys.executable).with_name("lint-imports"))],
}


def run_checks(quiet: bool = False) -> list[str]:
    """Run every check; give the names of those that failed."""
    failed = []
    for name, command in TOOLS.items():
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            failed.append(name)
        _tell(name, done.returncode != 0, done.stdout + done.stderr, quiet)
    for name, find in TREE_CHECKS.items():
        complaints = list(find())
        if complaints:
            failed.append(name)
        _tell(name, bool(complaints), "\n".join(complaints), quiet)
    return failed


def long_files() -> Iterator[str]:
    """Files that took a second job."""
    for path in _sources():
        lines = len(path.read_text().splitlines())
        if lines > LONGEST_FILE:
            yield f"{_name(path)}: {lines} lines, at most {LONGEST_FILE}"


def vague_names() -> Iterator[str]:
    """Files and folders whose name says nothing."""
    for path in _sources():
        for part in path.relative_to(ROOT).parts:
            if VAGUE_NAMES.match(part):
                yield f"{_name(path)}: {part!r} says nothing about what it holds"


def filled_initialisers() -> Iterator[str]:
    """``__init__`` files that would load more than was asked for."""
    for package in ("api", "services", "worker", "deploy"):
        for path in (ROOT / package).rglob("__init__.py"):
            if path.read_text().strip():
                yield f"{_name(path)}: must stay empty"


def undocumented_settings() -> Iterator[str]:
    """Settings that ``docs/settings.md`` does not explain, and names it invents."""
    from services.settings import CLIENT_VARIABLES, PREFIX, Settings

    document = ROOT / "docs" / "settings.md"
    text = document.read_text() if document.exists() else ""
    told = set(_VARIABLE.findall(text))
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(known - told):
        yield f"docs/settings.md: {name} is missing"
    for name in sorted(told - known - CLIENT_VARIABLES):
        yield f"docs/settings.md: {name} is not a setting"


def undocumented_names() -> Iterator[str]:
    """Public names of the two libraries that ``docs/python.md`` does not explain."""
    document = ROOT / "docs" / "python.md"
    text = document.read_text() if document.exists() else ""
    for package in ("spnode_core", "spnode_client"):
        for name in public_names(ROOT / package / "__init__.py"):
            if not re.search(rf"`{name}\b", text):
                yield f"docs/python.md: {package}.{name} is missing"


def public_names(path: Path) -> list[str]:
    """The names in a module's ``__all__``, read without importing it."""
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(each, ast.Name) and each.id == "__all__" for each in targets):
            assert isinstance(node, ast.Assign)
            return list(ast.literal_eval(node.value))
    return []


TREE_CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "file lengths": long_files,
    "file names": vague_names,
    "empty initialisers": filled_initialisers,
    "settings documented": undocumented_settings,
    "public names documented": undocumented_names,
}


def _sources() -> Iterator[Path]:
    for package in (*PACKAGES, "tests", "docs"):
        yield from sorted((ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tell(name: str, is_bad: bool, text: str, quiet: bool) -> None:
    if quiet and not is_bad:
        return
    err.print(f"{'[red]FAIL[/]' if is_bad else '[green]ok[/]  '} {name}")
    if is_bad:
        err.print(text.rstrip(), markup=False)
