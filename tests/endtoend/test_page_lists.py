"""Lists of jobs that change while they are looked at, and are read page by page."""

from urllib.parse import parse_qs, urlsplit

import pytest

from tests.endtoend.browser import opened, view

PAGE = 3
HASTE = """const every = setInterval;
window.setInterval = (act, ms) => every(act, ms / 10);"""
"""The page looks for new ones each 0.2 s, where it does each 2 s."""


def job(number):
    return {
        **{"id": f"job_{number:026}", "kind": "training", "state": "queued"},
        **{"request": {"model": "mine"}, "progress": None, "error": None},
        **{"created_at": "2026-01-02T03:04:05Z", "started_at": None},
    }


class Jobs:
    """The jobs there are, the newest first, as the service tells them."""

    def __init__(self, *numbers):
        self.numbers = [*numbers]

    def answer(self, route):
        asked = parse_qs(urlsplit(route.request.url).query)
        after = int(asked.get("after", ["1000"])[0])
        behind = [number for number in self.numbers if number < after]
        told = behind[:PAGE]
        more = str(told[-1]) if len(behind) > PAGE else None
        route.fulfill(json={"data": [job(each) for each in told], "next": more})


@pytest.fixture
def jobs():
    return Jobs(6, 5, 4, 3, 2, 1)


@pytest.fixture
def page(browser, link, jobs):
    with opened(browser, link, before=HASTE) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/jobs?*", jobs.answer)
        view(page, "/jobs")
        yield page


def shows(page, *numbers):
    """Wait until these jobs are shown, in this order."""
    page.wait_for_function(
        "wanted => [...document.querySelectorAll('td a')]"
        ".map((each) => each.hash.slice(-26)).join() === wanted",
        arg=",".join(f"{number:026}" for number in numbers),
    )


def test_rows_that_new_ones_push_out_of_the_page_come_once(page, jobs):
    shows(page, 6, 5, 4)
    jobs.numbers[:0] = [8, 7]
    shows(page, 8, 7, 6, 5, 4)
    older = page.get_by_role("button", name="Older ones")
    older.click()
    shows(page, 8, 7, 6, 5, 4, 3, 2, 1)
    jobs.numbers[:0] = [9]
    shows(page, 9, 8, 7, 6, 5, 4, 3, 2, 1)
    assert not older.is_visible()


def test_after_more_than_a_page_of_new_ones_the_list_begins_anew(page, jobs):
    older = page.get_by_role("button", name="Older ones")
    older.click()
    shows(page, 6, 5, 4, 3, 2, 1)
    jobs.numbers[:0] = [11, 10, 9, 8, 7]
    shows(page, 11, 10, 9)
    older.click()
    shows(page, 11, 10, 9, 8, 7, 6)


def test_rows_that_no_longer_belong_make_room_for_the_next(page, jobs):
    """As where those of one state are looked at, and the state of one changes."""
    jobs.numbers.remove(5)
    shows(page, 6, 4, 3)
    older = page.get_by_role("button", name="Older ones")
    older.click()
    shows(page, 6, 4, 3, 2, 1)
    jobs.numbers.remove(4)
    shows(page, 6, 3, 2, 1)
    jobs.numbers[:] = [3, 1]
    shows(page, 3, 1)
