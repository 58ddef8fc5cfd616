"""The Python reference: a section for each public name, filled from its docstring."""

import importlib
import inspect
from collections.abc import Iterator

_PACKAGES = {
    "spnode_core": "The library, which needs no service. [In Python](../python.md) has "
    "the names at a glance.",
    "spnode_client": "The client of a service. [In Python](../python.md) has the names "
    "at a glance.",
}
_PARTS = {
    "spnode_client": {
        "Client.datasets": "client.Datasets",
        "Client.jobs": "jobs.Jobs",
        "Client.models": "client.Models",
        "Client.keys": "client.Keys",
    }
}
"""What attributes of public names are, which have no public name themselves."""


def pages() -> Iterator[tuple[str, str]]:
    """Each package's name and its page in Markdown."""
    for package, about in _PACKAGES.items():
        yield package, f"# `{package}`\n\n{about}\n\n" + "\n".join(_sections(package))


def _sections(package: str) -> Iterator[str]:
    module = importlib.import_module(package)
    for name in module.__all__:
        yield f"## `{name}`\n\n{_directive(package, name, getattr(module, name))}"
    for attribute, home in _PARTS.get(package, {}).items():
        yield f"## `{attribute}`\n\n{_automatic('autoclass', f'{package}.{home}')}"


def _directive(package: str, name: str, value: object) -> str:
    kind = "autofunction"
    if inspect.isclass(value):
        is_error = issubclass(value, BaseException)
        kind = "autoexception" if is_error else "autoclass"
    return _automatic(kind, f"{package}.{name}")


def _automatic(kind: str, name: str) -> str:
    options = "" if kind == "autofunction" else "\n   :members:"
    return f"```{{eval-rst}}\n.. {kind}:: {name}{options}\n```\n"
