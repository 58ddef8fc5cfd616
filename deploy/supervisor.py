"""The supervisor: a ``supervisord`` of our own, its configuration and its voice.

It runs valkey, gateway and workers, starts again what crashes, and writes each exit
with its reason into its log, from where ``restarts`` reads them.
"""

import http.client
import os
import re
import shlex
import subprocess
import sys
import xmlrpc.client
from dataclasses import dataclass, field
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from deploy.folder import ROOT, Folder, write_private

HEAD = """\
[unix_http_server]
file = {socket}
chmod = 0700

[supervisord]
logfile = {log}
logfile_maxbytes = 10MB
logfile_backups = 3
loglevel = info
pidfile = {pidfile}
nodaemon = false
nocleanup = true
directory = {root}
umask = 077

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

"""
PROGRAM = """\
[program:{name}]
command = {command}
directory = {root}
priority = {priority}
autostart = true
autorestart = true
startsecs = 2
startretries = 20
stopsignal = TERM
stopwaitsecs = {stop_s}
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}
stdout_logfile_maxbytes = 20MB
stdout_logfile_backups = 2
environment = {environment}

"""
_EXIT = re.compile(r"^(\S+ \S+?),\d+ \w+ exited: (\S+) \((.*)\)$")
_BEGIN = re.compile(r"supervisord started with pid")


@dataclass(frozen=True)
class Program:
    """One process of the stack."""

    name: str
    command: list[str]
    priority: int
    stop_s: int = 20
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that it alone has."""


@dataclass(frozen=True)
class Process:
    """A process as the supervisor sees it now."""

    name: str
    state: str
    pid: int
    uptime_s: int
    restarts: list[str] = field(default_factory=list)
    """When and why it was started again, oldest first."""


def write_configuration(folder: Folder, programs: list[Program]) -> str:
    """Write the configuration; give its path."""
    text = HEAD.format(
        socket=_escape(folder.supervisor_socket),
        log=_escape(folder.supervisor_log),
        pidfile=_escape(folder.path / "supervisord.pid"),
        root=_escape(ROOT),
    )
    for program in programs:
        wrapped = [sys.executable, "-P", "-m", "deploy.process", *program.command]
        text += PROGRAM.format(
            name=program.name,
            command=_escape(shlex.join(wrapped)),
            root=_escape(ROOT),
            priority=program.priority,
            stop_s=program.stop_s,
            # This one is expanded twice.
            log=_escape(_escape(folder.logs / f"{program.name}.log")),
            environment=",".join(
                f'{name}="{_escape(value)}"'
                for name, value in program.environment.items()
            ),
        )
    path = folder.path / "supervisord.conf"
    write_private(path, text)
    return os.fspath(path)


def launch(folder: Folder, configuration: str, environment: dict[str, str]) -> None:
    """Start a supervisor in the background.

    Raises:
        RuntimeError: It did not start; the message is its own.
    """
    for stale in (folder.supervisor_socket, folder.valkey_socket):
        stale.unlink(missing_ok=True)
    (folder.path / "supervisord.pid").unlink(missing_ok=True)
    module = [sys.executable, "-P", "-m", "supervisor.supervisord"]
    done = subprocess.run(
        [*module, "--configuration", configuration],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"the supervisor did not start: {said}")


def call(folder: Folder, method: str, *arguments: Any) -> Any:
    """Call the supervisor; None where there is none to answer."""
    url = f"unix://{folder.supervisor_socket}"
    transport = SupervisorTransport(None, None, serverurl=url)
    proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
    try:
        return getattr(proxy.supervisor, method)(*arguments)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        transport.close()


def processes(folder: Folder) -> list[Process] | None:
    """The processes of a running stack; None where none runs."""
    found = call(folder, "getAllProcessInfo")
    if found is None:
        return None
    exits = restarts(folder)
    return [
        Process(
            name=info["name"],
            state=info["statename"].lower(),
            pid=info["pid"],
            uptime_s=max(0, info["now"] - info["start"]) if info["pid"] else 0,
            restarts=exits.get(info["name"], []),
        )
        for info in found
    ]


def restarts(folder: Folder) -> dict[str, list[str]]:
    """Unexpected exits since the supervisor started, ``"time: reason"`` by name."""
    try:
        lines = folder.supervisor_log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines:
        if _BEGIN.search(line):
            found = {}
        elif match := _EXIT.match(line):
            reason = match[3].removesuffix("; not expected")
            found.setdefault(match[2], []).append(f"{match[1]}: {reason}")
    return found


def shutdown(folder: Folder, pids: list[int], wait_s: float) -> list[int]:
    """End the stack, gracefully, then hard; give the pids that had to be killed."""
    call(folder, "shutdown")
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, stubborn = psutil.wait_procs(alive, timeout=wait_s)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    return [process.pid for process in stubborn]


def _escape(value: object) -> str:
    """Supervisor expands ``%`` in its configuration, and ``;`` begins a comment."""
    text = str(value).replace("%", "%%")
    if " ;" in text or "\n" in text:
        raise ValueError(f"the supervisor cannot use the path {text!r}")
    return text
