"""The client's command line without a service: parsing, exit codes, files."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from spnode_client import terminal
from spnode_client.arrays import pack, unpack
from spnode_client.cli import _say_warning, make_app
from spnode_client.commands.card_report import print_card
from spnode_client.commands.inputs import parse_rows, parse_times
from spnode_client.commands.models import in_words as certificate_in_words
from spnode_client.commands.train import (
    _describe,
    _other_champion,
    parse_conserved,
)
from spnode_client.connection import Connection, connection
from spnode_client.errors import JobFailed
from spnode_client.records import ModelVersion, statements
from spnode_client.terminal import UsageError, report, table_of
from tests.client.conftest import Answer


def run(*arguments, **environment):
    code = "from spnode_client.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin", **environment},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mass=y1+y2+y3", ("mass", {"y1": 1, "y2": 1, "y3": 1})),
        ("q = 2*a - 1e-3*b", ("q", {"a": 2, "b": -1e-3})),
        ("m=-a", ("m", {"a": -1})),
    ],
)
def test_a_conserved_sum_is_read_from_its_formula(text, expected):
    assert parse_conserved(text) == expected


@pytest.mark.parametrize("text", ["mass", "mass=", "=a+b", "m=2*", "m=a+", "m=+*a"])
def test_a_formula_that_is_none_is_wrong_usage(text):
    with pytest.raises(UsageError, match="expected"):
        parse_conserved(text)


def test_times_are_lists_or_spacings():
    np.testing.assert_array_equal(parse_times("1,2.5"), [1, 2.5])
    np.testing.assert_allclose(parse_times("log:1e-5:1e5:11"), 10.0 ** np.arange(-5, 6))
    np.testing.assert_allclose(parse_times("linear:0:1:3"), [0, 0.5, 1])
    for text in ("log:1:2", "log:0:1:5", "cubic:0:1:3", "a,b", ""):
        with pytest.raises(UsageError, match="--times"):
            parse_times(text)


def test_initial_conditions_are_written_out_or_in_a_file(tmp_path):
    np.testing.assert_array_equal(parse_rows("1,0,0", "--x0"), [1, 0, 0])
    np.testing.assert_array_equal(parse_rows("1,0;0,1", "--x0"), [[1, 0], [0, 1]])
    np.save(tmp_path / "x0.npy", np.eye(2))
    np.testing.assert_array_equal(
        parse_rows(str(tmp_path / "x0.npy"), "--x0"), np.eye(2)
    )
    for text in ("1,zero", "1,2;3", str(tmp_path / "missing.npy")):
        with pytest.raises(UsageError, match="--x0"):
            parse_rows(text, "--x0")


def test_rows_of_different_lengths_are_said_to_be_such():
    with pytest.raises(UsageError, match="rows of 2, 1 numbers"):
        parse_rows("1,2;3", "--x0")


def test_a_new_version_that_is_not_the_champion_says_which_is():
    version = ModelVersion("m", 2, "d" * 64, {})
    assert _other_champion({"aliases": {"champion": 2}}, version) == ""
    assert _other_champion({"aliases": {}}, version) == ""
    note = _other_champion({"aliases": {"champion": 1}}, version)
    assert "version 1" in note
    assert "spnode models alias m champion 2" in note


def test_a_version_whose_errors_overflowed_is_described(capsys):
    row = {"relative_l2": None, "rmse": 1e-3}
    record = {"evaluation": {"test": {"states": {"y1": row}, "scaled_mse": None}}}
    _describe(ModelVersion("m", 1, "d" * 64, record))
    assert "not finite" in capsys.readouterr().out


def test_errors_stand_in_the_order_of_the_signature(capsys):
    row = {"relative_l2": 0.1, "rmse": 0.1, "normalised_rmse": 0.1}
    # As the service keeps them: by the alphabet.
    found = {"test": {"states": {"a": row, "b": row, "y": row}}}
    record = {"signature": {"states": ["y", "b", "a"]}, "evaluation": found}
    _describe(ModelVersion("m", 1, "d" * 64, record))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines if line[1:2] == ["1.00e-01"]] == ["y", "b", "a"]
    print_card({**record, "model": "m"}, {"metrics": found})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines if line[1:2] == ["0.1"]] == ["y", "b", "a"]


def test_a_version_that_nothing_speaks_for_is_described_with_warnings(capsys):
    beaten = "no better than constant on y1: 2 against 1"
    record = {"evaluation": {"test": {"states": {"y1": {}}, "warnings": [beaten]}}}
    _describe(ModelVersion("m", 1, "d" * 64, record))
    assert capsys.readouterr().out.splitlines()[-1] == f"WARNING: {beaten}"


def test_warnings_are_told_where_nothing_was_held_out(capsys):
    ended = "max_seconds reached in stage 'optimise' at iteration 1 of 8823"
    evaluation = {"train": {"warnings": [ended]}, "validation": None, "test": None}
    _describe(ModelVersion("m", 1, "d" * 64, {"evaluation": evaluation}))
    assert capsys.readouterr().out.splitlines()[-1] == f"WARNING: {ended}"


def test_a_certificate_is_read_with_what_holds_first():
    found = {
        "spectral_abscissa": {"holds": False, "statement": "It grows.", "value": 0.25},
        "invariant_box": {
            "holds": True,
            "statement": "It stays.",
            "assumptions": ["real numbers", "no noise"],
            "bound": [1.0, 2.0],
        },
        "contraction": {"holds": False, "statement": "Not proved."},
    }
    assert certificate_in_words(found).splitlines() == [
        "PROVED",
        "  invariant_box: It stays.",
        "      assuming: real numbers; no noise",
        "NOT PROVED",
        "  spectral_abscissa: It grows.",
        "      value 0.25",
        "  contraction: Not proved.",
    ]
    # What everybody asks for, and no more: that rollouts part is usual.
    assert statements(found) == ["NOT: It grows.", "It stays."]


def test_the_key_of_an_embedded_stack_goes_nowhere_else(monkeypatch):
    monkeypatch.delenv("SPNODE_URL", raising=False)
    monkeypatch.delenv("SPNODE_KEY", raising=False)

    def embedded():
        return "http://127.0.0.1:8123", "secret"

    with Connection(embedded=embedded).client() as client:
        assert client.url == "http://127.0.0.1:8123"
        assert client.transport.http.headers["authorization"] == "Bearer secret"
    with Connection(url="http://127.0.0.1:9", embedded=embedded).client() as client:
        assert "authorization" not in client.transport.http.headers


def test_wrong_usage_ends_with_2_and_failure_with_1():
    assert run("train").returncode == 2
    assert run("train", "missing.npz").returncode == 2
    refused = run("--url", "http://127.0.0.1:9", "jobs", "list")
    assert refused.returncode == 1
    assert "no answer from http://127.0.0.1:9" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_controls_are_rolled_out_from_the_shell(server):
    signature = {"states": ["a"], "controls": ["u"]}
    record = {"model": "m", "number": 1, "signature": signature}
    server.answers.append(Answer(200, json.dumps(record).encode()))
    members = {"x": [[1.0]], "times": [1.0], "model": "m", "version": 1, "digest": ""}
    kind = {"content-type": "application/x-npz"}
    server.answers.append(Answer(200, pack(members), kind))
    given = ("--controls", "300;301", "--control-times", "0,0.5")
    done = run(
        "rollout", "m", "--x0", "1", "--times", "1", *given, SPNODE_URL=server.url
    )
    assert done.stdout == "time,a\n1.0,1.0\n"
    asked = unpack(server.asked[1].body)
    assert asked["controls"].tolist() == [[300], [301]]
    assert asked["control_times"].tolist() == [0, 0.5]
    assert asked["mode"] == "reproducible"


def test_mode_precision_and_intervals_are_sent_from_the_shell(server):
    record = {"model": "m", "number": 1, "signature": {"states": ["a"]}}
    members = {"x": [[1.0]], "times": [1.0], "model": "m", "version": 1, "digest": ""}
    members |= {"lower": [[0.5]], "upper": [[2.0]], "coverage": 0.9}
    members["spread"] = [[0.25]]
    kind = {"content-type": "application/x-npz"}
    server.answers += [
        Answer(200, json.dumps(record).encode()),
        Answer(200, pack(members), kind),
    ]
    given = ("--mode", "throughput", "--precision", "float64", "--intervals", "0.9")
    rows = ("rollout", "m", "--x0", "1", "--times", "1", "--spread")
    done = run(*rows, *given, SPNODE_URL=server.url)
    table = "time,a,a_lower,a_upper,a_spread\n1.0,1.0,0.5,2.0,0.25\n"
    assert done.stdout == table
    asked = unpack(server.asked[1].body)
    assert asked["mode"] == "throughput"
    assert asked["precision"] == "float64"
    assert asked["intervals"] == 0.9
    assert asked["spread"]
    refused = run("rollout", "m", "--x0", "1", "--times", "1", "--mode", "fast")
    assert refused.returncode == 2


def test_hints_name_the_program_that_was_run(monkeypatch, capsys):
    monkeypatch.setattr(connection, "program", "./spnode")
    report(JobFailed({"id": "job_1", "state": "failed"}))
    assert "`./spnode jobs show job_1`" in capsys.readouterr().err


def test_a_bracket_in_a_name_is_no_markup(capsys):
    said = "the state T[inlet] of [/a] lies outside"
    _say_warning(said)
    assert f"warning: {said}" in capsys.readouterr().err


def test_json_output_is_one_document(server):
    server.answers.append(Answer(200, json.dumps({"data": [], "next": None}).encode()))
    done = run("jobs", "list", "--json", SPNODE_URL=server.url)
    assert json.loads(done.stdout) == []


def test_options_of_an_export_belong_together():
    done = run("export", "mine", "--times", "1,2")
    assert done.returncode == 2
    assert "--times, --control-times and --rows are for --stablehlo" in done.stderr
    done = run("export", "mine", "--stablehlo", "--rows", "some")
    assert done.returncode == 2
    assert "--rows: found 'some'" in done.stderr


def test_every_command_has_an_example_in_its_help():
    commands = [
        ("train",),
        ("rollout",),
        ("calibrate",),
        ("export",),
        *(("jobs", name) for name in ("list", "show", "follow", "cancel", "retry")),
        *(
            ("models", name)
            for name in (
                *("list", "versions", "show", "card", "plots"),
                *("register", "describe", "alias", "history", "unalias"),
                *("delete", "export"),
            )
        ),
        *(
            ("datasets", name)
            for name in ("upload", "make", "list", "show", "download", "delete")
        ),
        *(("keys", name) for name in ("create", "list", "revoke")),
    ]
    for command in commands:
        done = CliRunner().invoke(make_app(), [*command, "--help"])
        assert done.exit_code == 0, command
        assert "Example: spnode" in done.stdout, command
        assert "--json" in done.stdout, command


VERSION = {"model": "m", "digest": "d" * 64, "created_at": "2026-01-02T03:04:05Z"}
VERSION |= {"size_bytes": 1 << 20, "job_id": None}


def test_a_file_becomes_a_version(server, tmp_path):
    (tmp_path / "mine.spnode").write_bytes(b"artifact")
    server.answers.append(Answer(201, json.dumps({**VERSION, "number": 3}).encode()))
    given = ("models", "register", str(tmp_path / "mine.spnode"), "m")
    assert run(*given, SPNODE_URL=server.url).stdout == "m/3\n"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/models/m/versions")
    assert asked.headers["content-type"] == "application/zip"
    assert asked.body == b"artifact"


def test_a_file_is_registered_once_though_the_answer_is_lost(server, tmp_path):
    (tmp_path / "mine.spnode").write_bytes(b"artifact")
    made = json.dumps({**VERSION, "number": 1}).encode()
    server.answers += [Answer(201, b"{}", break_after=-1), Answer(201, made)]
    given = ("models", "register", str(tmp_path / "mine.spnode"), "m")
    done = run(*given, SPNODE_URL=server.url)
    assert done.returncode == 0, done.stderr
    first, again = (each.headers["idempotency-key"] for each in server.asked)
    assert first == again
    assert [each.body for each in server.asked] == [b"artifact"] * 2


def test_a_file_is_sent_when_the_settings_of_its_training_are_none_to_refuse(
    server, tmp_path
):
    (tmp_path / "mine.npz").write_bytes(b"trajectories")
    given = ("train", str(tmp_path / "mine.npz"), "--detach", "--set", "seed=7")
    wrong = {"code": "invalid", "detail": "/seed: found 7; expected another"}
    server.answers.append(Answer(422, json.dumps(wrong).encode()))
    done = run(*given, SPNODE_URL=server.url)
    assert done.returncode == 1
    assert "/seed: found 7" in done.stderr
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/jobs?validate_only=true")
    assert json.loads(asked.body)["seed"] == 7
    server.asked.clear()
    missing = {"code": "dataset_not_found", "detail": "which does not exist"}
    job = {"id": "job_0", "kind": "training", "state": "queued"}
    dataset = {"id": "ds_1", "name": "mine", "summary": {}}
    server.answers += [
        Answer(422, json.dumps(missing).encode()),
        Answer(201, json.dumps(dataset).encode()),
        Answer(202, json.dumps(job).encode()),
    ]
    done = run(*given, "--json", SPNODE_URL=server.url)
    assert done.returncode == 0, done.stderr
    paths = [each.path.partition("?")[0] for each in server.asked]
    assert paths == ["/v1/jobs", "/v1/datasets", "/v1/jobs"]
    assert server.asked[1].body == b"trajectories"
    assert json.loads(server.asked[2].body)["dataset"] == "ds_1"


def test_versions_are_listed_with_their_errors_and_aliases(server):
    versions = [
        {**VERSION, "number": number, "normalised_rmse": error}
        for number, error in ((2, None), (1, 0.0125))
    ]
    model = {"name": "m", "aliases": {"champion": 1}}
    bodies = (model, {"data": versions, "next": None})
    server.answers += [Answer(200, json.dumps(each).encode()) for each in bodies * 2]
    done = run("models", "versions", "m", SPNODE_URL=server.url)
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [each[:-4] for each in rows] == [["2"], ["1", "champion", "0.0125"]]
    assert rows[0][-2:] == ["2026-01-02", "03:04:05Z"]
    done = run("models", "versions", "m", "--json", SPNODE_URL=server.url)
    found = json.loads(done.stdout)
    assert [each["normalised_rmse"] for each in found] == [None, 0.0125]


def test_a_dataset_is_written_to_a_file(server, tmp_path):
    server.answers.append(Answer(200, b"npz"))
    file = tmp_path / "x.npz"
    given = ("datasets", "download", "ds_1", "--output", str(file), "--json")
    done = run(*given, SPNODE_URL=server.url)
    assert json.loads(done.stdout) == {"file": str(file)}
    assert file.read_bytes() == b"npz"
    assert server.asked[0].path == "/v1/datasets/ds_1/data"


def test_watching_needs_a_terminal_and_excludes_json():
    alone = run("jobs", "list", "--watch", SPNODE_KEY="spn_x")
    assert (alone.returncode, "found no terminal" in alone.stderr) == (2, True)
    both = run("jobs", "list", "--watch", "--json", SPNODE_KEY="spn_x")
    assert (both.returncode, "found --json too" in both.stderr) == (2, True)


def test_a_watched_table_is_drawn_until_it_is_interrupted(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    drawn = []

    def draw():
        drawn.append(len(drawn))
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return table_of(("number",), [(f"number {len(drawn)}",)])

    monkeypatch.setattr(terminal, "out", console)
    terminal.watch(draw, every_s=0.001)
    said = console.file.getvalue()
    assert all(f"number {each}" in said for each in (1, 2, 3))


def test_an_id_is_whole_on_a_narrow_terminal_and_all_is_on_a_pipe(monkeypatch, capsys):
    id, text = f"job_{'0' * 26}", "a long description " * 20
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(terminal, "out", console)
    terminal.print_table(("id", "about"), [(id, text)])
    said = console.file.getvalue()
    assert id in said
    monkeypatch.undo()
    terminal.print_table(("id", "about"), [(id, text)])
    assert f"{id}  {text.strip()}" in capsys.readouterr().out


def test_without_its_packages_the_program_says_what_to_install():
    hidden = "import sys; sys.modules['typer'] = None; "
    code = hidden + "from spnode_client.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("install spnode[cli]")
    assert "Traceback" not in done.stderr
