"""``docs/python.md`` names what the client's classes have, and nothing else."""

import inspect
import re

import pytest

import spnode_client
from spnode_client.client import Datasets, Keys
from spnode_client.jobs import Jobs
from spnode_client.registry import Models
from tests.docs.blocks import PAGES, ROOT

COLLECTIONS = {"datasets": Datasets, "jobs": Jobs, "models": Models, "keys": Keys}
OURS = frozenset({"of", "run"})
"""Methods by which our own parts call each other."""
OTHERS = "doors"
"""Pages with clients of others."""
CLASSES = {
    **{
        name: found
        for name in spnode_client.__all__
        if inspect.isclass(found := getattr(spnode_client, name))
    },
    **{f"client.{name}": found for name, found in COLLECTIONS.items()},
}


def rows():
    """The classes of each row of the client's table, and what is said of them."""
    page = (ROOT / "docs" / "python.md").read_text()
    table = page.split("## `spnode_client`")[1]
    for line in table.splitlines():
        if found := re.fullmatch(r"\| (`.*?) \| (.*) \|", line):
            named = re.findall(r"`([\w.]+)`", found[1])
            if kept := [CLASSES[name] for name in named if name in CLASSES]:
                yield kept, found[2]


ROWS = list(rows())


def homes(kind):
    """The classes of ours that a class is made of."""
    return [
        each for each in kind.__mro__ if each.__module__.startswith("spnode_client")
    ]


def methods(kind):
    return {
        name
        for home in homes(kind)
        for name, each in vars(home).items()
        if inspect.isfunction(each) and not name.startswith("_")
    } - OURS


def attributes(kind):
    """Properties, fields, and what is set when one is made."""
    found = set()
    for home in homes(kind):
        found |= {name for name in vars(home) if not name.startswith("_")}
        found |= {*getattr(home, "__annotations__", {})}
        found |= set(re.findall(r"self\.([a-z]\w*) = ", inspect.getsource(home)))
    return found - methods(kind)


@pytest.mark.parametrize("name", CLASSES)
def test_each_public_method_is_named(name):
    said = [text for kinds, text in ROWS if CLASSES[name] in kinds]
    assert len(said) == 1, "one row for each class"
    missing = methods(CLASSES[name]) - set(re.findall(r"`\.(\w+)\(\)`", said[0]))
    assert not missing


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][0].__name__)
def test_each_name_of_a_row_exists(row):
    kinds, said = row
    called = set(re.findall(r"`\.(\w+)\(\)`", said))
    assert called <= set().union(*map(methods, kinds))
    assert set(re.findall(r"`\.(\w+)`", said)) <= set().union(*map(attributes, kinds))


def test_each_call_of_a_client_on_a_page_exists():
    calls = [
        (page.name, collection, method)
        for page in PAGES
        if page.parent.name != OTHERS
        for collection, method in re.findall(
            r"\bclient\.(?:(datasets|jobs|models|keys)\.)?(\w+)\(", page.read_text()
        )
    ]
    assert len(calls) > 40
    of_itself = methods(spnode_client.Client) | methods(spnode_client.AsyncClient)
    for page, collection, method in calls:
        known = methods(COLLECTIONS[collection]) if collection else of_itself
        assert method in known, f"{page}: client.{collection}.{method}()"
