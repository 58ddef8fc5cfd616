"""Each image's packages are enough for its process: installed as the Dockerfile does."""

import os
import re
import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from deploy.sbom import packages_of
from tests.endtoend.conftest import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
IMPORTS = {
    "gateway": "import api.app, deploy.make_key, sys; assert 'jax' not in sys.modules",
    "worker": "import worker.start, worker.rollouts, services.training.run",
}
FOLDERS = {
    "gateway": ("spnode_core", "services", "api", "deploy"),
    "worker": ("spnode_core", "services", "worker"),
}


def find_uv() -> str:
    found = shutil.which("uv", path=f"{os.environ['PATH']}:{ROOT / '.uv/venv/bin'}")
    if found is None:
        pytest.skip("uv is neither on PATH nor in .uv; ./spnode brings it")
    return found


def install(stage: str, venv: Path, tree: Path) -> subprocess.CompletedProcess[str]:
    """Run what the stage runs, for a CPU, with the project file and the lock in a tree.

    Only where the image has its files is changed, and that uv may keep downloads.
    """
    body = DOCKERFILE.split(f" AS {stage}-packages\n")[1].split("\nFROM ")[0]
    command = re.split(r"^RUN ", body, flags=re.MULTILINE)[1]
    for theirs, ours in (
        ("/venv/", f"{venv}/"),
        ("/tmp/packages.txt", f"{venv}/packages.txt"),
        ("--no-cache ", ""),
    ):
        assert theirs in command
        command = command.replace(theirs, ours)
    path = f"{Path(find_uv()).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tree,
        env={**os.environ, "PATH": path, "ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    made = tmp_path / "venv"
    subprocess.run([find_uv(), "venv", "--quiet", made], check=True)
    return made


@pytest.mark.parametrize("stage", IMPORTS)
def test_the_packages_of_an_image_are_enough_for_its_process(stage, venv, tmp_path):
    done = install(stage, venv, ROOT)
    assert done.returncode == 0, done.stderr
    (packages,) = venv.glob("lib/python*/site-packages")
    there = distributions(path=[str(packages)])
    names = {canonicalize_name(each.metadata["Name"]) for each in there}
    assert packages_of(stage) == names, "what the bill of the image lists"
    app: Path = tmp_path / "app"
    for folder in FOLDERS[stage]:
        shutil.copytree(ROOT / folder, app / folder)
        assert f"COPY {folder}" in DOCKERFILE
    done = subprocess.run(
        [venv / "bin" / "python", "-c", IMPORTS[stage]],
        cwd=app,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "SPNODE_DATA_FOLDER": str(tmp_path / "data")},
    )
    assert done.returncode == 0, done.stderr


def test_a_package_without_its_hash_in_the_lock_is_refused(venv, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copyfile(ROOT / "pyproject.toml", tree / "pyproject.toml")
    lock = (ROOT / "requirements.lock").read_text()
    bare = re.sub(r"^(orjson==\S+).*\n(    --hash.*\n)+", r"\1\n", lock, flags=re.M)
    assert len(bare) < len(lock)
    (tree / "requirements.lock").write_text(bare)
    done = install("gateway", venv, tree)
    assert done.returncode != 0
    assert "orjson" in done.stderr
    assert not list(venv.rglob("orjson"))


def test_the_installer_is_of_a_known_hash():
    text = (ROOT / "deploy/uv.txt").read_text()
    only = r"(#.*\n)+uv==[\d.]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(only, text)
    assert "--require-hashes --requirement /tmp/uv.txt" in DOCKERFILE
    assert '--require-hashes -r "$root/deploy/uv.txt"' in (ROOT / "spnode").read_text()
