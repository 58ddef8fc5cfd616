"""The Tab key: both programs give their commands to a shell that asks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "./spnode": ["-P", "-m", "deploy"],
    "spnode": ["-c", "from spnode_client.cli import main; main()"],
}


def ask(program, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, *PROGRAMS[program], *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("line", "found"), [("{} mod", "models"), ("{} models ver", "versions")]
)
def test_a_shell_that_asks_gets_commands(program, line, found):
    words = line.format(program)
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert ask(program, _SPNODE_COMPLETE="complete_bash", **asked).split() == [found]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_commands_with_their_help(shell):
    asked = {"_TYPER_COMPLETE_ARGS": "spnode models ver"}
    if shell == "fish":
        asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    said = ask("spnode", _SPNODE_COMPLETE=f"complete_{shell}", **asked)
    assert "versions" in said
    assert "newest first" in said
    assert "register" not in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_script_works_in_a_shell(program, tmp_path):
    script = ask(
        program,
        "--show-completion",
        "bash",
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    # As ./spnode is one: sh drops variables whose names are none.
    quoted = " ".join(f"'{each}'" for each in (sys.executable, *PROGRAMS[program]))
    (tmp_path / "spnode").write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    (tmp_path / "spnode").chmod(0o755)
    bash = shutil.which("bash")
    assert bash, "no bash here"
    asked = (
        f"{script}\ncomplete -p spnode >&2\nCOMP_WORDS=(./spnode mod)\nCOMP_CWORD=1\n"
        "_spnode_completion ./spnode\necho ${COMPREPLY[@]}\n"
    )
    done = subprocess.run(
        [bash, "--norc", "-c", asked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["models"], done.stderr
