"""What the page says of errors, and how it writes them."""

import pytest

from tests.endtoend.browser import opened, view
from tests.endtoend.test_page_answers import answering, version_of


def test_parts_are_told_in_percent_beyond_a_hundred_too(browser, link):
    told = """async () => {
      const { percent } = await import('/page/elements.js');
      return [0.0123, 0.994, 0.996, 1.024, 21, null].map(percent);
    }"""
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        found = page.evaluate(told)
    assert found == ["1.2 %", "99 %", "100 %", "102 %", "2,100 %", "–"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_warnings_are_told_where_nothing_was_held_out_too(browser, link, part):
    ended = "max_seconds reached in stage 'optimise' at iteration 1 of 8823"
    json_of = version_of("mine", "a")
    path = next(iter(json_of))
    found = {"normalised_rmse": 0.01, "warnings": [ended]}
    json_of[path]["evaluation"] = {"validation": None, part: found}
    json_of["/v1/models/mine"] = {"name": "mine", "aliases": {}}

    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/models/**", answering(json_of))
        view(page, "/models/mine/1")
        page.locator(".notice", has_text=ended).wait_for()
