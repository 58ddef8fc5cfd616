"""Each image's packages are enough for its process: installed as the Dockerfile does."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

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


def install_arguments(stage: str) -> list[str]:
    """What the stage gives to ``uv pip install`` after the constraints, for a CPU."""
    body = DOCKERFILE.split(f" AS {stage}-packages\n")[1].split("\nFROM ")[0]
    joined = body.replace("\\\n", " ").replace("$extra", "")
    match = re.search(r"--constraints requirements\.lock(.*)", joined)
    assert match is not None
    return match[1].split()


@pytest.mark.parametrize("stage", IMPORTS)
def test_the_packages_of_an_image_are_enough_for_its_process(stage, tmp_path):
    uv, venv = find_uv(), tmp_path / "venv"
    subprocess.run([uv, "venv", "--quiet", venv], check=True)
    python = venv / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", python]
    constraints = ["--constraints", "requirements.lock"]
    subprocess.run(
        [*install, *constraints, *install_arguments(stage)], cwd=ROOT, check=True
    )
    app: Path = tmp_path / "app"
    for folder in FOLDERS[stage]:
        shutil.copytree(ROOT / folder, app / folder)
        assert f"COPY {folder}" in DOCKERFILE
    done = subprocess.run(
        [python, "-c", IMPORTS[stage]],
        cwd=app,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "SPNODE_DATA_FOLDER": str(tmp_path / "data")},
    )
    assert done.returncode == 0, done.stderr
