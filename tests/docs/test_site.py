"""The built site: nothing is left out, every link resolves, nothing is asked of others."""

import html
import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser

import pytest

from api.app import create_app
from deploy.check import public_names
from deploy.site import build, command_line, rest
from deploy.site.executed import run_page
from services.blobs import Damaged
from services.errors import NotFound, RolloutFailed
from services.settings import PREFIX, Settings
from spnode_core.errors import InvalidInput, SpnodeError
from spnode_core.training.progress import Stopped
from tests.api.deployment import clean_environment
from tests.docs.blocks import ROOT
from worker.child import _code

# Attributes by which a browser fetches something by itself.
FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src"}


class Page(HTMLParser):
    """The links, the anchors and the fetched addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.anchors, self.fetched = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in FETCHED and given.get(FETCHED[tag]):
            self.fetched.append(given[FETCHED[tag]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As a user builds it; in this process Sphinx's own warnings would be errors."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "deploy", "docs", out]
    environment = {
        **clean_environment(),
        "PYTHONPATH": str(ROOT),
        # The notebook compiles far more than it computes.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    done = subprocess.run(
        command, cwd=out, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(folder):
    return {path: Page(path.read_text()) for path in folder.rglob("*.html")}


def shown(folder, page):
    text = re.sub(r"<[^>]+>", "", (folder / "reference" / page).read_text())
    return html.unescape(text)


def test_every_link_resolves(folder, pages):
    wrong = []
    for path, page in pages.items():
        for link in page.links + page.fetched:
            place = urllib.parse.urlsplit(link)
            if place.scheme or place.netloc:
                continue
            name = urllib.parse.unquote(place.path)
            target = (path.parent / name).resolve() if name else path
            anchor = urllib.parse.unquote(place.fragment)
            known = pages[target].anchors if target in pages else None
            if not target.exists() or (
                anchor and known is not None and anchor not in known
            ):
                wrong.append(f"{path.relative_to(folder)}: {link}")
    assert not wrong, wrong
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_no_page_asks_another_machine(pages):
    for path, page in pages.items():
        outside = [each for each in page.fetched if re.match(r"(https?:)?//", each)]
        assert not outside, (path, outside)


def test_styles_and_scripts_ask_no_other_machine(folder):
    for path in (folder / "_static").rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text())


def test_every_route_and_schema_is_there(folder):
    text = shown(folder, "rest.html")
    described = create_app(Settings(data_folder="/nonexistent")).openapi()
    for path, item in described["paths"].items():
        for method in item:
            assert f"{method.upper()} {path}" in text
    # In a schema's own section: many have an `id` or a `name`.
    _, *written = re.split(r"\(schema-[\w-]+\)=\n### ", rest.page())
    sections = {each.partition("\n")[0]: each for each in written}
    for name, schema in described["components"]["schemas"].items():
        assert name in text
        for field in schema.get("properties", ()):
            assert f"| `{field}` |" in sections[name], (name, field)
    codes = rest.narrow_codes()
    assert len(codes) > 20
    assert {("job_failed", "Conflict"), ("job_succeeded", "Conflict")} <= codes
    assert {name for code, name in codes if code == "result_dropped"} == {
        "Conflict",
        "Gone",
    }
    for code, _ in codes:
        assert code in text


def test_every_code_of_a_failed_job_is_explained():
    said = (ROOT / "docs/jobs.md").read_text().split("## Why a job failed")[1]
    written = {
        code
        for path in ("services/leases.py", "services/schedule.py", "worker/child.py")
        for code in re.findall(r'"code": "([a-z_]+)"', (ROOT / path).read_text())
    }
    assert {"attempts_exhausted", "deadline_exceeded", "invalid_input"} <= written
    kinds = set(SpnodeError.__subclasses__()) - {InvalidInput, Stopped}
    written |= {_code(kind()) for kind in kinds}
    sweeps = (ROOT / "services/sweeps/run.py").read_text()
    written |= set(re.findall(r'code="([a-z_]+)"', sweeps))
    written |= {each.default_code for each in (NotFound, Damaged, RolloutFailed)}
    for code in {*written, "model_name_taken"}:
        assert f"`{code}`" in said, code


def test_every_command_and_option_is_there(folder):
    text = shown(folder, "command_line.html")
    listed = list(command_line.commands())
    assert ("registry", "export") in [words for words, _ in listed]
    for words, command in listed:
        section = text[text.index(f"\n{' '.join(words)}") :]
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert option.lower() in section.lower(), (words, option)
        assert "Example: " in (command.help or ""), f"{words} has no example"


def test_the_options_of_the_program_are_there_with_an_example():
    text = command_line.page().split("## Options of the program")[1]
    said = text.partition("\n## ")[0]
    named = {option for each in command_line.root().params for option in each.opts}
    assert {"--url", "--key", "--install-completion"} <= named
    assert all(f"`{option}`" in said for option in named - {"--help"})
    assert "spnode --url https://" in said
    assert "<" not in text, "it would be a tag of HTML"


def test_every_setting_is_there_with_its_default(folder):
    text = re.sub(r"<[^>]+>", "", (folder / "settings.html").read_text())
    table = text[text.index("All of them") :]
    for name, field in Settings.model_fields.items():
        assert PREFIX + name.upper() in table
        assert field.description, name


def test_every_public_name_is_there_with_its_docstring(pages, folder):
    for package in ("spnode_core", "spnode_client"):
        page = pages[folder / "reference" / f"{package}.html"]
        for name in public_names(ROOT / package / "__init__.py"):
            # autodoc makes this anchor where it found the object.
            homes = [each for each in page.anchors if each.endswith(f".{name}")]
            assert f"{package}.{name}" in homes, name


@pytest.mark.parametrize("name", ["stiff", "infer"])
def test_a_notebook_was_run(folder, name):
    text = (folder / "notebooks" / f"{name}.html").read_text()
    assert "mmol/L" in text.split("largest error", 1)[1]
    assert f"{name}-1.svg" in text


@pytest.mark.filterwarnings("ignore")
def test_a_link_to_a_missing_page_fails_the_build(tmp_path, monkeypatch):
    def gathered(source):
        source.mkdir()
        (source / "index.md").write_text("# One\n\n[gone](missing.md)\n")

    monkeypatch.setattr(build, "gather", gathered)
    with pytest.raises(build.SiteError, match=r"missing\.md"):
        build.build(tmp_path / "out")


def test_a_block_that_fails_names_its_page_and_line(tmp_path):
    page = tmp_path / "wrong.md"
    page.write_text("# Wrong\n\n```python\nx = 1\nraise ValueError(x)\n```\n")
    with pytest.raises(ValueError, match="1") as raised:
        run_page(page)
    assert raised.traceback[-1].lineno + 1 == 5
