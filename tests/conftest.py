"""Which tests share a process where several processes run them."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Long ones first. Tests of a group share what takes long to start, or would take the
# processor from each other's workers while they wait for a lease to pass.
GROUPS = {"endtoend": "workers", "worker": "workers", "api": "gateway"}


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    order = list(dict.fromkeys(GROUPS.values()))
    items.sort(
        key=lambda item: order.index(group) if (group := group_of(item)) in order else 9
    )


def group_of(item):
    """The group of a test: its folder's, or its file."""
    folder, *rest = item.path.relative_to(TESTS).parts
    if "exact" in item.fixturenames:
        return "gateway of this process"
    return GROUPS.get(folder, "/".join([folder, *rest]))
