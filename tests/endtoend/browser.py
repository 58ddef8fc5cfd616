"""Debian's Chromium under Playwright, and what a page must never do in it."""

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

# A closed network refuses what Chromium asks of its makers, many times a second.
SILENT = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(
    os.environ.get("SPNODE_SCREENSHOTS", ROOT / ".cache" / "screenshots")
)
"""Kept to be looked at: each view, wide and narrow, light and dark."""
WIDE, NARROW = 1280, 360


def chromium():
    """Where it is; the tests of the page are left out without it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


@contextlib.contextmanager
def launched():
    """The browser."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SILENT)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, url, width=WIDE, scheme="light", refusals=(), before=None):
    """A page of the service; whatever it does wrong is an error when the block ends.

    ``before`` is a script that runs before those of the page.

    Chromium itself writes each refused request to the console: those with a status or a
    word among ``refusals`` are meant.
    """
    wrong = []
    meant = [r if isinstance(r, str) else f"status of {r}" for r in refusals]

    def told(message):
        if message.type == "error" and not any(m in message.text for m in meant):
            wrong.append(message.text)

    def asked(request):
        if urlsplit(request.url).hostname not in ("127.0.0.1", None, ""):
            wrong.append(f"asked outside: {request.url}")

    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        permissions=["clipboard-read", "clipboard-write"],
    )
    try:
        if before is not None:
            context.add_init_script(before)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", told)
        page.on("request", asked)
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not wrong, wrong


def view(page, path):
    """Go to a view, and wait until it is there."""
    page.evaluate("path => { location.hash = path }", path)
    page.wait_for_function(
        "path => location.hash === path && !document.querySelector('[aria-busy]')",
        arg=f"#{path}",
    )
    page.wait_for_selector("main h1")


def reached(page, target):
    """Go to what a locator finds as the keyboard does, from where the focus is."""
    target.wait_for(state="attached")
    for _ in range(150):
        page.keyboard.press("Tab")
        if target.evaluate("each => each === document.activeElement"):
            return
    raise AssertionError(f"the keyboard does not lead to {target}")


def pressed(page, target):
    """Press what a locator finds by the keyboard alone."""
    reached(page, target)
    page.keyboard.press("Enter")


def typed(page, target, text):
    """Write into a field by the keyboard alone."""
    reached(page, target)
    page.keyboard.type(text)


def serious(page):
    """What axe finds that keeps people out."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        (each["id"], [node["target"] for node in each["nodes"]][:3])
        for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def fits(page, name):
    """Keep screenshots of a view, wide and light, narrow and dark; both are usable."""
    for size, width, scheme in (("wide", WIDE, "light"), ("narrow", NARROW, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        shown(page, f"{name}-{size}-{scheme}")
        over = page.evaluate("document.documentElement.scrollWidth")
        assert over <= width, (name, size)
        assert not (found := serious(page)), (name, size, found)
    page.set_viewport_size({"width": WIDE, "height": 900})
    page.emulate_media(color_scheme="light")


def shown(page, name):
    """Keep a screenshot under a name."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
