"""The services of docker-compose.yml, as plain processes, do the main job.

Real PostgreSQL, SeaweedFS (S3) and Valkey; rollouts run on a worker behind the queue,
and the gateway never loads JAX.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from spnode_client import Client
from spnode_core import systems
from tests.deploy.test_monitoring import alerts
from tests.endtoend.composed import ROOT, Composition
from tests.endtoend.conftest import SMALL

QUICK = {"iterations": 60, "polish": "none", "batch": 16, "optimiser": "adam"}


@pytest.fixture(scope="module")
def composition():
    # Not pytest's folder: PostgreSQL's unprivileged user must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="spnode-compose-"))
    folder.chmod(0o755)
    made = Composition(ROOT / "docker-compose.yml", folder)
    try:
        made.up()
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def client(composition):
    url = f"http://127.0.0.1:{composition.ports['8000']}"
    with Client(url, _new_key(composition, "test"), timeout_s=120) as made:
        yield made


def test_the_composed_services_do_the_main_job(composition, client):
    dataset = client.datasets.generate("robertson", 20).wait(120)
    job = client.train(dataset, "robertson", training=QUICK, surrogate=SMALL)
    version = job.wait(240)
    assert str(version) == "robertson/1"
    system = systems.get("robertson")
    x0 = np.array([[0.95, 5e-7, 0.05], [0.97, 5e-7, 0.03]])
    x = client.rollout("robertson", x0, system.times())
    assert x.shape == (2, 51, 3)
    # One number is computed the same on the worker alone and in a batch.
    alone = client.rollout("robertson", x0[0], system.times())
    np.testing.assert_array_equal(alone, x[0])
    gradient = client.vjp("robertson", x0[0], [1.0, 10.0], np.ones((2, 3)))["vjp"]["x0"]
    # The decoder keeps y1 + y2 + y3: the sum of the answer is that of the start.
    np.testing.assert_allclose(gradient, [2.0, 2.0, 2.0], rtol=1e-6)
    counted = {
        name: httpx.get(f"http://127.0.0.1:{composition.ports[port]}/metrics").text
        for name, port in (("training", "9101"), ("rollout", "9100"))
    }
    attempts = 'spnode_job_attempt_seconds_count{ending="done",kind="training"} 1.0'
    assert attempts in counted["training"]
    whole = attempts.replace("job_attempt", "job")
    assert whole in counted["training"]
    assert 'spnode_compute_seconds_count{operation="vjp"}' in counted["rollout"]
    assert "spnode_rollout_device_bytes 0.0" in counted["rollout"]
    assert "spnode_job_device_bytes 0.0" in counted["training"]
    assert "spnode_rollout_models_resident 1.0" in counted["rollout"]
    assert _has_jax(composition.running["worker-rollout"].pid)
    assert not _has_jax(composition.running["gateway"].pid)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="it is not here")
def test_prometheus_reads_every_process_and_finds_its_rules(composition):
    composition.start_prometheus(_new_key(composition, "prometheus", "metrics"))
    url = f"http://127.0.0.1:{composition.ports['9090']}/api/v1"
    expected = [("spnode-gateway", "1"), *[("spnode-worker", "1")] * 2]
    found = _when(lambda: _of_query(url, "up"), expected)
    assert found == expected, composition.log("prometheus")
    assert _of_query(url, "max(spnode_warm)") == [("", "1")]
    rules = {each["alert"]: "ok" for each in alerts()}
    assert _when(lambda: _of_rules(url), rules) == rules


def test_every_path_that_the_images_copy_exists():
    for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith(("--from", "<<")):
            for source in words[1:-1]:
                assert (ROOT / source).exists(), line


def test_every_service_that_is_built_names_a_stage_of_the_dockerfile(composition):
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for name, service in composition.services.items():
        if "build" in service:
            assert f" AS {service['build']['target']}\n" in text, name


def test_no_image_runs_as_root():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for stage in ("gateway", "worker"):
        body = text.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
        # A number, so that a cluster can see that it is not root.
        assert "\nUSER 10001\n" in body, stage


def _new_key(composition: Composition, *words: str) -> str:
    """What ``docker compose exec gateway python -m deploy.make_key`` prints."""
    done = subprocess.run(
        [composition.binaries / "python", "-m", "deploy.make_key", *words],
        env=composition.environment("gateway"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _of_query(url: str, query: str) -> list[tuple[str, str]]:
    """Job and value of each series that Prometheus finds, sorted."""
    try:
        answer = httpx.get(f"{url}/query", params={"query": query})
        answer.raise_for_status()
    except httpx.HTTPError:
        # It does not listen yet, or is reading what it has written before.
        return []
    return sorted(
        (each["metric"].get("job", ""), each["value"][1])
        for each in answer.json()["data"]["result"]
    )


def _of_rules(url: str) -> dict[str, str]:
    """How each alert's last evaluation ended: ``ok``, ``err`` or ``unknown``."""
    groups = httpx.get(f"{url}/rules").json()["data"]["groups"]
    return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}


def _when(asked: Callable[[], Any], expected: Any) -> Any:
    """What is found once it is what was expected, or after half a minute."""
    end = time.monotonic() + 30
    while (found := asked()) != expected and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _has_jax(pid: int) -> bool:
    return "jaxlib" in Path(f"/proc/{pid}/maps").read_text()
