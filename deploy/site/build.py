"""``docs``: the site from ``docs/`` and what the code says of itself.

::

    docs/*.md, CHANGELOG.md ──▶ copied ─────┐
    api, commands, settings ──▶ reference ──┼──▶ Sphinx ──▶ HTML
    docs/notebooks/*.md ─────▶ run ─────────┘

A warning of Sphinx is an error: a link to a page or a heading that is not there, a
docstring that cannot be read, a page that nothing links.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.folder import ROOT
from deploy.site import command_line, executed, python_names, rest, settings

_NOTED = "```{{toctree}}\n:hidden:\n{options}\n{pages}\n```\n"
_FOLDERS = ("decisions", "examples", "results", "results/speed")


class SiteError(RuntimeError):
    """The site could not be built; the message is what Sphinx said."""


def build(out: Path) -> None:
    """Write the site into a folder.

    Args:
        out: The folder; pages of an earlier build in it are replaced.

    Raises:
        SiteError: A page is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "docs"
        gather(source)
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "sphinx", "-b", "html", "-q", "-E"),
                *("--fail-on-warning", "--keep-going"),
                *("-c", ROOT / "deploy" / "site", "-d", Path(folder) / "doctrees"),
                *(source, out),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SiteError((done.stdout + done.stderr).replace(f"{source}/", "docs/"))


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
    reference = source / "reference"
    reference.mkdir()
    (reference / "rest.md").write_text(rest.page())
    (reference / "command_line.md").write_text(command_line.page())
    for package, text in python_names.pages():
        (reference / f"{package}.md").write_text(text)
    _append(source / "settings.md", settings.section())
    for folder in _FOLDERS:
        pages = "\n".join(
            path.stem for path in sorted((source / folder).glob("[!R]*.md"))
        )
        if pages:
            _append(source / folder / "README.md", _NOTED.format(pages=pages, options=""))
    for path in sorted((source / "notebooks").glob("*.md")):
        executed.run_page(path)


def _append(path: Path, text: str) -> None:
    path.write_text(f"{path.read_text().rstrip()}\n\n{text}")
