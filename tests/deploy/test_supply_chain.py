"""What is installed is what is locked, and the bill of materials says so."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions

import pytest
from packaging.utils import canonicalize_name

from deploy.folder import ROOT
from deploy.sbom import IMAGES, write_bill

LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", re.M)


def installed():
    return {
        canonicalize_name(each.metadata["Name"]): each.version
        for each in distributions()
    }


@pytest.fixture(scope="module")
def bill(tmp_path_factory):
    return write_bill(tmp_path_factory.mktemp("bill") / "sbom.json")


def test_every_package_is_locked_with_hashes():
    text = (ROOT / "requirements.lock").read_text()
    # One package may have several, for different platforms.
    locked = {
        (canonicalize_name(name), version) for name, version in LOCKED.findall(text)
    }
    ours = {"spnode", "pip", "setuptools", "wheel", "uv"}
    for name, version in installed().items():
        assert name in ours or (name, version) in locked
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_bill_names_every_package_and_nearly_every_licence(bill):
    content = json.loads(bill.file.read_text())
    assert content["bomFormat"] == "CycloneDX"
    components = content["components"]
    listed = {canonicalize_name(each["name"]): each["version"] for each in components}
    here = {k: v for k, v in installed().items() if k != "spnode"}
    assert {name: listed.get(name) for name in here} == here
    assert content["metadata"]["component"]["name"] == "spnode"
    assert str(ROOT) not in bill.file.read_text()
    assert len(bill.unknown) <= 5, bill.unknown
    assert bill.licences["MIT"] > 20


@pytest.mark.parametrize("image", IMAGES)
def test_the_bill_of_an_image_has_its_packages_alone(bill, image, tmp_path):
    mine = write_bill(tmp_path / "sbom.json", image)
    content = json.loads(mine.file.read_text())
    listed = {canonicalize_name(each["name"]) for each in content["components"]}
    assert {"numpy", "sqlalchemy", "psycopg-binary"} <= listed
    assert ("jax" in listed, "fastapi" in listed) == {
        "gateway": (False, True),
        "worker": (True, False),
    }[image]
    assert not listed & {"pytest", "mypy", "playwright"}
    assert 20 < mine.components < bill.components
    refs = {each["bom-ref"] for each in content["components"]}
    assert {each["ref"] for each in content["dependencies"]} >= refs
    assert {to for each in content["dependencies"] for to in each["dependsOn"]} <= refs


def built(folder, umask):
    """The wheel of a copy of the tree, made now; its digest and its members."""
    for part in ("spnode_core", "spnode_client"):
        ignored = shutil.ignore_patterns("__pycache__")
        # Without their times: a clone has its own.
        copy = shutil.copyfile
        shutil.copytree(ROOT / part, folder / part, ignore=ignored, copy_function=copy)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        umask=umask,
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return hashlib.sha256(wheel.read_bytes()).hexdigest(), archive.namelist()


def test_a_wheel_is_the_same_wherever_and_whenever_it_is_built(tmp_path):
    here, there = tmp_path / "here", tmp_path / "far" / "there"
    for folder in (here, there):
        folder.mkdir(parents=True)
    digest, members = built(here, 0o022)
    assert built(there, 0o077) == (digest, members)
    assert "spnode_client/cli.py" in members
    assert not [each for each in members if each.startswith(("api/", "tests/"))]
