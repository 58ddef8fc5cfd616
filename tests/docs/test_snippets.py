"""Every block of every page: run, parsed, or marked with the reason why not.

A page defines what its blocks use; files and the key of a stack are at hand. What is changed
before a block runs stands in ``CHANGED``: the address, numbers, sizes. Trainings are accepted by the service and then cancelled;
in this process one short fit serves all pages.
"""

import functools
import inspect
import json
import os
import re
import shutil
import subprocess
import warnings

import h5py
import httpx
import numpy as np
import pytest
import yaml

import spnode_core
from deploy.site.executed import run_block
from spnode_client import Client, DomainWarning
from tests.docs.blocks import ALL, ROOT

PYTHON = [b for b in ALL if b.language == "python" and not (b.not_run or b.run_by)]
BY_HAND = {"README.md": "tests/endtoend/test_readme.py"}
"""Pages whose blocks have tests of their own."""
IN_THE_SITE = "docs/notebooks/"
"""Pages that are run when the site is built."""
CURL = [
    block
    for block in ALL
    if block.language == "sh"
    and "curl " in block.code
    and not (block.not_run or block.run_by or block.page in BY_HAND)
]
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
        ("(0, 1, 2)", "(0, 1)"),
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
        ("ensemble=3).wait()", "ensemble=3).cancel()"),
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
    """The run of all pages, by its seed, where `fit` would take what it is given."""
    inspect.signature(spnode_core.fit).bind(*given, **options)
    return service.run(options.get("seed", 0))


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
    if block.page == "docs/doors/umbridge.md":
        # What the page says of it: one input of two numbers, and one output.
        body = {"name": "mine", "config": body}
        for route, sizes in (("InputSizes", [2]), ("OutputSizes", [1])):
            answer = posted(service, f"/umbridge/{route}", body).json()
            assert list(answer.values()) == [sizes]
        return
    is_job = "kind" in body
    posted(service, "/v1/jobs?validate_only=true" if is_job else "/v1/rollout", body)


def posted(service, path, body):
    headers = {"authorization": f"Bearer {service.key}"}
    url = f"{service.url}{path}"
    answer = httpx.post(url, json=body, headers=headers, timeout=280)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("block", CURL, ids=str)
def test_what_a_page_asks_by_curl_is_answered(service, block):
    asked = block.code[block.code.index("curl ") :]
    for old, new in (
        ("curl ", "curl -fsS "),
        ("http://127.0.0.1:8000", service.url),
        ("/robertson/3/", "/mine/3/"),
    ):
        asked = asked.replace(old, new)
    done = subprocess.run(
        ["sh", "-c", asked],
        env={"PATH": os.environ["PATH"], "KEY": service.key, "SPNODE_KEY": service.key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = {"/metrics": "spnode_warm", "/infer": '"outputs"', "/apply": '"x"'}
    (expected,) = (said for route, said in answers.items() if route in asked)
    assert expected in done.stdout


def test_the_alertmanager_of_a_page_is_taken_by_prometheus():
    """The one block of YAML: merged into the configuration, Prometheus takes it."""
    (block,) = (each for each in ALL if each.language == "yaml")
    file = ROOT / "deploy" / "monitoring" / "prometheus.yml"
    merged = {**yaml.safe_load(file.read_text()), **yaml.safe_load(block.code)}
    (each,) = merged["alerting"]["alertmanagers"][0]["static_configs"]
    assert each == {"targets": ["alertmanager:9093"]}
    if shutil.which("promtool"):
        check = ["promtool", "check", "config", "--syntax-only", "/dev/stdin"]
        text = yaml.safe_dump(merged)
        subprocess.run(check, input=text, text=True, check=True, capture_output=True)


RUN_OR_SHOWN = {"python", "sh", "json", "yaml", "text", "csv", "{toctree}", ""}


def test_only_known_blocks_are_not_run():
    """One more needs a reason here as well as on its page."""
    skipped = [block for block in ALL if block.not_run]
    assert len(skipped) == 14, [f"{block}: {block.not_run}" for block in skipped]
    for block in skipped:
        named = re.search(r"tests/\S+\.py", block.not_run)
        assert named is None or (ROOT / named[0]).exists(), block
    for block in ALL:
        if block.run_by:
            page = block.page.removeprefix("docs/").rpartition("/")[2]
            assert page in (ROOT / block.run_by).read_text(), block
        assert block.language or block.page in BY_HAND, f"{block} has no language"
        is_run = not (block.not_run or block.run_by)
        assert not is_run or block.language in RUN_OR_SHOWN, block
