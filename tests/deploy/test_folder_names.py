"""A data folder whose path looks like markup is told as it is."""

import pytest
from typer.testing import CliRunner

from deploy import cli, demo
from deploy.doctor import Finding


@pytest.fixture
def spnode(monkeypatch, tmp_path):
    """Runs a command on such a folder; the folder, and what was said."""
    folder = tmp_path / "data[" / "a]"
    monkeypatch.setenv("SPNODE_DATA_FOLDER", str(folder))

    def run(*arguments):
        done = CliRunner().invoke(cli.make_tree_app(), arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return str(folder), done.output

    return run


def test_status_says_where_nothing_runs(spnode):
    folder, said = spnode("status")
    assert said == f"nothing runs from {folder}; `./spnode up` starts it\n"


def test_the_doctor_says_what_it_found_and_how_to_mend_it(spnode, monkeypatch):
    found = [Finding("broker", "warn", "no [/a] \\[/b]", "remove [/c]")]
    monkeypatch.setattr("deploy.doctor.examine", lambda folder: found)
    _, said = spnode("doctor")
    told = ["no", "[/a]", "\\[/b]", "->", "remove", "[/c]"]
    assert said.split() == ["warn", "broker", *told]


def test_the_demo_says_what_the_stack_does(capsys, monkeypatch, tmp_path):
    def up(folder, say):
        say(f"starting in {folder.path}")
        return False

    monkeypatch.setattr(demo.stack, "up", up)
    address = ("http://127.0.0.1:9", "key")
    monkeypatch.setattr(demo.stack, "address", lambda folder: address)
    monkeypatch.setattr(demo, "_demonstrate", lambda *_: "result")
    folder = demo.Folder(tmp_path / "data[" / "a]")
    demo.run_demo(folder, None, 0, end=False)
    assert f"starting in {folder.path}\n" in capsys.readouterr().err
