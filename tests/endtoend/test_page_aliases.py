"""Aliases are moved on the page: by their form, and by the button of a version."""

import pytest

from tests.api.deployment import deployed
from tests.endtoend.browser import opened, view


@pytest.fixture(scope="module")
def small():
    """A gateway with two versions that pass the gates of champion."""
    with deployed(["small", "small"]) as data:
        yield data.start_gateway()


@pytest.fixture
def page(browser, small):
    with opened(browser, f"{small.url}/#key={small.key}") as page:
        page.wait_for_selector("main h1")
        yield page


def aliases(small):
    with small.client() as client:
        return client.get("/v1/models/small").json()["aliases"]


def test_the_form_takes_enter_and_names_alone(page, small):
    asked = []
    page.on("request", lambda each: asked.append(each.method))
    view(page, "/models/small")
    alias = page.get_by_label("Alias", exact=True)
    for wrong in ("", "Champion", "two words", "-x", "x" * 65):
        alias.fill(wrong)
        alias.press("Enter")
        assert not alias.evaluate("each => each.validity.valid"), wrong
        page.get_by_role("button", name="Remove it").click()
        assert page.get_by_role("dialog").count() == 0, wrong
    assert {*asked} == {"GET"}
    # It is said which names there may be, to all who are in the field.
    said = "lower case letters, digits, - and _"
    assert said in alias.get_attribute("title")
    hint = page.locator(f"#{alias.get_attribute('aria-describedby')}")
    assert said in hint.inner_text()
    alias.fill("beta")
    page.get_by_label("Version", exact=True).fill("1")
    page.get_by_label("Version", exact=True).press("Enter")
    page.get_by_text("beta is version 1 now").wait_for()
    assert aliases(small)["beta"] == 1
    page.get_by_role("row", name="Compare version 1").get_by_text("beta").wait_for()


def removed(page, alias):
    """Ask the form to remove an alias, and say yes."""
    page.get_by_label("Alias", exact=True).fill(alias)
    page.get_by_role("button", name="Remove it").click()
    page.get_by_role("button", name="Remove the alias").click()


def test_an_alias_is_removed_by_the_form(page, small):
    view(page, "/models/small")
    page.get_by_label("Alias", exact=True).fill("gamma")
    page.get_by_role("button", name="Point it there").click()
    page.get_by_text("gamma is version 2 now").wait_for()
    chip = page.locator(".chip", has_text="gamma")
    chip.wait_for()
    removed(page, "gamma")
    page.get_by_text("gamma is removed").wait_for()
    chip.wait_for(state="detached")
    assert "gamma" not in aliases(small)


def test_an_alias_that_has_moved_meanwhile_is_not_removed(page, small):
    path = "/v1/models/small/aliases/delta"
    with small.client() as client:
        made = client.put(path, json={"version": 1})
        view(page, "/models/small")
        page.locator(".chip", has_text="delta").wait_for()
        match = {"if-match": made.headers["etag"]}
        client.put(path, json={"version": 2}, headers=match).raise_for_status()
    removed(page, "delta")
    said = "delta has moved meanwhile, to version 2"
    page.get_by_role("alert").filter(has_text=said).wait_for()
    assert aliases(small)["delta"] == 2


def test_a_version_that_passes_its_gates_is_promoted_by_one_click(page, small):
    asked = []
    page.on("request", lambda each: asked.append(each) if each.method == "PUT" else ())
    champion = page.get_by_role("button", name="Make it champion")
    for number in (2, 1):
        view(page, f"/models/small/{number}")
        champion.click()
        page.get_by_text(f"champion is version {number} now").wait_for()
        # No reason is asked for, and nothing is said that speaks against it.
        assert page.get_by_role("dialog").count() == 0
        champion.wait_for(state="hidden")
        page.locator(".chip", has_text="champion").wait_for()
        assert aliases(small)["champion"] == number
    # It moves from where the page has shown it to be: the first version took it itself.
    assert [("if-match" in each.headers, each.post_data_json) for each in asked] == [
        (True, {"version": 2}),
        (True, {"version": 1}),
    ]
    with small.client() as client:
        path = "/v1/models/small/aliases/champion/history"
        moves = client.get(path).json()["data"]
    moved = [(each["previous"], each["number"], each["reason"]) for each in moves[:2]]
    assert moved == [(2, 1, ""), (1, 2, "")]
