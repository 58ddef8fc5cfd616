"""Texts of others in what is printed: brackets and colons in them are no markup."""

import json

import numpy as np
import pytest

from spnode_client import terminal
from spnode_client.arrays import pack
from spnode_client.calibrations import Calibration
from spnode_client.commands.calibrate import describe
from spnode_client.errors import ClientError
from tests.client.conftest import Answer
from tests.client.test_calibrate import FOUND
from tests.client.test_command_line import run


def test_a_warning_of_a_calibration_names_a_state_with_a_bracket(capsys):
    said = "the observations do not tell T[/a] from [red]"
    describe(Calibration.of({**FOUND, "warnings": [said]}))
    assert f"warning: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["[/a]", "\\\\[/a]", "\\[red]", "log:x:5", "a\\"])
def test_an_error_is_told_as_it_is(capsys, name):
    terminal.report(ClientError(f"{name}\n  at {name}"))
    assert capsys.readouterr().err == f"error: {name}\n  at {name}\n"


def test_a_column_of_a_table_has_the_name_that_a_user_gave_it(capsys):
    terminal.print_table(("version", "T[/a]", "log:x:5"), [("m/1", "[/b]", ":x:")])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["version", "T[/a]", "log:x:5"]
    assert row.split() == ["m/1", "[/b]", ":x:"]


def test_a_picture_is_drawn_into_a_folder_with_a_bracket(server, tmp_path):
    record = {"model": "m", "number": 1, "signature": {"states": ["T[/a]"]}}
    members = {"x": np.ones((3, 1)), "times": np.arange(1.0, 4.0)}
    members |= {"model": "m", "version": 1, "digest": ""}
    kind = {"content-type": "application/x-npz"}
    server.answers += [
        Answer(200, json.dumps(record).encode()),
        Answer(200, pack(members), kind),
    ]
    picture = tmp_path / "x[" / "a].png"
    picture.parent.mkdir()
    asked = ("rollout", "m", "--x0", "1", "--times", "1,2,3", "--plot", str(picture))
    done = run(*asked, SPNODE_URL=server.url)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.endswith(f"drew {picture}\n")
    assert picture.exists()
