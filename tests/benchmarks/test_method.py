"""Every name in ``docs/method.md`` exists: of code, of tests, of commands."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.paper.command import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "method.md").read_text()
CODE = sorted(set(re.findall(r"`(spnode_core(?:\.\w+)+)`", TEXT)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize("name", CODE)
def test_code_of_the_method_exists_and_is_documented(name):
    parts = name.split(".")
    found = None
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        break
    assert found is not None
    assert found.__doc__


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_tests_of_the_method_exist(path, name):
    tree = ast.parse((ROOT / path).read_text())
    assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_every_line_of_the_method_has_code_or_command_and_a_test():
    lines = [line for line in TEXT.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if "`tests/" in line or "`spnode_core." in line]
    for row in rows:
        assert "`spnode_core." in row or "`./spnode reproduce" in row, row
        assert "`tests/" in row, row
    for command in re.findall(r"`./spnode reproduce ([\w-]+)`", TEXT):
        assert command in (*EXAMPLES, "all")


@pytest.mark.parametrize("number", range(1, 25))
def test_every_numbered_formula_of_the_paper_is_there(number):
    assert re.search(rf"\({number}[ab)]|\({number}a-c\)", TEXT)


@pytest.mark.parametrize(
    "what",
    [
        *(f"Theorem {n}" for n in range(1, 5)),
        *("Definition 1", "Table 1", "Figure 1", "Figure 2", "Figures 3, 4"),
        *(f"Figure {n}" for n in range(5, 9)),
    ],
)
def test_every_theorem_table_and_figure_of_the_paper_is_there(what):
    assert what in TEXT
