"""The README's commands and snippets run as they are printed.

What is changed for the test: the address, where port 8000 is taken, and a short
training in place of the full one.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.endtoend.conftest import QUICK, ROOT, SMALL, TINY, options

README = (ROOT / "README.md").read_text()
SHORT = {
    "training": {"iterations": 60, "polish": "none", "optimiser": "adam", "batch": 16},
    "surrogate": TINY,
}
QUICK_PYTHON = ", ".join(f"{name}={value}" for name, value in SHORT.items())
QUICK_JSON = json.dumps(SHORT)[1:-1].replace('"', r"\"")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def changed(text: str, old: str, new: str) -> str:
    assert old in text, f"the README no longer says {old!r}"
    return text.replace(old, new)


@pytest.fixture
def folder(shell, file):
    """Where the README's reader stands: beside `.spnode`, with a file of her own."""
    shutil.copy(file, shell.data.parent / "trajectories.npz")
    return shell.data.parent


def test_the_commands_train_and_roll_out_an_own_file(shell, folder):
    (commands,) = (block for block in blocks("") if "--conserved" in block)
    for line in commands.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "./spnode"
        if arguments[0] == "train":
            arguments += [*QUICK, *options(SMALL)]
        shell.run(*arguments, cwd=folder)
    assert (folder / "mine.png").read_bytes().startswith(b"\x89PNG")


def test_the_python_snippet_runs(shell, folder):
    (snippet,) = blocks("python")
    url = shell.status()["url"]
    snippet = changed(snippet, "http://127.0.0.1:8000", url)
    snippet = changed(snippet, "seed=0", f"seed=0, {QUICK_PYTHON}")
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"mine/\d+ \[", done.stdout), done.stdout


def test_the_curl_snippet_runs(shell, folder):
    (snippet,) = blocks("sh")
    url = shell.status()["url"]
    snippet = changed(snippet, "http://127.0.0.1:8000", url)
    snippet = changed(
        snippet, r"\"model\": \"mine\"}", rf"\"model\": \"mine\", {QUICK_JSON}}}"
    )
    done = subprocess.run(
        ["sh", "-eu", "-c", snippet],
        cwd=folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"state":"succeeded"' in done.stdout
    assert '"x":[[' in done.stdout.splitlines()[-1]
