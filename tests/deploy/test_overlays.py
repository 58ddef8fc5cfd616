"""What overlays and components add to the base fits it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.api.deployment import ROOT
from tests.deploy.test_manifests import KUBERNETES, MONITORS
from tests.deploy.test_monitoring import ALERTS, OPERATIONS

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not here"
)


def built(folder: Path) -> list[dict]:
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(done.stdout))


@needs_kubectl
@pytest.mark.parametrize("name", ["gpu", "gpu-autoscaled"])
def test_a_roll_needs_no_gpu_to_spare(name: str) -> None:
    strategies = {
        each["metadata"]["name"]: each["spec"]["strategy"]["rollingUpdate"]
        for each in built(KUBERNETES / "overlays" / name)
        if each["kind"] == "Deployment" and "nvidia.com/gpu" in str(each)
    }
    assert strategies.keys() == {"spnode-worker-rollout", "spnode-worker-training"}
    for each in strategies.values():
        assert each == {"maxUnavailable": 1, "maxSurge": 0}


@needs_kubectl
def test_without_gpus_a_worker_stays_until_the_next_is_there() -> None:
    for each in built(KUBERNETES / "overlays" / "cpu"):
        if each["kind"] == "Deployment":
            given = each["spec"].get("strategy", {}).get("rollingUpdate", {})
            # A quarter of one, rounded down, where nothing is said.
            assert given.get("maxUnavailable", 0) == 0


@needs_kubectl
@pytest.mark.parametrize("name", ["cpu", "cpu-autoscaled"])
def test_a_drained_node_leaves_a_rollout_worker(name: str) -> None:
    found = {
        each["kind"]: each["spec"]
        for each in built(KUBERNETES / "overlays" / name)
        if each["metadata"]["name"] == "spnode-worker-rollout"
    }
    scaler = found.get("HorizontalPodAutoscaler")
    least = scaler["minReplicas"] if scaler else found["Deployment"]["replicas"]
    assert least - found["PodDisruptionBudget"]["maxUnavailable"] == 1
    pod = found["Deployment"]["template"]
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    assert fits(spread["labelSelector"], pod["metadata"]["labels"])
    # Two on one node are better than one.
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


@pytest.fixture
def monitored(tmp_path: Path) -> dict[str, dict[str, dict]]:
    """The objects of an overlay with the component, by kind and name."""
    named = {
        "resources": "overlays/cpu",
        "components": "components/prometheus-operator",
    }
    content = {
        field: [os.path.relpath(KUBERNETES / place, tmp_path.resolve())]
        for field, place in named.items()
    }
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({**content, "namespace": "spnode"})
    )
    found: dict[str, dict[str, dict]] = {}
    for each in built(tmp_path):
        assert each["metadata"]["namespace"] == "spnode"
        found.setdefault(each["kind"], {})[each["metadata"]["name"]] = each
    return found


def fits(selector: dict, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert wanted or expressions, "it selects everything"
    assert all(each["operator"] == "In" for each in expressions)
    return wanted.items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def pods_of(found: dict) -> dict[str, dict]:
    """The templates of Deployments, by name."""
    return {
        name: each["spec"]["template"] for name, each in found["Deployment"].items()
    }


def ports_of(template: dict) -> dict[str, int]:
    (container,) = template["spec"]["containers"]
    return {each["name"]: each["containerPort"] for each in container["ports"]}


@needs_kubectl
def test_prometheus_reads_gateways_with_a_key(monitored: dict) -> None:
    (monitor,) = monitored["ServiceMonitor"].values()
    (endpoint,) = monitor["spec"]["endpoints"]
    (service,) = (
        each
        for each in monitored["Service"].values()
        if fits(monitor["spec"]["selector"], each["metadata"]["labels"])
    )
    # A Service that an overlay adds is of the same whole, and has no such path.
    others = {"app.kubernetes.io/part-of": "spnode"}
    assert not fits(monitor["spec"]["selector"], others)
    (port,) = (p for p in service["spec"]["ports"] if p["name"] == endpoint["port"])
    behind = {
        name: ports_of(template)
        for name, template in pods_of(monitored).items()
        if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    }
    assert behind == {"spnode-gateway": {port["targetPort"]: 8000}}
    assert endpoint["path"] == "/metrics"
    # As docs/operations.md makes it.
    secret = endpoint["authorization"]["credentials"]
    made = f"secret generic {secret['name']} --from-literal={secret['key']}="
    assert made in OPERATIONS


@needs_kubectl
def test_prometheus_reads_every_worker_through_the_policy(monitored: dict) -> None:
    (monitor,) = monitored["PodMonitor"].values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    read = {
        name: ports_of(template)[endpoint["port"]]
        for name, template in pods_of(monitored).items()
        if fits(monitor["spec"]["selector"], template["metadata"]["labels"])
    }
    assert read == {"spnode-worker-rollout": 9100, "spnode-worker-training": 9100}
    (rule,) = monitored["NetworkPolicy"]["spnode-workers"]["spec"]["ingress"]
    assert {each["port"] for each in rule["ports"]} == set(read.values())


@needs_kubectl
def test_alerts_find_what_prometheus_reads(monitored: dict) -> None:
    called = set()
    for kind in MONITORS:
        for each in monitored[kind].values():
            spec = each["spec"]
            (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
            (relabeling,) = endpoint["relabelings"]
            assert relabeling["targetLabel"] == "job"
            called.add(relabeling["replacement"])
    asked = dict(re.findall(r'\bjob(=~|=)"([^"]+)"', ALERTS.read_text()))
    assert asked.keys() == {"=", "=~"}
    assert asked["="] in called
    assert all(re.fullmatch(asked["=~"], each) for each in called)


def test_the_alerts_become_a_rule_of_the_operator(tmp_path: Path) -> None:
    (script,) = re.findall(
        r"^(\{\n.*?\n\} \| kubectl apply -f -)$", OPERATIONS, re.M | re.S
    )
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\ncat\n")
    kubectl.chmod(0o700)
    done = subprocess.run(
        ["sh", "-euc", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rule = yaml.safe_load(done.stdout)
    assert rule.pop("spec") == yaml.safe_load(ALERTS.read_text())
    assert rule == {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "spnode", "namespace": "spnode"},
    }
