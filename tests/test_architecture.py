"""The shape of the tree: who may import whom, what is documented, what is named how."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy import check

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "api",
    "worker",
    "services",
    "spnode_core",
    "spnode_client",
    "deploy",
    "benchmarks",
)
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_keep_the_contracts():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("services/jobs.py", "import fastapi", "Services do not know HTTP"),
        ("services/blobs.py", "import api.app", "Arrows point one way"),
        ("spnode_core/timegrid.py", "import spnode_core.rollout", "parts to whole"),
        ("spnode_client/calls.py", "import spnode_core", "The client stands alone"),
        (
            "services/rollouts/executor.py",
            "import services.rollouts.engine",
            "The gateway never loads JAX",
        ),
    ],
)
def test_a_breach_of_a_contract_is_found(tmp_path, module, line, contract):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    with (tmp_path / module).open("a") as file:
        file.write(f"\n\ndef _breach() -> None:\n    {line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout
    assert re.search(rf"{contract}.* BROKEN", done.stdout)


def test_the_gateway_imports_no_jax():
    # Running a parent's `__init__` is no edge of the import graph: so it is tried.
    assert python("import api.app, sys; print('jax' in sys.modules)") == "False"


def test_the_library_imports_no_jax_before_it_is_used():
    assert python("import spnode_core, sys; print('jax' in sys.modules)") == "False"


@pytest.mark.parametrize("name", check.TREE_CHECKS)
def test_the_tree_passes_the_check_of(name):
    assert list(check.TREE_CHECKS[name]()) == []


def test_the_lock_names_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index" not in text


def test_the_lock_pins_every_dependency_with_hashes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    for group in project["dependency-groups"].values():
        wanted += [each for each in group if isinstance(each, str)]
    lock = (ROOT / "requirements.lock").read_text()
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement)[0]
        assert re.search(rf"^{re.escape(name)}==\S+.*\\\n\s+--hash=sha256:", lock, re.M)


def test_every_top_level_folder_is_on_the_map_in_the_readme():
    text = (ROOT / "README.md").read_text()
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {line.split("/")[0] for line in done.stdout.splitlines() if "/" in line}
    for folder in sorted(tracked):
        assert f"{folder}/" in text, folder


def test_the_entry_script_is_plain_posix_shell():
    shell = shutil.which("dash") or "sh"
    subprocess.run([shell, "-n", ROOT / "spnode"], check=True)
    assert (ROOT / "spnode").read_text().startswith("#!/bin/sh\n")
