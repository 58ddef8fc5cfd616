"""Links of the pages that are in no built site, as a forge shows them.

Those of ``docs/`` are followed in the site itself: ``test_site.py``.
"""

import re
import urllib.parse

import pytest

from tests.docs.blocks import ROOT

PAGES = sorted(ROOT.glob("*.md"))
_CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.M | re.S)
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.M)
_TARGET = re.compile(r"^\(([\w-]+)\)=$|<a (?:id|name)=\"([\w-]+)\"", re.M)


def links_of(page):
    return _LINK.findall(_CODE.sub("", page.read_text()))


def anchors_of(page):
    """What GitHub makes of the headings, and what is named outright."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    found = set()
    for heading in _HEADING.findall(text):
        said = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", said).replace(" ", "-")
        more = (f"{slug}-{n}" for n in range(1, 99))
        found.add(next(each for each in (slug, *more) if each not in found))
    return found | {a or b for a, b in _TARGET.findall(text)}


def wrong_links(page):
    """Links of a page that lead nowhere in this tree."""
    for link in links_of(page):
        place = urllib.parse.urlsplit(link)
        if place.scheme or place.netloc:
            continue
        path = urllib.parse.unquote(place.path)
        target = (page.parent / path).resolve() if path else page
        is_page = target.suffix == ".md" and target.exists()
        anchor = place.fragment if is_page else ""
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    assert not list(wrong_links(page))


def test_the_readme_has_links_and_a_wrong_one_is_found(tmp_path):
    assert {"README.md", "CHANGELOG.md"} <= {page.name for page in PAGES}
    assert len(links_of(ROOT / "README.md")) > 40
    page = ROOT / "docs" / "python.md"
    assert "spnode_client-talk-to-a-service" in anchors_of(page)
    text = "# One `two`\n[a](#one-two) [b](#three) [c](gone.md) [d](https://x.org/gone)"
    (tmp_path / "page.md").write_text(text)
    assert list(wrong_links(tmp_path / "page.md")) == ["#three", "gone.md"]
