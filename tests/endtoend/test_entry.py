"""``./spnode``: makes its environment by itself, whole or not at all."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.endtoend.conftest import ROOT

POSIX_TOOLS = ("sh", "dirname", "readlink", "cat", "cksum", "grep", "mkdir", "mktemp")
MORE_TOOLS = ("rm", "mv", "uname")


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the entry with a command line that says where it runs."""
    root = tmp_path / "tree"
    (root / "deploy").mkdir(parents=True)
    for name in ("spnode", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root)
    (root / "deploy" / "__init__.py").touch()
    (root / "deploy" / "__main__.py").write_text(
        "import os, sys\nprint('ran', sys.argv[1:], os.getcwd(), sys.executable)\n"
    )
    return root


def start(program: Path, *arguments: str, cwd: Path, **more: str):
    # A uv that is here already saves the private one that each copy would make.
    path = f"{ROOT / '.uv' / 'venv' / 'bin'}:{os.environ['PATH']}"
    return subprocess.Popen(
        [program, *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": path, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_two_starts_make_one_environment_also_after_an_interruption(tree, tmp_path):
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(tree / "spnode")
    (tmp_path / "elsewhere" / "deploy").mkdir()
    interrupted = start(link, cwd=tmp_path)
    marker = tree / ".venv" / ".spnode-unfinished"
    while not marker.exists():
        assert interrupted.poll() is None
        time.sleep(0.01)
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.communicate()
    assert marker.exists()

    both = [start(link, "up", "it's", cwd=link.parent) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        ran = f"ran ['up', \"it's\"] {link.parent} {tree}/.venv/bin/python\n"
        assert out == ran
    assert not marker.exists()
    begun = time.monotonic()
    again = start(link, cwd=tmp_path)
    _, err = again.communicate()
    assert err == ""
    # Nothing is installed again: a start costs a few checksums.
    assert time.monotonic() - begun < 5
    script = tmp_path / "script.py"
    script.write_text("import deploy; print(deploy.__file__)")
    python = tree / ".venv" / "bin" / "python"
    # As from a shell of the user's: without what `./spnode test` itself has set.
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    imported = subprocess.run(
        [python, script], env=bare, capture_output=True, check=True
    )
    assert imported.stdout.decode().startswith(str(tree))


def test_a_package_that_does_not_match_its_hash_is_not_installed(tree):
    lock = tree / "requirements.lock"
    text = lock.read_text()
    block = re.search(r"^typer==.*?(?=^\S)", text, re.M | re.S)
    assert block is not None
    forged = re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", block[0])
    lock.write_text(text.replace(block[0], forged))
    process = start(tree / "spnode", cwd=tree)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 1
    assert "ran" not in out
    assert "ash mismatch" in err
    assert not (tree / ".venv" / ".spnode-stamp").exists()


def test_no_python_is_said_in_a_sentence(tree, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in (*POSIX_TOOLS, *MORE_TOOLS):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    done = subprocess.run(
        ["sh", tree / "spnode", "up"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("spnode: no Python 3.11 or newer found")
