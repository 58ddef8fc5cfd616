"""What overlays and components add to the base fits it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.test_manifests import KUBERNETES

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
