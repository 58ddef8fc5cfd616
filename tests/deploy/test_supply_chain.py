"""What is installed is what is locked, and the bill of materials says so."""

import json
import re
from importlib.metadata import distributions

import pytest

from deploy.folder import ROOT
from deploy.sbom import write_bill

LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", re.M)


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def installed():
    return {plain(each.metadata["Name"]): each.version for each in distributions()}


@pytest.fixture(scope="module")
def bill(tmp_path_factory):
    return write_bill(tmp_path_factory.mktemp("bill") / "sbom.json")


def test_every_package_is_locked_with_hashes():
    text = (ROOT / "requirements.lock").read_text()
    # One package may have several, for different platforms.
    locked = {(plain(name), version) for name, version in LOCKED.findall(text)}
    ours = {"spnode", "pip", "setuptools", "wheel", "uv"}
    for name, version in installed().items():
        assert name in ours or (name, version) in locked
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_bill_names_every_package_and_nearly_every_licence(bill):
    content = json.loads(bill.file.read_text())
    assert content["bomFormat"] == "CycloneDX"
    listed = {plain(each["name"]): each["version"] for each in content["components"]}
    here = {k: v for k, v in installed().items() if k != "spnode"}
    assert {name: listed.get(name) for name in here} == here
    assert content["metadata"]["component"]["name"] == "spnode"
    assert str(ROOT) not in bill.file.read_text()
    assert len(bill.unknown) <= 5, bill.unknown
    assert bill.licences["MIT"] > 20
