"""A user's own file: trained, rolled out, exported from the shell."""

import csv
import dataclasses
import io
import json
import re
import signal
import stat
import subprocess
import sys

import httpx
import numpy as np
import pytest

import spnode_core
from spnode_client import Client, Forbidden
from tests.endtoend.conftest import ROOT


def test_an_own_file_trains_and_rolls_out_from_the_shell(shell, model, tmp_path):
    rollout = ("rollout", model, "--x0", "0.95,5e-7,0.05", "--times", "log:1e-5:1e5:50")
    shell.run(*rollout, "--output", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as written:
        states = written["states"][0]
        assert written["names"].tolist() == ["y1", "y2", "y3"]
    printed = csv.DictReader(io.StringIO(shell.run(*rollout).stdout))
    y1 = [float(row["y1"]) for row in printed]
    # CSV carries the shortest text that reads back as the same float64.
    assert y1 == states[:, 0].tolist()
    # The sum of the three is conserved by construction: the data said so.
    np.testing.assert_allclose(states.sum(axis=1), 0.95 + 5e-7 + 0.05, atol=1e-9)


def test_an_alias_is_made_and_moved_and_rolled_out(shell, model):
    for _ in range(2):
        moved = shell.json("models", "alias", model, "best", "1")
        assert (moved["alias"], moved["number"]) == ("best", 1)
    (listed,) = [m for m in shell.json("models", "list") if m["name"] == model]
    assert listed["aliases"]["best"] == 1
    shell.run("rollout", f"{model}@best", "--x0", "0.95,5e-7,0.05", "--times", "1")
    refused = shell.run("models", "delete", f"{model}/1", code=1)
    assert "best" in refused.stderr


def test_a_key_with_less_scope_can_do_less_and_none_when_revoked(shell, model):
    made = shell.json("keys", "create", "reader", "--scope", "read")
    with Client(shell.status()["url"], made["secret"]) as client:
        assert client.models.get(model)["name"] == model
        with pytest.raises(Forbidden, match="rollout"):
            client.rollout(model, [0.95, 5e-7, 0.05], [1.0])
        shell.run("keys", "revoke", made["id"])
        with pytest.raises(Forbidden):
            client.models.get(model)


def test_a_rollout_of_many_names_each_trajectory(shell, model):
    done = shell.run(
        "rollout", model, "--x0", "0.95,5e-7,0.05;0.97,5e-7,0.03", "--times", "1,10"
    )
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["trajectory", "time", "y1", "y2", "y3"]
    assert [row[0] for row in rows[1:]] == ["0", "0", "1", "1"]


def test_an_exported_artifact_loads_and_rolls_out_the_same(shell, model, tmp_path):
    with shell.client() as client:
        x = client.rollout(model, [0.95, 5e-7, 0.05], [1.0, 100.0])
        local = client.models.load(model)
    made = shell.json("export", model, "--output", tmp_path / "reaction.spnode")
    surrogate = spnode_core.load(made["path"], digest=made["digest"])
    for each in (surrogate, local):
        again = np.asarray(
            each.rollout(np.array([0.95, 5e-7, 0.05]), np.array([1, 100.0]))
        )
        # The served row runs in a tile of another size: last bits may differ.
        np.testing.assert_allclose(again, x, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rollout", "nobody", "--x0", "1,0,0", "--times", "1"), "nobody"),
        (("rollout", "{model}", "--x0", "1,0", "--times", "1"), "x0"),
        (("rollout", "{model}", "--x0", "1,0,0", "--times", "1,-1"), "times"),
        (("rollout", "{model}", "--x0", "1,0,nan", "--times", "1"), "finite"),
        (("train", "{file}", "--preset", "magic"), "preset"),
        (("train", "{file}", "--set", "training.iteration=5"), "iteration"),
        (("jobs", "show", "job_nothing"), "job_nothing"),
    ],
)
def test_a_refusal_names_what_is_wrong(shell, model, file, arguments, words):
    filled = [each.format(model=model, file=file) for each in arguments]
    assert words in shell.run(*filled, code=1).stderr


def test_what_is_there_is_shown_in_words(shell, model):
    version = shell.json("models", "show", model)
    told = shell.run("models", "show", model).stdout
    lines = [line.split() for line in told.splitlines() if line]
    assert lines[0][0] == f"{model}/{version['number']}"
    assert "nonlinear relaxation" in told
    # Errors of the states on what was held out, in per cent of their spread.
    found = version["evaluation"]["test"]["states"]["y2"]["normalised_rmse"]
    (row,) = (line for line in lines if line[0] == "y2")
    assert float(row[row.index("%") - 1]) == pytest.approx(100 * found, rel=0.06)
    data = shell.json("datasets", "list")[0]["id"]
    said = shell.run("datasets", "show", data).stdout
    assert "40 trajectories" in said
    assert "conserved" in said


def test_a_file_that_is_no_dataset_is_refused_with_the_reason(shell, tmp_path):
    np.savez(tmp_path / "one.npz", states=np.ones((1, 5, 2)), times=np.arange(5.0))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:100])
    states = np.ones((3, 5, 2))
    states[1, 2, 0] = np.nan
    np.savez(tmp_path / "nan.npz", states=states, times=np.arange(5.0))
    before = shell.json("datasets", "list")
    for name, words in (
        ("one", "trajector"),
        ("cut", "zip"),
        ("nan", "states[1, 2, 0]"),
    ):
        done = shell.run("train", tmp_path / f"{name}.npz", code=1)
        assert words in done.stderr, done.stderr
    kept = [each["summary"] for each in shell.json("datasets", "list")]
    assert [each for each in kept if each["trajectories"] > 1] == [
        each["summary"] for each in before
    ]


def test_the_key_file_is_its_owners_alone(shell):
    assert stat.S_IMODE((shell.data / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(shell.data.stat().st_mode) == 0o700
    url = shell.status()["url"]
    assert httpx.get(f"{url}/v1/models").status_code == 401


def test_a_job_can_be_queued_followed_and_cancelled(shell, model, file):
    queued = shell.run(
        "train", file, "--model", "long", "--iterations", "1000000", "--detach"
    )
    job = queued.stdout.split()[0]
    shell.run("jobs", "cancel", job)
    assert "cancelled" in shell.run("jobs", "follow", job, code=1).stderr
    assert shell.json("jobs", "show", job)["state"] == "cancelled"


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_ends_the_watching_and_not_the_job(shell, model, file):
    watching = subprocess.Popen(
        [*shell.program, "train", file, "--model", "long", "--iterations", "1000000"],
        env=shell.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stderr is not None
    said = ""
    while "running" not in said:
        said += watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, rest = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert "the job goes on" in rest
    assert "Traceback" not in rest
    (job,) = re.findall(r"job (job_\w+)", said)
    assert shell.json("jobs", "show", job)["state"] == "running"
    shell.run("jobs", "cancel", job)
    assert "cancelled" in shell.run("jobs", "follow", job, code=1).stderr


@pytest.mark.parametrize("example", ["optimise.py", "optimise_jax.py"])
def test_a_loop_of_ones_own_minimises_a_misfit(shell, model, example):
    with shell.client() as client:
        environment = {
            "SPNODE_URL": client.url,
            "SPNODE_KEY": (shell.data / "key").read_text().strip(),
        }
    done = subprocess.run(
        [sys.executable, ROOT / "docs/examples" / example, model],
        env={**shell.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "misfit" in done.stdout


def test_a_table_of_observations_tells_where_it_began(shell, model, tmp_path):
    truth, times = np.array([0.96, 5e-7, 0.04]), np.geomspace(0.01, 1e4, 6)
    with shell.client() as client:
        x = client.rollout(model, truth, times, precision="float64")
    lines = ["time,state,value,sigma"]
    for time, (y1, y2, _) in zip(times.tolist(), x.tolist(), strict=True):
        lines += [f"{time!r},y1,{y1!r},1e-3", f"{time!r},y2,{y2!r},1e-7"]
    seen = tmp_path / "seen.csv"
    seen.write_text("\n".join(lines))
    given = ("calibrate", model, seen, "--x0", "0,5e-7,0")
    given += ("--unknown", "y1=0.9:1", "--unknown", "y3=0:0.1", "--starts", 8)
    found = shell.json(*given)
    y1, y3 = found["estimates"]
    assert y1["value"] == pytest.approx(0.96, abs=1e-4)
    assert y3["value"] == pytest.approx(0.04, abs=1e-4)
    # The rms error of the quick model on trajectories that it has not seen.
    version = shell.json("models", "show", model)
    assert set(found["model_error"]) == {"y1", "y2"}
    assert all(error > 0 for error in found["model_error"].values()), version
    told = shell.run(*given)
    assert "x0.y3" in told.stdout
    assert "8 searches" in told.stdout
    with shell.client() as client:
        (job, *_) = client.jobs.list(kind="calibration")
        again = job.result()
    assert again["y1"].value == y1["value"]
    assert again.residuals.shape == (6, 2)
    assert shell.run(*given, "--prior", "y2=0:1", code=2).stderr


def test_status_says_what_runs(shell, model):
    found = shell.status()
    assert {each["name"] for each in found["processes"]} == {
        "valkey",
        "gateway",
        "worker",
    }
    assert set(found["queues"]) >= {"training", "datasets", "rollouts"}
    text = shell.run("status").stdout
    assert found["url"] in text
    assert str(shell.data) in text


def test_a_second_up_says_what_runs_and_starts_nothing(shell, model):
    before = shell.status()
    again = shell.json("up")
    assert again["started"] is False
    assert [each["pid"] for each in again["processes"]] == [
        each["pid"] for each in before["processes"]
    ]


def with_variables(shell, **variables):
    return dataclasses.replace(shell, variables={**shell.variables, **variables})


@pytest.mark.parametrize("command", ["up", "status"])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SPNODE_PORT", "70000", "SPNODE_PORT='70000': Input should be less than"),
        ("SPNODE_LOG_FORMAT", "josn", "SPNODE_LOG_FORMAT='josn': Input should be"),
        ("SPNODE_WOBBLE", "1", "SPNODE_WOBBLE is not a setting"),
    ],
)
def test_a_wrong_setting_is_refused_while_the_stack_runs(
    shell, command, name, value, said
):
    wrong = with_variables(shell, **{name: value})
    told = wrong.run(command, code=1).stderr
    assert told.startswith(f"error: {said}")
    assert "pydantic" not in told


def test_a_second_up_names_the_settings_that_it_does_not_apply(shell):
    assert "not applied" not in shell.run("up").stderr
    other = with_variables(shell, SPNODE_MAX_ROWS="7", SPNODE_PORT="1")
    said = "not applied until `./spnode down` and `./spnode up`"
    assert f"{said}: SPNODE_PORT, SPNODE_MAX_ROWS\n" in other.run("up").stderr


def test_the_doctor_finds_nothing_missing(shell, model):
    found = shell.json("doctor")
    assert {each["level"] for each in found} <= {"ok", "warn"}
    assert json.dumps(found)
