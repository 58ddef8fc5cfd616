"""What the composition keeps lies in volumes, and an older one can be upgraded."""

import http.server
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from services.settings import Settings
from tests.api.deployment import ROOT
from tests.deploy.test_manifests import (
    COMPOSE,
    COMPOSED,
    DEPLOYMENT,
    OURS,
    bytes_of,
    seconds_of,
)
from worker.watching import LIVE

# Where each image keeps its state: for all but Grafana its own VOLUME says so.
STATE = {
    "valkey/valkey": "/data",
    "postgres": "/var/lib/postgresql",
    "chrislusf/seaweedfs": "/data",
    "prom/prometheus": "/prometheus",
    "grafana/grafana": "/var/lib/grafana",
}
THEIRS = {name: each for name, each in COMPOSED.items() if "build" not in each}
VOLUMES = yaml.safe_load(COMPOSE)["volumes"]
NETWORKS = yaml.safe_load(COMPOSE)["networks"]


def mounts(service: dict) -> dict[str, str]:
    """What is mounted, by its place."""
    pairs = (each.split(":")[:2] for each in service["volumes"])
    return {place: volume for volume, place in pairs}


@pytest.mark.parametrize("name", THEIRS)
def test_a_server_keeps_its_state_in_a_volume(name: str) -> None:
    image = THEIRS[name]["image"].partition(":")[0]
    assert mounts(THEIRS[name])[STATE[image]] in VOLUMES


def test_each_volume_is_of_one_kind_of_process() -> None:
    used = {
        volume: {name for name, each in COMPOSED.items() if volume in each_of(each)}
        for volume in VOLUMES
    }
    workers = {name for name in OURS if name.startswith("worker")}
    assert used.pop("worker-cache") == workers
    assert all(len(names) == 1 for names in used.values()), used


def each_of(service: dict) -> set[str]:
    return set(mounts(service).values())


def test_postgres_keeps_its_state_where_its_version_does() -> None:
    # Before 18 it was /var/lib/postgresql/data.
    (version,) = re.findall(r"image: postgres:(\d+)", COMPOSE)
    assert int(version) >= 18


@pytest.fixture
def watched() -> Iterator[tuple[int, list[str]]]:
    """A port that answers to ``/live`` alone, and what it was asked for."""
    asked = []

    class Watched(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == LIVE else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Watched) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def test_a_worker_that_answers_is_healthy(watched: tuple[int, list[str]]) -> None:
    port, asked = watched
    workers = [each for name, each in OURS.items() if name.startswith("worker")]
    (words,) = {tuple(each["healthcheck"]["test"]) for each in workers}
    assert words[:3] == ("CMD", "python", "-c")

    def judged(at: int) -> int:
        environment = {"SPNODE_METRICS_PORT": str(at)}
        command = [sys.executable, "-c", words[3]]
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False
        )
        return done.returncode

    assert judged(port) == 0
    assert asked == [LIVE]
    assert judged(1) != 0, "where nothing listens"
    for each in workers:
        assert each["environment"]["SPNODE_METRICS_PORT"] in ("9100", "9101")
        # As long as Kubernetes waits before its first probe, and more.
        assert seconds_of(each["healthcheck"]["start_period"]) >= 30


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_watches_has_no_rights(name: str) -> None:
    service = COMPOSED[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [each.split(":")[0] for each in service["tmpfs"]] == ["/tmp"]
    written = [each for each in service["volumes"] if not each.endswith(":ro")]
    assert [each.split(":")[0] for each in written] == [f"{name}-data"]


@pytest.mark.parametrize("name", ["valkey", "postgres", "store"])
def test_a_server_gains_no_rights(name: str) -> None:
    service = COMPOSED[name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    # To take its volume and to become a user without rights.
    taken = {"CHOWN", "DAC_OVERRIDE", "FOWNER"}
    assert set(service["cap_add"]) == taken | {"SETUID", "SETGID"}
    assert bytes_of(service["mem_limit"]) >= 2 * 2**30
    written = {each.split(":")[0] for each in service["tmpfs"]}
    assert written == {"/tmp"} | ({"/run/postgresql"} if name == "postgres" else set())
    assert "ports" not in service


@pytest.mark.parametrize("name", COMPOSED)
def test_nothing_takes_all_memory_of_the_machine(name: str) -> None:
    assert bytes_of(COMPOSED[name]["mem_limit"]) >= 2**29


def test_valkey_refuses_writes_before_it_is_killed() -> None:
    words = COMPOSED["valkey"]["command"]
    given = dict(itertools.pairwise(words))
    assert given["--maxmemory-policy"] == "noeviction"
    most = bytes_of(given["--maxmemory"].removesuffix("b"))
    # A log that is written anew needs a copy of what is written to meanwhile.
    assert 1.5 * most <= bytes_of(COMPOSED["valkey"]["mem_limit"])


def reached_from(name: str) -> set[str]:
    """Services that share a network with one."""
    own = set(COMPOSED[name]["networks"])
    return {each for each in COMPOSED if own & set(COMPOSED[each]["networks"])}


def test_what_watches_reaches_no_server() -> None:
    watching = {"prometheus", "grafana"}
    for name in watching:
        assert reached_from(name) == watching | OURS.keys()
    for name in ("valkey", "postgres", "store"):
        assert reached_from(name) == COMPOSED.keys() - watching
    assert all(reached_from(name) == COMPOSED.keys() for name in OURS)
    # On one that is internal, Prometheus would have no port of the machine.
    assert NETWORKS == {"inside": None, "monitoring": None}


def test_only_s3_of_the_store_is_reached_from_other_containers() -> None:
    given = dict(
        each.removeprefix("-").split("=")
        for each in COMPOSED["store"]["command"]
        if "=" in each
    )
    bound = {name: value for name, value in given.items() if name.endswith("ip.bind")}
    assert bound == {"ip.bind": "127.0.0.1", "s3.ip.bind": "0.0.0.0"}
    assert given["ip"] == "127.0.0.1", "its parts find each other there"
    url = OURS["gateway"]["environment"]["AWS_ENDPOINT_URL"]
    assert url == f"http://store:{given['s3.port']}"
    assert given["s3.port.iceberg"] == given["s3.port.lance"] == "0"
    assert given["master.telemetry"] == "false"


def test_the_store_lets_go_of_garbage_within_its_limit() -> None:
    soft = COMPOSED["store"]["environment"]["GOMEMLIMIT"].removesuffix("B")
    assert bytes_of(soft) < bytes_of(COMPOSED["store"]["mem_limit"])


@pytest.mark.parametrize(
    ("setting", "default"), [("rate_per_key", "0"), ("rollout_timeout_seconds", "60")]
)
def test_it_can_be_chosen_wherever_it_is_deployed(setting: str, default: str) -> None:
    assert Settings.model_fields[setting].default == float(default)
    name = f"SPNODE_{setting.upper()}"
    gateway = OURS["gateway"]["environment"]
    assert gateway[name] == f"${{{name}:-{default}}}"
    settings = ROOT / "deploy" / "kubernetes" / "base" / "settings.yaml"
    assert yaml.safe_load(settings.read_text())["data"][name] == default
    example = ROOT / "deploy" / "systemd" / "environment.example"
    assert f"\n{name}={default}\n" in example.read_text()


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    found = {
        place: ROOT / source for place, source in mounts(COMPOSED["grafana"]).items()
    }
    folder = found["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "spnode.yml").read_text())[
        "providers"
    ]
    # A dashboard that lies in the volume would hide those of a new version.
    place = provider["options"]["path"]
    assert list(found[place].glob("*.json"))
    assert not place.startswith(STATE["grafana/grafana"])


def test_a_role_gets_the_password_of_the_environment(tmp_path: Path) -> None:
    (script,) = re.findall(r"exec postgres sh -c \\\n    '(.+)'\n", DEPLOYMENT)
    psql = tmp_path / "psql"
    psql.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    psql.chmod(0o700)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "POSTGRES_PASSWORD": "0a1b2c"}
    done = subprocess.run(
        ["sh", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    said = "ALTER ROLE spnode PASSWORD $$0a1b2c$$"
    assert done.stdout.splitlines() == ["-U", "spnode", "-c", said]
