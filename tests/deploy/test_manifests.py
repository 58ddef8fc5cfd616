"""Manifests of Kubernetes, units of systemd and the composition fit what they run."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from api.app import create_app
from api.dependencies import LIMITED_AT_ONCE, PARSING_THREADS
from api.server import _STOP_SECONDS
from services.queue_names import GPU_QUEUES, JOB_QUEUES
from services.settings import Settings
from tests.api.deployment import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
COMPOSED = yaml.safe_load(COMPOSE)["services"]
OURS = {name: each for name, each in COMPOSED.items() if "build" in each}
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
# Kinds of Prometheus' operator, which no cluster knows by itself: test_overlays.py.
MONITORS = ("ServiceMonitor", "PodMonitor")
_UNITS_OF_BYTES = {"m": 2**20, "g": 2**30, "k": 2**10}
# How long a gateway waits for its two threads and for the last spans.
_CLOSING_SECONDS = 22


def documents() -> list[tuple[str, dict]]:
    return [
        (f"{path.relative_to(KUBERNETES)} {each['kind']}", each)
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        for each in yaml.safe_load_all(path.read_text())
        if isinstance(each, dict)
    ]


OBJECTS = [each for each in documents() if not each[0].startswith("overlays")]
OBJECTS = [
    each
    for each in OBJECTS
    if each[1]["kind"] not in ("Kustomization", "Component", *MONITORS)
]
PODS = [
    each["spec"]["template"]["spec"]
    for _, each in OBJECTS
    if "template" in each.get("spec", {})
]


@pytest.mark.parametrize(
    ("name", "document"), OBJECTS, ids=lambda value: str(value)[:60]
)
def test_every_manifest_is_of_its_schema(name: str, document: dict) -> None:
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(document, version, strict=True)


def test_kustomizations_name_what_is_there_and_all_of_it() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        document = yaml.safe_load(path.read_text())
        for each in document.get("resources", []):
            assert (path.parent / each).exists(), (path, each)
        for each in document.get("components", []):
            assert (path.parent / each / "kustomization.yaml").exists(), (path, each)
        for patch in document.get("patches", []):
            text = patch.get("patch") or (path.parent / patch["path"]).read_text()
            assert yaml.safe_load(text)
    base = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    there = {each.name for each in (KUBERNETES / "base").iterdir()}
    assert set(base["resources"]) == there - {"kustomization.yaml"}


def test_images_are_built_by_the_dockerfile_and_named_by_each_overlay() -> None:
    used = {each["image"] for pod in PODS for each in pod["containers"]}
    for image in used:
        assert f" AS {image.removeprefix('spnode-')}\n" in DOCKERFILE, image
    for name in ("cpu", "gpu"):
        assert {each["name"] for each in overlay(name)["images"]} == used, name


def overlay(name: str) -> dict:
    path = KUBERNETES / "overlays" / name / "kustomization.yaml"
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_each_version_has_a_migration_of_its_own(name: str) -> None:
    (version,) = {
        each["newTag"].removesuffix("-cuda") for each in overlay(name)["images"]
    }
    (patch,) = (
        yaml.safe_load(each["patch"])
        for each in overlay(name)["patches"]
        if each["target"]["kind"] == "Job"
    )
    value = f"spnode-migrate-{version}"
    assert patch == [{"op": "replace", "path": "/metadata/name", "value": value}]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
@pytest.mark.parametrize("name", ["cpu", "gpu", "cpu-autoscaled", "gpu-autoscaled"])
def test_overlays_are_built_into_what_clusters_take(name: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / "overlays" / name],
        capture_output=True,
        text=True,
        check=True,
    )
    objects = list(yaml.safe_load_all(done.stdout))
    version = kubernetes_validate.latest_version()
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)
        assert each["metadata"]["namespace"] == "spnode"
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert ("Job", "spnode-migrate") not in found
    is_scaled = name.endswith("-autoscaled")
    for (kind, _), each in found.items():
        if kind == "Deployment":
            # Else each `kubectl apply` would undo what the autoscaler did.
            assert ("replicas" in each["spec"]) != is_scaled
    if is_scaled:
        scaler = found["HorizontalPodAutoscaler", "spnode-worker-training"]
        queues = JOB_QUEUES if name.startswith("cpu") else (*JOB_QUEUES, *GPU_QUEUES)
        assert selected(scaler) == {"queue": list(queues)}


def selected(scaler: dict) -> dict[str, list[str]]:
    (metric,) = scaler["spec"]["metrics"]
    assert metric["external"]["target"]["type"] == "AverageValue"
    expressions = metric["external"]["metric"]["selector"]["matchExpressions"]
    assert {each["operator"] for each in expressions} == {"In"}
    return {each["key"]: each["values"] for each in expressions}


def test_the_autoscaler_looks_at_each_queue_that_its_workers_take() -> None:
    (scaler,) = (
        each
        for _, each in OBJECTS
        if each["kind"] == "HorizontalPodAutoscaler"
        and each["metadata"]["name"] == "spnode-worker-training"
    )
    (worker,) = (
        container["command"]
        for pod in PODS
        for container in pod["containers"]
        if container["image"] == "spnode-training-worker"
    )
    taken = worker[worker.index("--queues") + 1].split(",")
    assert selected(scaler) == {"queue": taken}


def bytes_of(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z])i?", text).groups()
    return int(number) * _UNITS_OF_BYTES[unit.lower()]


def seconds_of(text: str) -> int:
    return int(text.removesuffix("s"))


def disk_of_uploads(environment: dict[str, str]) -> int:
    """The most that uploads take on a gateway's disk."""
    chosen = {k.removeprefix("SPNODE_").lower(): v for k, v in environment.items()}
    limits = Settings.model_validate({"data_folder": "/nonexistent", **chosen})
    assert {"max_upload_bytes", "upload_space_bytes"} <= set(chosen)
    # The parser's limit of a file it writes; what threads look into was written so.
    kept = 2 * limits.max_upload_bytes
    return limits.upload_space_bytes + (LIMITED_AT_ONCE + PARSING_THREADS) * kept


def test_uploads_fit_into_the_volume_of_a_gateway() -> None:
    settings = yaml.safe_load((KUBERNETES / "base" / "settings.yaml").read_text())
    (volume,) = (
        volume
        for pod in PODS
        for volume in pod["volumes"]
        if (pod["containers"][0]["name"], volume["name"]) == ("gateway", "data")
    )
    needed = disk_of_uploads(settings["data"])
    # JSON that becomes arrays, and what files of a few bytes take.
    beside = 2**29
    assert needed + beside < bytes_of(volume["emptyDir"]["sizeLimit"])
    text = (ROOT / "deploy" / "systemd" / "spnode-gateway.service").read_text()
    unit = dict(re.findall(r"^Environment=(SPNODE_\w+_BYTES)=(.+)$", text, re.M))
    composed = COMPOSED["gateway"]["environment"]
    limits = {k: v for k, v in composed.items() if k.endswith("_BYTES")}
    assert disk_of_uploads(unit) == disk_of_uploads(limits) == needed


def uploads_fit(environment: dict[str, str], memory_bytes: int) -> None:
    """A hostile upload ends its parser, and no process beside it."""
    chosen = {k.removeprefix("SPNODE_").lower(): v for k, v in environment.items()}
    limits = Settings.model_validate({"data_folder": "/nonexistent", **chosen})
    assert "parser_memory_bytes" in chosen
    beside = limits.queued_bytes_limit + limits.max_body_bytes
    parsers = LIMITED_AT_ONCE * limits.parser_memory_bytes
    assert parsers + beside + 512 * 2**20 < memory_bytes
    # As in the defaults: the file unpacked, and two copies of it.
    assert limits.parser_memory_bytes >= 3 * limits.max_upload_bytes


def test_a_parser_fits_into_the_memory_of_every_container() -> None:
    settings = yaml.safe_load((KUBERNETES / "base" / "settings.yaml").read_text())
    for pod in PODS:
        (container,) = pod["containers"]
        for volume in pod["volumes"]:
            assert bytes_of(volume["emptyDir"]["sizeLimit"]) >= 2**30
        if container["name"] != "migrate":
            memory = bytes_of(container["resources"]["limits"]["memory"])
            uploads_fit(settings["data"], memory)
    for service in OURS.values():
        given = service["environment"]
        parser = {k: v for k, v in given.items() if re.search("MAX_UPLOAD|PARSER", k)}
        uploads_fit(parser, bytes_of(service["mem_limit"]))
    gateway = (ROOT / "deploy" / "systemd" / "spnode-gateway.service").read_text()
    parser = dict(re.findall(r"^Environment=(SPNODE_\w+_BYTES)=(.+)$", gateway, re.M))
    uploads_fit(parser, bytes_of(re.findall(r"^MemoryMax=(.+)$", gateway, re.M)[0]))


def test_gateways_and_workers_have_time_to_drain() -> None:
    gateway = _STOP_SECONDS + _CLOSING_SECONDS
    worker = Settings.model_fields["stop_seconds"].default + 30
    for pod in PODS:
        (container,) = pod["containers"]
        grace = pod.get("terminationGracePeriodSeconds", 30)
        if container["name"] == "gateway":
            (before,) = re.findall(r"sleep\((\d+)\)", str(container["lifecycle"]))
            assert grace >= int(before) + gateway
        elif container["name"] == "worker":
            assert grace >= worker
    for name, service in OURS.items():
        needed = gateway if name == "gateway" else worker
        assert seconds_of(service["stop_grace_period"]) >= needed
    for path in UNITS:
        (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", path.read_text(), re.M)
        assert int(patience) >= (gateway if "gateway" in path.name else worker)


def test_pods_reach_what_they_need_and_no_more() -> None:
    policies = [each["spec"] for _, each in OBJECTS if each["kind"] == "NetworkPolicy"]
    (out,) = (each for each in policies if each["policyTypes"] == ["Egress"])
    (chosen,) = out["podSelector"]["matchExpressions"]
    components = {
        each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        for _, each in OBJECTS
        if "template" in each.get("spec", {})
    }
    assert set(chosen["values"]) == components
    ports = [{p["port"] for p in rule["ports"]} for rule in out["egress"]]
    # Names; database, broker, store and spans.
    assert ports == [{53}, {5432, 6379, 443, 4318}]


def test_pods_have_no_rights() -> None:
    assert len(PODS) == 4
    for pod in PODS:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        uid = pod["securityContext"]["runAsUser"]
        assert f"--uid {uid} spnode" in DOCKERFILE
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            # All that may be written to.
            assert {each["mountPath"] for each in container["volumeMounts"]} == {
                "/data",
                "/tmp",
            }


def test_settings_and_probes_are_those_of_the_code() -> None:
    settings = yaml.safe_load((KUBERNETES / "base" / "settings.yaml").read_text())
    names = {f"SPNODE_{name.upper()}" for name in Settings.model_fields}
    assert set(settings["data"]) <= names
    chosen = {k.removeprefix("SPNODE_").lower(): v for k, v in settings["data"].items()}
    parsed = Settings.model_validate({"data_folder": "/nonexistent", **chosen})
    (gateway,) = (
        each for pod in PODS for each in pod["containers"] if each["name"] == "gateway"
    )
    assert gateway["ports"][0]["containerPort"] == parsed.port
    paths = create_app(parsed).openapi()["paths"]
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    assert all(gateway[probe]["httpGet"]["path"] in paths for probe in probes)
    workers = [
        each for pod in PODS for each in pod["containers"] if each["name"] == "worker"
    ]
    for worker in workers:
        assert worker["ports"][0]["containerPort"] == parsed.metrics_port
        # As the image has it.
        words = ", ".join(f'"{word}"' for word in worker["command"])
        assert f"CMD [{words}]" in DOCKERFILE


def test_composed_processes_have_no_rights() -> None:
    assert len(OURS) == 5
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert [each.split(":")[0] for each in service["tmpfs"]] == ["/tmp"], name
        assert [each.split(":")[1] for each in service["volumes"]] == ["/data"], name


def test_composed_processes_can_send_spans() -> None:
    for service in OURS.values():
        environment = service["environment"]
        assert environment["SPNODE_TRACES_URL"] == "${SPNODE_TRACES_URL:-}"
        assert environment["SPNODE_TRACES_SHARE"] == "${SPNODE_TRACES_SHARE:-1}"


def passwords_of(service: dict) -> Iterator[str]:
    for name, value in service.get("environment", {}).items():
        if re.search("PASSWORD|SECRET|AUTH", name):
            yield value
        yield from re.findall(r"://\w*:(.+)@", value)
    for option, value in itertools.pairwise(service.get("command", [])):
        if option == "--requirepass":
            yield value


def test_no_password_of_the_composition_has_a_default(tmp_path: Path) -> None:
    found = [each for service in COMPOSED.values() for each in passwords_of(service)]
    # Three of each process of ours, and those of the four servers.
    assert len(found) == 3 * len(OURS) + 5
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", each) for each in found), found
    # What docs/deployment.md says makes them all, for their owner alone.
    (block,) = re.findall(
        r"```sh[^\n]*\n(\(umask 077\n.*?> \.env\)\n)", DEPLOYMENT, re.S
    )
    subprocess.run(["sh", "-euc", block], cwd=tmp_path, check=True)
    made = dict(re.findall(r"^(\w+)=(\w{32,})$", (tmp_path / ".env").read_text(), re.M))
    assert set(made) == set(re.findall(r"\$\{(\w+):\?", COMPOSE))
    assert len(set(made.values())) == len(made)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_the_composition_is_of_the_schema_of_compose(tmp_path: Path) -> None:
    def judged(path: Path) -> subprocess.CompletedProcess[str]:
        tool = shutil.which("check-jsonschema", path=Path(sys.executable).parent)
        assert tool is not None
        schema = ("--builtin-schema", "vendor.compose-spec")
        command = [tool, *schema, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = judged(ROOT / "docker-compose.yml")
    assert found.returncode == 0, found.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.replace("    healthcheck:", "    healthchek:"))
    assert "healthchek" in judged(wrong).stdout


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [program, "--no-color", ROOT / "deploy" / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_what_there_is(path: Path) -> None:
    text = path.read_text()
    (start,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    module = shlex.split(start)[2]
    assert (ROOT / module / "__main__.py").exists()
    for name in re.findall(r"\b(SPNODE_\w+)=", text):
        assert name.removeprefix("SPNODE_").lower() in Settings.model_fields


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here"
)
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_units(path: Path, tmp_path: Path) -> None:
    # Whether the program is installed is not what is asked.
    text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", path.read_text())
    copy = tmp_path / path.name.replace("@.", "@training.")
    copy.write_text(re.sub(r"^User=.*$", "", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
