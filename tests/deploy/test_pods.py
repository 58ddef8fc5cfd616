"""What Kubernetes itself puts into a pod is no trouble to what runs there."""

import pytest

from services.settings import SettingsError, read_settings
from tests.deploy.test_manifests import OBJECTS, PODS
from worker.watching import LIVE, READY


def test_no_service_puts_its_address_among_the_settings() -> None:
    services = [each for _, each in OBJECTS if each["kind"] == "Service"]
    names = [each["metadata"]["name"].upper().replace("-", "_") for each in services]
    (injected,) = (f"{name}_SERVICE_HOST" for name in names)
    with pytest.raises(SettingsError, match="SPNODE_SERVICE_HOST is not a setting"):
        read_settings({injected: "10.0.0.1"})
    assert len(PODS) == 4
    assert all(pod["enableServiceLinks"] is False for pod in PODS)


def test_probes_of_workers_are_what_they_answer() -> None:
    found = {}
    for name, each in OBJECTS:
        if "worker" not in name or each["kind"] != "Deployment":
            continue
        (container,) = each["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("livenessProbe", "readinessProbe"):
            if asked := container.get(probe, {}).get("httpGet"):
                assert asked["port"] in ports
                found[each["metadata"]["name"], probe] = asked["path"]
    assert found == {
        ("spnode-worker-rollout", "livenessProbe"): LIVE,
        ("spnode-worker-rollout", "readinessProbe"): READY,
        ("spnode-worker-training", "livenessProbe"): LIVE,
    }


def test_a_busy_process_has_seconds_to_answer_a_probe() -> None:
    containers = [each for pod in PODS for each in pod["containers"]]
    probes = [
        each[probe]
        for each in containers
        for probe in ("livenessProbe", "readinessProbe")
        if probe in each
    ]
    assert len(probes) == 5
    for each in probes:
        # One second where nothing is said.
        assert 3 <= each["timeoutSeconds"] <= each["periodSeconds"]
