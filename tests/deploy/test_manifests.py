"""Kubernetes manifests and systemd units fit the code that they run."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from api.app import create_app
from services.settings import Settings
from tests.api.deployment import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def documents() -> list[tuple[str, dict]]:
    return [
        (f"{path.relative_to(KUBERNETES)} {each['kind']}", each)
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        for each in yaml.safe_load_all(path.read_text())
        if isinstance(each, dict)
    ]


OBJECTS = [each for each in documents() if not each[0].startswith("overlays")]
OBJECTS = [
    each for each in OBJECTS if each[1]["kind"] not in ("Kustomization", "Component")
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
        for patch in document.get("patches", []):
            assert yaml.safe_load((path.parent / patch["path"]).read_text())
    base = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    there = {each.name for each in (KUBERNETES / "base").iterdir()}
    assert set(base["resources"]) == there - {"kustomization.yaml"}


def test_images_are_built_by_the_dockerfile_and_named_by_each_overlay() -> None:
    used = {each["image"] for pod in PODS for each in pod["containers"]}
    for image in used:
        assert f" AS {image.removeprefix('spnode-')}\n" in DOCKERFILE, image
    for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"):
        named = {each["name"] for each in yaml.safe_load(path.read_text())["images"]}
        assert named == used, path


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


def test_the_composition_is_of_the_schema_of_compose(tmp_path: Path) -> None:
    def judged(path: Path) -> subprocess.CompletedProcess[str]:
        tool = shutil.which("check-jsonschema", path=Path(sys.executable).parent)
        assert tool is not None
        schema = ("--builtin-schema", "vendor.compose-spec")
        command = [tool, *schema, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    file = ROOT / "docker-compose.yml"
    found = judged(file)
    assert found.returncode == 0, found.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(file.read_text().replace("    healthcheck:", "    healthchek:"))
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
