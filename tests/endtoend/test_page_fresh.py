"""The page of a gateway that has nothing yet: by keyboard, and where things go wrong."""

import base64
import re

import pytest

from tests.endtoend.browser import fits, opened, serious, view

NO_STORAGE = """for (const name of ['localStorage', 'sessionStorage'])
  Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"""
FIRST_PAINT_BYTES = 300_000
LOST = ("ERR_CONNECTION_RESET",)
BEGUN_S = 1_800_000_000
NO_TLS = "Crypto.prototype.randomUUID = undefined;"
# A file in the hand of the pointer, which no driver of browsers can take from a desktop.
HELD = """([name, text]) => {
  const held = new DataTransfer();
  held.items.add(new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], name));
  return held;
}"""


@pytest.fixture
def dataset(gateway, file):
    """The id of the user's file, uploaded."""
    sent = {"headers": {"content-type": "application/x-npz"}}
    with gateway.client() as client:
        made = client.post("/v1/datasets", content=file.read_bytes(), **sent).json()
        yield made["id"]
        client.delete(f"/v1/datasets/{made['id']}")


def ids(gateway, kind):
    with gateway.client() as client:
        return [each["id"] for each in client.get(f"/v1/{kind}").json()["data"]]


def test_what_is_empty_says_what_to_do(browser, link):
    said = {
        "/datasets": "No dataset yet",
        "/jobs": "No jobs here",
        "/models": "No model yet",
        "/rollout": "No model yet",
    }
    with opened(browser, link) as page:
        page.get_by_text("No dataset yet").wait_for()
        for path, words in said.items():
            view(page, path)
            page.get_by_role("heading", name=words).wait_for()
            fits(page, f"{path[1:]}-empty")


def test_the_first_paint_is_small(browser, link):
    sizes = {}
    with opened(browser, "about:blank") as page:
        page.on("response", lambda each: sizes.update({each.url: len(each.body())}))
        page.goto(link)
        page.wait_for_selector("main h1")
    assert len(sizes) > 10
    assert sum(sizes.values()) < FIRST_PAINT_BYTES, sizes


def test_the_keyboard_leads_to_everything(browser, link):
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        focused = "document.activeElement.textContent"
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        assert page.text_content("main h1") == "Datasets"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert page.get_by_label("System").is_visible()
        # Back over the skip link and the name to the views.
        page.locator(".skip").focus()
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Jobs"
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('Jobs')")


def test_a_dialog_is_accessible_and_escape_is_no(browser, link, gateway, dataset):
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        view(page, f"/datasets/{dataset}")
        button = page.get_by_role("button", name="Delete")
        button.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        assert page.evaluate("document.activeElement.textContent") == "Cancel"
        fits(page, "dialog")
        page.keyboard.press("Escape")
        dialog.wait_for(state="detached")
        assert button.evaluate("each => each === document.activeElement")
        assert dataset in ids(gateway, "datasets")


def test_a_late_answer_leads_nobody_away(browser, link, dataset):
    held = []
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        view(page, f"/datasets/{dataset}")
        page.route(f"**/v1/datasets/{dataset}", lambda route: held.append(route))
        page.get_by_role("button", name="Delete").click()
        with page.expect_request(f"**/v1/datasets/{dataset}"):
            page.get_by_role("button", name="Delete it").click()
        view(page, "/health")
        held[0].continue_()
        page.locator("#said", has_text="is deleted").wait_for()
        assert page.evaluate("location.hash") == "#/health"


def test_the_form_for_a_key_is_accessible_by_keyboard(browser, gateway):
    with opened(browser, gateway.url, refusals=(401,)) as page:
        page.wait_for_selector("h1:has-text('An API key')")
        assert not (found := serious(page)), found
        page.locator("main input").first.focus()
        page.keyboard.type(gateway.key)
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('Datasets')")


def test_a_key_that_cannot_be_sent_is_told_as_that(browser, gateway):
    with opened(browser, gateway.url, refusals=(401,)) as page:
        page.wait_for_selector("h1:has-text('An API key')")
        asked = []
        page.on("request", lambda each: asked.append(each.url))
        given = page.get_by_label("Key", exact=True).last
        alert = page.get_by_role("alert")
        for wrong, said in (
            ("spn_1\u2026", "character 6 of this key is U+2026"),
            (f"\u200b{gateway.key}", "character 1 of this key is U+200B"),
        ):
            given.fill(wrong)
            given.press("Enter")
            alert.filter(has_text=said).wait_for()
        assert not asked
        # Of a link, too.
        page.goto(f"{gateway.url}/#key=spn_1%E2%80%A6")
        alert.filter(has_text="character 6 of this key is U+2026").wait_for()
        assert page.get_by_text("does not answer").count() == 0
        given.fill(f" {gateway.key} ")
        given.press("Enter")
        page.wait_for_selector("h1:has-text('Datasets'), h1:has-text('Jobs')")


def test_a_browser_that_keeps_nothing_has_the_key_as_long_as_the_page(browser, link):
    with opened(browser, link, before=NO_STORAGE) as page:
        page.wait_for_selector("h1:has-text('Datasets')")
        page.locator("#theme").click()
        view(page, "/jobs")
        assert page.evaluate("document.documentElement.dataset.theme")


def lose_the_first(page, pattern):
    """The service does what is asked, and its first answer never arrives."""
    asked = []

    def handle(route):
        if route.request.method != "POST":
            return route.continue_()
        asked.append(route.request.headers.get("idempotency-key"))
        if len(asked) > 1:
            return route.continue_()
        route.fetch()
        return route.abort("connectionreset")

    page.route(pattern, handle)
    return asked


@pytest.mark.parametrize("before", [None, NO_TLS])
def test_a_click_after_a_lost_answer_makes_no_second_job(
    browser, link, gateway, dataset, before
):
    jobs = len(ids(gateway, "jobs"))
    with opened(browser, link, refusals=LOST, before=before) as page:
        page.wait_for_selector("main h1")
        view(page, f"/datasets/{dataset}")
        keys = lose_the_first(page, "**/v1/jobs")
        train = page.get_by_role("button", name="Train")
        train.click()
        page.get_by_text("the service does not answer").wait_for()
        train.click()
        page.wait_for_url(re.compile("#/jobs/job_"))
        assert keys[0] == keys[1]
        assert len(keys[0]) > 30
        # The same once more is another.
        page.unroute("**/v1/jobs")
        view(page, f"/datasets/{dataset}")
        page.get_by_role("button", name="Train").click()
        page.wait_for_url(re.compile("#/jobs/job_"))
    assert len(ids(gateway, "jobs")) == jobs + 2


def test_tries_in_vain_for_longer_than_a_minute_are_the_same(
    browser, link, gateway, dataset
):
    jobs = len(ids(gateway, "jobs"))
    keys = []

    def lose(route):
        keys.append(route.request.headers["idempotency-key"])
        route.abort("connectionreset")

    with opened(browser, link, refusals=LOST) as page:
        page.wait_for_selector("main h1")
        view(page, f"/datasets/{dataset}")
        train = page.get_by_role("button", name="Train")
        page.route("**/v1/jobs", lose)
        for second in (0, 40, 80):
            page.clock.set_fixed_time(BEGUN_S + second)
            with page.expect_event("requestfailed"):
                train.click()
            train.click(trial=True)
        page.unroute("**/v1/jobs")
        for second in (120, 121):
            page.clock.set_fixed_time(BEGUN_S + second)
            with page.expect_request("**/v1/jobs") as asked:
                train.click()
            keys.append(asked.value.headers["idempotency-key"])
            page.wait_for_url(re.compile("#/jobs/job_"))
            view(page, f"/datasets/{dataset}")
    assert len({*keys[:4]}) == 1
    # What was made is asked for anew.
    assert keys[4] != keys[3]
    assert len(ids(gateway, "jobs")) == jobs + 2


def test_a_key_is_kept_while_its_answer_may_come(browser, link):
    told = """async () => {
      const { make } = await import('/page/service.js');
      const asked = [], others = window.fetch;
      let now = 0;
      Date.now = () => 1000 * now;
      window.fetch = (path, options) => path !== '/v1/jobs' ? others(path, options) : new Promise((resolve, reject) => asked.push({
        key: options.headers['idempotency-key'], lose: () => reject(new TypeError('lost')), answer: () => resolve(Response.json({})) }));
      const begin = (second) => {
        now = second;
        return make('/v1/jobs', {}).catch(() => null);
      };
      const first = begin(0), second = begin(100);
      asked[0].answer();
      await first;
      const third = begin(101);
      asked[1].answer();
      await second;
      const fourth = begin(102);
      asked[2].lose();
      asked[3].lose();
      await Promise.all([third, fourth]);
      begin(162);
      asked[4].lose();
      await new Promise((resolve) => setTimeout(resolve));
      begin(223);
      return asked.map(({ key }) => asked.findIndex((each) => each.key === key));
    }"""
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        found = page.evaluate(told)
    # The second was in flight with the first; the others began after its answer.
    assert found == [0, 0, 2, 2, 2, 5]


def test_a_file_whose_answer_was_lost_is_kept_once(browser, link, gateway, file):
    datasets = len(ids(gateway, "datasets"))
    with opened(browser, link, refusals=LOST) as page:
        page.wait_for_selector("main h1")
        view(page, "/datasets")
        lose_the_first(page, "**/v1/datasets?name=*")
        page.set_input_files("#file", file)
        page.get_by_text("the connection was lost").wait_for()
        page.set_input_files("#file", file)
        page.wait_for_url(re.compile("#/datasets/ds_"))
    assert len(ids(gateway, "datasets")) == datasets + 1


def held(page, name, content):
    """What a dragging pointer would carry: a file of this name and content."""
    given = [name, base64.b64encode(content).decode()]
    return {"dataTransfer": page.evaluate_handle(HELD, given)}


def test_a_file_is_dropped_and_its_report_is_there(browser, link, gateway, file):
    before = ids(gateway, "datasets")
    with opened(browser, link, refusals=(422,)) as page:
        page.wait_for_selector("main h1")
        view(page, "/datasets")
        zone = page.locator(".drop")
        wrong = held(page, "notes.txt", b"no trajectories")
        zone.dispatch_event("dragover", wrong)
        assert "over" in zone.get_attribute("class").split()
        zone.dispatch_event("drop", wrong)
        zone.get_by_role("alert").wait_for()
        assert "over" not in zone.get_attribute("class").split()
        zone.dispatch_event("drop", held(page, file.name, file.read_bytes()))
        page.get_by_role("heading", name=file.name).wait_for()
        said = page.text_content("main")
        assert "conserved, as declared: mass = y1 + y2 + y3" in said
        page.wait_for_selector("figure canvas")
    (made,) = set(ids(gateway, "datasets")) - {*before}
    with gateway.client() as client:
        client.delete(f"/v1/datasets/{made}")


def test_leaving_is_asked_about_until_the_last_upload_has_ended(browser, link):
    asks = """() => {
      const leaving = new Event('beforeunload', { cancelable: true });
      window.dispatchEvent(leaving);
      return leaving.defaultPrevented;
    }"""
    sent = []
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/datasets?name=*", lambda route: sent.append(route))
        for name in ("first.npz", "second.npz"):
            view(page, "/jobs")
            view(page, "/datasets")
            given = {"name": name, "mimeType": "application/x-npz", "buffer": b"x"}
            with page.expect_request("**/v1/datasets?name=*"):
                page.set_input_files("#file", given)
        view(page, "/jobs")
        for route, name in zip(sent, ("first.npz", "second.npz"), strict=True):
            assert page.evaluate(asks), name
            route.fulfill(status=201, json={"id": "ds_1"})
            page.get_by_text(f"{name} is uploaded").wait_for()
        assert not page.evaluate(asks)
