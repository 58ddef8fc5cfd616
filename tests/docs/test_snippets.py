"""Every block of every page: run, parsed, or marked with the reason why not.

A page defines what its blocks use; files and the key of a stack are at hand. What is changed
before a block runs stands in ``CHANGED``: the address, numbers, sizes. Trainings are accepted by the service and then cancelled;
in this process one short fit serves all pages.
"""

import functools
import inspect
import json
import subprocess
import warnings

import h5py
import httpx
import numpy as np
import pytest

import spnode_core
from deploy.site.executed import run_block
from spnode_client import Client, DomainWarning
from tests.docs.blocks import ALL, ROOT

PYTHON = [b for b in ALL if b.language == "python" and not (b.not_run or b.run_by)]
BY_HAND = {"README.md": "tests/endtoend/test_readme.py"}
"""Pages whose blocks have tests of their own."""
IN_THE_SITE = "docs/notebooks/"
"""Pages that are run when the site is built."""
KEY = "read_text().strip())"
CHANGED = {
    "docs/calibration.md": [
        ("noise=", "starts=2, noise="),
        ("(0.01, 0.1)", "(0.5, 2)"),
        ("(1e7, 9e7)", "(0.5, 2)"),
        ("(5e3, 2e4)", "(0.5, 2)"),
    ],
    "docs/ensembles.md": [
        ("spnode_core.fit(", "fitted("),
        ("run.surrogate", "several"),
        ("members=4).wait()", "members=4).cancel()"),
        ('_record("mine"', '_record("ensemble"'),
    ],
    "docs/evaluation.md": [
        ("spnode_core.fit(", "fitted("),
        ("x, times, 0.9)", "x, times, 0.5)"),
    ],
    "docs/export.md": [('champion", "exported"', 'champion", "asked"')],
    "docs/fine_tuning.md": [
        ('warm_start="mine@champion").wait()', 'warm_start="mine@champion").cancel()'),
        ("spnode_core.fit(", "fitted("),
        ("dataset=dataset).wait()", "dataset=dataset).cancel()"),
    ],
    "docs/functions.md": [("[0.04, 3e7, 1e4]", "[1.0, 1.0, 1.0]")],
    "docs/jobs.md": [("3600})", "3600}).cancel()")],
    "docs/large.md": [
        ("(1_000_000, 1)", "(20, 1)"),
        ("1e2, 50)", "1e2, 3)"),
        ("[500_000:500_010]", "[5:10]"),
    ],
    "docs/python.md": [("spnode_core.fit(", "fitted(")],
    "docs/rollouts.md": [("[0.04, 3e7, 1e4]", "[1.0, 1.0, 1.0]")],
    "docs/start.md": [('"robertson"', '"mine"')],
    "docs/tutorial.md": [("(60, 2))", "(4, 2))")],
    "docs/sweeps.md": [
        ("grid=grid).wait()", "grid=grid).cancel()"),
        ("candidates).wait()", "candidates).cancel()"),
    ],
}


@pytest.fixture(scope="module")
def uploaded(service, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "trajectories.npz"
    spnode_core.save_dataset(service.data, path)
    return service.client.datasets.upload(path).id


@pytest.fixture
def folder(service, tmp_path, monkeypatch):
    """Where a reader is: with the stack's key, data and a surrogate of their own."""
    monkeypatch.chdir(tmp_path)
    for name in ("trajectories.npz", "new.npz", "held_out.npz"):
        spnode_core.save_dataset(service.data, tmp_path / name)
    spnode_core.save(service.surrogates["mine"], tmp_path / "mine.spnode")
    with h5py.File(tmp_path / "simulation.h5", "w") as file:
        file["runs/u"], file["t"] = np.ones((2, 3, 1)), np.arange(3.0)
    (tmp_path / ".spnode").mkdir()
    (tmp_path / ".spnode" / "key").write_text(service.key)


def fitted(service, *given, **options):
    """The one run of all pages, where `fit` would take what it is called with."""
    inspect.signature(spnode_core.fit).bind(*given, **options)
    return service.run


PAGES = sorted(
    {b.page for b in PYTHON if not b.page.startswith(IN_THE_SITE)} - {*BY_HAND}
)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(service, page):
    here = [block for block in PYTHON if block.page == page]
    text = "\0".join(block.code for block in here)
    for old, new in CHANGED.get(page, []):
        assert old in text, f"{page} no longer says {old!r}"
        text = text.replace(old, new)
    text = text.replace("http://127.0.0.1:8000", service.url)
    text = text.replace(KEY, f"{KEY[:-1]}, timeout_s=280)")
    # All else is defined by the page itself, in the order of its blocks.
    names = {"__name__": "page"}
    names |= {"fitted": functools.partial(fitted, service)}
    names |= {"several": service.surrogates["ensemble"]}
    try:
        for block, code in zip(here, text.split("\0"), strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DomainWarning)
                run_block("\n" * block.line + code, names, str(ROOT / page))
    finally:
        for made in names.values():
            if isinstance(made, Client):
                made.close()


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "sh"], ids=str)
def test_a_shell_block_is_one(block):
    done = subprocess.run(
        ["sh", "-n", "-c", block.code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


JSON = [block for block in ALL if block.language == "json"]


@pytest.mark.parametrize("block", JSON, ids=str)
def test_a_request_in_json_is_accepted(service, uploaded, block):
    body = json.loads(block.code.replace("ds_…", uploaded))
    if "model" not in body and "models" not in body:
        return
    path = "/v1/jobs?validate_only=true" if "kind" in body else "/v1/rollout"
    answer = httpx.post(
        f"{service.url}{path}",
        json=body,
        headers={"authorization": f"Bearer {service.key}"},
        timeout=280,
    )
    assert answer.status_code == 200, answer.text


def test_only_known_blocks_are_not_run():
    """One more needs a reason here as well as on its page."""
    skipped = [block for block in ALL if block.not_run]
    assert len(skipped) == 14, [f"{block}: {block.not_run}" for block in skipped]
    for block in ALL:
        if block.run_by:
            page = block.page.removeprefix("docs/").rpartition("/")[2]
            assert page in (ROOT / block.run_by).read_text(), block
        assert block.language or block.page in BY_HAND, f"{block} has no language"
