"""``./spnode test``: pytest's exit codes become those of the command line."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from deploy import cli
from deploy.folder import ROOT


@pytest.mark.parametrize(
    ("found", "told"),
    [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (-9, 1)],
)
def test_every_code_of_pytest_is_one_of_three(monkeypatch, found, told):
    monkeypatch.setattr(cli, "_pytest", lambda arguments: found)
    done = CliRunner().invoke(cli.make_tree_app(), ["test", "tests/core"])
    assert done.exit_code == told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--no-such-option"], 2), ([__file__, "-k", "no_such_name"], 1)],
)
def test_a_choice_that_is_none_is_told_from_an_option_that_is_none(arguments, told):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deploy", "test", "-n0", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == told, done.stdout + done.stderr
