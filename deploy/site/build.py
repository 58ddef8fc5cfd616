"""``docs``: the site from ``docs/`` and what the code says of itself.

::

    docs/*.md, CHANGELOG.md ──▶ copied ─────┐
    api, commands, settings ──▶ reference ──┼──▶ Sphinx ──▶ HTML
    docs/notebooks/*.md ─────▶ run ─────────┘

A warning of Sphinx is an error: a link to a page or a heading that is not there, a
docstring that cannot be read, a page that nothing links.
"""

import contextlib
import io
import re
import shutil
import tempfile
from pathlib import Path

from deploy.folder import ROOT
from deploy.site import command_line, executed, python_names, rest, settings

_COLOUR = re.compile(r"\x1b\[\d*m")
_BELOW = "```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
_FOLDERS = ("decisions", "results", "results/speed")


class SiteError(RuntimeError):
    """The site could not be built; the message is what Sphinx said."""


def build(out: Path) -> None:
    """Write the site into a folder.

    Args:
        out: The folder; pages of an earlier build in it are replaced.

    Raises:
        SiteError: A page is wrong.
    """
    # In this process, which has loaded all that the docstrings are read from.
    from sphinx.application import Sphinx

    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "docs"
        gather(source)
        app = Sphinx(
            source,
            ROOT / "deploy" / "site",
            out,
            Path(folder) / "doctrees",
            "html",
            status=None,
            warning=said,
            freshenv=True,
        )
        app.build()
    if said.getvalue():
        text = _COLOUR.sub("", said.getvalue())
        raise SiteError(text.replace(f"{source}/", "docs/").strip())


def gather(source: Path) -> None:
    """Bring all pages together, written, generated and executed ones.

    Args:
        source: A folder that is not there yet.
    """
    shutil.copytree(ROOT / "docs", source)
    # What pages link outside of docs/ stands beside the copy.
    (source.parent / "deploy").symlink_to(ROOT / "deploy")
    for name in ("CHANGELOG", "SECURITY"):
        text = (ROOT / f"{name}.md").read_text()
        (source / f"{name.lower()}.md").write_text(text.replace("](docs/", "]("))
    _append(source / "settings.md", settings.section())
    reference = source / "reference"
    reference.mkdir()
    (reference / "rest.md").write_text(rest.page())
    (reference / "command_line.md").write_text(command_line.page())
    for package, text in python_names.pages():
        (reference / f"{package}.md").write_text(text)
    for folder in _FOLDERS:
        _append(source / folder / "README.md", _below(source / folder))
    # A notebook opens files as its reader does, who stands in the tree.
    with contextlib.chdir(ROOT):
        for path in sorted((source / "notebooks").glob("*.md")):
            executed.run_page(path)


def _below(folder: Path) -> str:
    """What leads from the first page of a folder to its others."""
    pages = [path.stem for path in sorted(folder.glob("[!R]*.md"))]
    pages += [f"{each.parent.name}/README" for each in folder.glob("*/README.md")]
    return _BELOW.format(pages="\n".join(pages))


def _append(path: Path, text: str) -> None:
    path.write_text(f"{path.read_text().rstrip()}\n\n{text}")
