"""Every call of our command line on every page: parsed, and run where a service suffices.

What changes the machine (``up``, ``demo``, ``chaos``, ``backup``, …) is run by tests of its
own; here it must exist with its options.
"""

import json
import re
import shlex
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import typer

import spnode_core
from deploy.site import command_line
from tests.api.deployment import clean_environment
from tests.docs.blocks import ALL, ROOT, TEXTS, blocks_in, without_blocks

_CALL = re.compile(
    r"^(?:\w+=\S+ )*(?:\./spnode|spnode(?= (?:--|[a-z])))\s+"
    r"(?:--(?:url|key) \S+ )*([a-z].*)"
)
# Of a span in prose: what it leaves to the reader.
_LEFT_OUT = re.compile(r"…|\.\.\.|\b[A-Z]+\b")
GENERATED = blocks_in("reference/command_line", command_line.page())
"""The examples of the commands themselves, as the site shows them."""


def ours(blocks):
    """Each call of our command line in a block, with its words."""
    for block in blocks:
        if block.not_run or block.language not in ("sh", ""):
            continue
        code = re.sub(r"\\\n\s*", " ", textwrap.dedent(block.code))
        for line in code.splitlines():
            found = _CALL.match(line)
            if found:
                yield block, shlex.split(found[1], comments=True)


def in_prose():
    """Each call in a sentence of a page, with its words."""
    for name, text in TEXTS.items():
        for span in re.findall(r"`([^`]+)`", without_blocks(text)):
            found = _CALL.match(" ".join(span.split()))
            if found and not _LEFT_OUT.search(found[1]):
                yield name, shlex.split(found[1])


CALLS = list(ours(ALL))


def test_a_block_without_a_command_of_ours_says_why_it_is_not_run():
    told = re.compile(r"^ *(?:python -m (?:api|deploy|worker)|curl)\b", re.M)
    for block in ALL:
        if block.language == "sh" and not (block.not_run or block.run_by):
            known = list(ours([block])) or told.search(block.code)
            assert known or block.page in BY_HAND, block


def test_each_line_of_the_reference_of_commands_is_a_call():
    lines = [line for block in GENERATED for line in block.code.splitlines()]
    assert len(list(ours(GENERATED))) == len(lines) > 50


@pytest.mark.parametrize(
    ("block", "words"), [*CALLS, *ours(GENERATED)], ids=lambda each: str(each)[:60]
)
def test_a_command_of_a_page_exists_with_its_options(
    block, words, tmp_path, monkeypatch
):
    # Some options ask whether a file is there.
    monkeypatch.chdir(tmp_path)
    for each in words:
        if each.endswith((".spnode", ".npz")):
            (tmp_path / each).touch()
    parse(words)


@pytest.mark.parametrize(
    ("page", "words"), list(in_prose()), ids=lambda each: str(each)[:60]
)
def test_a_command_in_a_sentence_exists_with_its_options(page, words):
    # A sentence may name a group, or a command with an option, and leave out on what.
    if words in [list(names[:1]) for names, _ in command_line.commands() if names[1:]]:
        return
    try:
        parse(words)
    except typer.BadParameter as error:
        if type(error).__name__ != "MissingParameter":
            raise


def parse(words):
    """As the command line does: unknown options and missing arguments are errors."""
    known = {" ".join(names): command for names, command in command_line.commands()}
    depth = next(n for n in (2, 1) if " ".join(words[:n]) in known)
    command = known[" ".join(words[:depth])]
    if " ".join(words[:depth]) == "test":
        return
    command.make_context(words[0], words[depth:], resilient_parsing=False)


TALKS = frozenset(
    {
        *("compare", "datasets", "export", "jobs", "keys", "models"),
        *("rollout", "sweep", "train"),
    }
)
"""Commands that a service answers."""
BY_HAND = ("README.md",)
"""Pages whose commands have a test of their own: ``tests/endtoend/test_readme.py``."""
CALLED = {
    ("docs/ensembles.md", "rollout"): {"mine": "ensemble"},
    ("docs/start.md", "rollout"): {"robertson": "mine"},
}
"""Models that are called otherwise here."""
ELSEWHERE = re.compile(
    r"…|--watch|--stablehlo|^models (?:delete|describe|unalias) |^datasets make "
)
"""Examples of the reference that name a job of yours, never end, or are run from a page
or below."""
EXAMPLES = [
    (block, [re.sub("^robertson", "mine", each) for each in words])
    for block, words in ours(GENERATED)
    if not ELSEWHERE.search(" ".join(words))
]
RUN = [
    (block, words)
    for block, words in [*CALLS, *EXAMPLES]
    if words[0] in TALKS
    and block.page not in BY_HAND
    # Nothing was trained here, so there is no picture: tests/endtoend/test_page.py.
    and words[:2] != ["models", "plots"]
]


def enzyme():
    """The tutorial's states and sums, on curves that are made up."""
    times = np.geomspace(1e-3, 10.0, 12)
    decay = np.exp(-times) * np.array([[1.0], [2.0], [3.0], [4.0]])
    s, c = 5 * decay, 0.01 * decay
    states = np.stack([s, 0.12 - c, c, 30 - s - c], axis=2)
    return {"states": states, "times": times, "names": np.array(["s", "e", "c", "p"])}


@pytest.fixture(scope="module")
def shell(service, tmp_path_factory):
    """Runs a command in a folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("shell")
    for name in ("trajectories.npz", "new.npz", "held_out.npz"):
        spnode_core.save_dataset(service.data, folder / name)
    spnode_core.save_dataset(spnode_core.check_arrays(enzyme()), folder / "enzyme.npz")
    spnode_core.save(service.surrogates["mine"], folder / "mine.spnode")
    np.save(folder / "rows.npy", np.array([[0.95, 5e-7, 0.05]] * 3))
    given = {"SPNODE_URL": service.url, "SPNODE_KEY": service.key}

    def run(*words):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from spnode_client.cli import main; main()",
                *words,
            ],
            cwd=folder,
            env={**clean_environment(), "PYTHONPATH": str(ROOT), **given},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    return run


@pytest.mark.parametrize(("block", "words"), RUN, ids=lambda each: str(each)[:60])
def test_a_command_of_a_page_does_what_it_says(shell, block, words):
    called = CALLED.get((block.page, words[0]), {})
    words = [called.get(each, each) for each in words]
    if words[0] in ("train", "sweep"):
        # Accepted as it stands, and not waited for.
        job = json.loads(shell(*words, "--detach", "--json"))
        shell("jobs", "cancel", job["id"])
        return
    if words[:2] in (["keys", "rotate"], ["keys", "revoke"]):
        key = json.loads(shell("keys", "create", "page", "--scope", "read", "--json"))
        words = [key["id"] if "01kc7q2m4n8p" in each else each for each in words]
    said = shell(*words)
    assert said.strip() or {"--plot", "--output"} & {*words}, "it said nothing"
    if words[:2] == ["models", "alias"]:
        # As other pages have it.
        shell("models", "alias", words[2], words[3], "1")


def test_the_registry_is_changed_from_the_shell(shell):
    shell("models", "alias", "mine", "spare", "2")
    made = json.loads(shell("models", "describe", "mine", "--tag", "a=b", "--json"))
    assert made["tags"] == {"a": "b"}
    assert "a=b" in shell("models", "describe", "mine", "--description", "[/] of us")
    shell("models", "describe", "mine", "--description", "", "--tag", "a=")
    shell("models", "unalias", "mine", "spare")
    moves = json.loads(shell("models", "history", "mine", "spare", "--json"))
    assert [move["number"] for move in moves] == [None, 2]
    assert "deleted" in shell("models", "history", "mine", "spare")


def test_a_job_of_the_service_is_shown_with_its_attempt(shell):
    made = json.loads(
        shell("datasets", "make", "robertson", "--trajectories", "2", "--json")
    )
    (job, *_) = json.loads(shell("jobs", "list", "--kind", "dataset", "--json"))
    said = shell("jobs", "show", job["id"])
    assert made["id"] in said
    ends = [line.split() for line in said.splitlines() if "succeeded" in line]
    assert (ends[-1][0], ends[-1][-1]) == ("1", "succeeded"), said
