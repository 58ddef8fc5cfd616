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
