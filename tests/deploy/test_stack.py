"""The embedded stack's choices: ports, sockets, private files, settings."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import stack, supervisor
from deploy.folder import LONGEST_SOCKET_PATH, ROOT, Folder, write_private
from deploy.given import differing, given_settings
from deploy.supervisor import Program
from services.settings import Settings


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not stack.is_free("127.0.0.1", port)
        assert stack.find_port("127.0.0.1", port) > port


def test_port_0_is_one_that_the_system_chooses():
    port = stack.find_port("127.0.0.1", 0)
    assert port > 1023
    assert stack.is_free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_of_this_machine_is_no_taken_port(host):
    with pytest.raises(stack.StackError, match=r"SPNODE_HOST: .*of this machine"):
        stack.find_port(host, 8000)


def test_sockets_of_a_deep_folder_lie_where_their_path_is_short(tmp_path):
    folder = Folder(tmp_path / ("deep" * 30))
    folder.create()
    try:
        assert len(os.fsencode(folder.supervisor_socket)) <= LONGEST_SOCKET_PATH
        assert stat.S_IMODE(folder.sockets.stat().st_mode) == 0o700
        assert folder.sockets == Folder(folder.path).sockets
        assert folder.sockets != Folder(tmp_path / ("other" * 30)).sockets
    finally:
        folder.sockets.rmdir()


def test_a_private_file_is_never_readable_by_others(tmp_path):
    path = tmp_path / "key"
    previous = os.umask(0)
    try:
        write_private(path, "secret")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_the_supervisor_reads_a_configuration_with_odd_paths(tmp_path):
    folder = Folder(tmp_path / "50 % of 'it'")
    folder.create()
    program = Program(
        "echo", ["echo", "50 %", "it's"], 1, environment={"NAME": "50 % of 1,2"}
    )
    configuration = supervisor.write_configuration(folder, [program])
    code = (
        "import sys; from supervisor.options import ServerOptions; "
        "o = ServerOptions(); o.realize(['-c', sys.argv[1]]); "
        "p = o.process_group_configs[0].process_configs[0]; "
        "print(p.command); print(p.stdout_logfile); print(o.logfile); "
        "print(p.environment['NAME'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, configuration],
        capture_output=True,
        text=True,
        check=True,
    )
    command, log, own_log, variable = done.stdout.splitlines()
    assert variable == "50 % of 1,2"
    assert command.endswith("echo '50 %' 'it'\"'\"'s'")
    assert log == str(folder.logs / "echo.log")
    assert own_log == str(folder.supervisor_log)


def test_restarts_are_read_since_the_last_start(tmp_path):
    folder = Folder(tmp_path)
    folder.create()
    folder.supervisor_log.write_text(
        "2026-01-01 10:00:00,000 INFO supervisord started with pid 1\n"
        "2026-01-01 10:00:01,000 WARN exited: worker (exit status 1; not expected)\n"
        "2026-01-01 11:00:00,000 INFO supervisord started with pid 2\n"
        "2026-01-01 11:00:01,000 WARN exited: worker (terminated by SIGKILL; not "
        "expected)\n"
        "2026-01-01 11:00:02,000 INFO stopped: gateway (exit status 0)\n"
    )
    assert supervisor.restarts(folder) == {
        "worker": ["2026-01-01 11:00:01: terminated by SIGKILL"]
    }


@pytest.mark.parametrize("command", ["up", "doctor"])
def test_an_unknown_setting_is_named_before_anything_starts(tmp_path, command):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deploy", command],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SPNODE_DATA_FOLDER": str(tmp_path / "data"),
            "SPNODE_MAX_ROW": "5",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "SPNODE_MAX_ROW" in done.stdout + done.stderr
    assert "SPNODE_MAX_ROWS" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "spnode.db").exists()


def test_the_process_wrapper_ends_with_its_parent(tmp_path):
    pid_file = tmp_path / "pid"
    # A shell between: it dies, and what it started must die with it.
    wrapped = f"{sys.executable} -P -m deploy.process sleep 60 & echo $! > {pid_file}; "
    shell = subprocess.Popen(
        ["sh", "-c", f"{wrapped} sleep 0.5; kill -9 $$"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    shell.wait(20)
    child = Path(f"/proc/{pid_file.read_text().strip()}")
    assert not child.exists() or "Z" in (child / "stat").read_text().split()[2]


def test_each_rollout_worker_has_a_name_and_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("SPNODE_REDIS_URL", "redis://broker")
    settings = Settings(executor="queue", rollout_workers=3)
    programs = stack._programs(Folder(tmp_path), settings)
    assert [each.name for each in programs] == [
        "gateway",
        "worker",
        "rollouts-1",
        "rollouts-2",
        "rollouts-3",
    ]
    gpus = [each.environment.get("CUDA_VISIBLE_DEVICES") for each in programs]
    assert gpus == [None, None, "4", "7", "4"]
    inline = settings.model_copy(update={"executor": "inline"})
    assert len(stack._programs(Folder(tmp_path), inline)) == 2


def test_several_workers_of_jobs_have_a_gpu_each(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("SPNODE_REDIS_URL", "redis://broker")
    programs = stack._programs(Folder(tmp_path), Settings(job_workers=2))
    assert [each.name for each in programs] == ["gateway", "worker-1", "worker-2"]
    gpus = [each.environment.get("CUDA_VISIBLE_DEVICES") for each in programs]
    assert gpus == [None, "4", "7"]


def test_settings_of_the_last_start_are_compared_where_they_are_known(
    tmp_path, monkeypatch
):
    folder = Folder(tmp_path)
    folder.create()
    monkeypatch.setenv("SPNODE_MAX_ROWS", "7")
    assert differing(folder) == [], "nothing is known"
    started = {"settings": given_settings(folder).environment()}
    write_private(folder.stack, json.dumps(started))
    assert differing(folder) == []
    monkeypatch.delenv("SPNODE_MAX_ROWS")
    assert differing(folder) == ["SPNODE_MAX_ROWS"]
    # The default is no wish for another port than the one that was free.
    started["settings"] |= {"SPNODE_PORT": "8123", "SPNODE_MAX_ROWS": "65536"}
    write_private(folder.stack, json.dumps(started))
    assert differing(folder) == []
    monkeypatch.setenv("SPNODE_PORT", "8124")
    assert differing(folder) == ["SPNODE_PORT"]


def test_a_port_that_another_took_meanwhile_is_no_start_of_ours():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert stack._listens(os.getpid(), port)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
        try:
            assert not stack._listens(child.pid, port)
        finally:
            child.communicate(b"\n")
        assert not stack._listens(child.pid, port), "it has ended"
