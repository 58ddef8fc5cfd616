"""The page of a gateway that has nothing yet: by keyboard, and where things go wrong."""

import base64
import json
import re
from urllib.parse import urlsplit

import pytest

from tests.api.deployment import deployed
from tests.endtoend.browser import NARROW, launched, opened, serious, shown, view

NO_STORAGE = """for (const name of ['localStorage', 'sessionStorage'])
  Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"""
LOST = ("ERR_CONNECTION_RESET",)
NO_TLS = "Crypto.prototype.randomUUID = undefined;"
JOB = {
    "id": "job_00000000000000000000000000",
    "kind": "sweep",
    "state": "running",
    "attempt": 1,
    "max_attempts": 4,
    "created_at": "2026-01-02T03:04:05Z",
    "cancel_requested": False,
    "request": {"model": "m" * 64},
    "error": None,
    "result": None,
    "progress": {
        "stage": "candidates",
        "candidates": 8,
        "succeeded": 3,
        "failed": 1,
        "cancelled": 0,
        "fraction": 0.5,
    },
}
# A file in the hand of the pointer, which no driver of browsers can take from a desktop.
HELD = """([name, text]) => {
  const held = new DataTransfer();
  held.items.add(new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], name));
  return held;
}"""
FAILED = {
    **JOB,
    "kind": "training",
    "state": "failed",
    "error": {"code": "attempts_exhausted", "detail": "the process died"},
}


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def gateway():
    """No worker: what is queued stays so."""
    with deployed() as data:
        yield data.start_gateway()


@pytest.fixture(scope="module")
def link(gateway):
    return f"{gateway.url}/#key={gateway.key}"


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
            shown(page, f"{path[1:]}-empty-wide-light")
            assert not (found := serious(page)), (path, found)


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
        assert not (found := serious(page)), found
        page.keyboard.press("Escape")
        dialog.wait_for(state="detached")
        assert button.evaluate("each => each === document.activeElement")
        assert dataset in ids(gateway, "datasets")


def test_the_form_for_a_key_is_accessible_by_keyboard(browser, gateway):
    with opened(browser, gateway.url, refusals=(401,)) as page:
        page.wait_for_selector("h1:has-text('An API key')")
        assert not (found := serious(page)), found
        page.locator("main input").first.focus()
        page.keyboard.type(gateway.key)
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('Datasets')")


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


def answer(page, job):
    """What the service would say of a job that no worker runs here."""
    record = {"status": 200, "content_type": "application/json"}
    path = f"**/v1/jobs/{job['id']}"
    page.route(path, lambda route: route.fulfill(**record, body=json.dumps(job)))
    stream = {"status": 200, "content_type": "text/event-stream", "body": ""}
    page.route(f"{path}/events*", lambda route: route.fulfill(**stream))


def test_a_sweep_has_a_bar_and_counts_its_candidates(browser, link):
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        answer(page, JOB)
        view(page, f"/jobs/{JOB['id']}")
        page.get_by_text("3 of 8 trained, 1 not").wait_for()
        assert page.get_by_label("Progress").get_attribute("value") == "0.5"
        assert "attempt 1" in page.text_content("main")
        assert "attempt 1 of" not in page.text_content("main")


def test_rows_and_iterations_are_told_with_their_rate(browser, link):
    told = """async () => {
      const { pace, part } = await import('/page/progress.js');
      const rows = { stage: 'rollout', rows: 1512, rows_total: 3024, rows_per_second: 99.6, fraction: 0.5, remaining_s: 15.1 };
      const say = pace(), fit = { stage: 'optimise', iterations: 900, remaining_s: null };
      say({ ...fit, iteration: 100, seconds: 10 });
      return [pace()(rows), part(rows), say({ ...fit, iteration: 300, seconds: 14 }),
        part({ ...fit, iteration: 300 }), pace()({ message: 'comparing 2 versions' }), part({})];
    }"""
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        found = page.evaluate(told)
    assert found == [
        "1,512 of 3,024 rows, 100 rows/s, about 15 s left",
        0.5,
        "optimise 300 of 900, 50 per second",
        pytest.approx(1 / 3),
        "comparing 2 versions",
        None,
    ]


def test_a_job_that_failed_says_its_code_and_what_helps(browser, link):
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        answer(page, FAILED)
        view(page, f"/jobs/{FAILED['id']}")
        assert page.get_by_role("alert").text_content() == "the process died"
        said = page.text_content("main")
        assert "attempts_exhausted What helps: A smaller batch" in said


def test_a_list_of_jobs_fits_a_phone(browser, link):
    told = """async (jobs) => {
      const { jobTable } = await import('/page/jobs.js');
      const table = jobTable(jobs);
      document.getElementById('content').replaceChildren(table);
      const cells = [...table.querySelectorAll('td')].map((each) => each.clientWidth);
      return [table.scrollWidth - table.clientWidth, Math.min(...cells.filter(Boolean)), table.innerText];
    }"""
    times = {
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:05:00Z",
    }
    done = {**JOB, **times, "state": "succeeded", "request": {"model": "small"}}
    with opened(browser, link, NARROW) as page:
        page.wait_for_selector("main h1")
        over, narrowest, text = page.evaluate(told, [JOB, done, FAILED])
    assert over <= 0
    # No column of single letters.
    assert narrowest > 80
    for said in ("3 of 8 trained, 1 not", "took 55 s", "attempts exhausted", "small"):
        assert said in text


def test_health_says_what_does_not_answer_and_blames_no_workers(browser, link):
    ready = {
        "status": "ready",
        "checks": {"database": "does not answer", "queue": "ok", "models": "warm"},
        "workers": {"training": 0},
    }
    body = {"content_type": "application/json", "body": json.dumps(ready)}
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/health/ready", lambda route: route.fulfill(**body))
        view(page, "/health")
        page.get_by_text("no answer comes from the database: requests are").wait_for()
        assert page.get_by_text("No worker listens").count() == 0


def test_versions_of_two_models_stand_side_by_side(browser, link):
    """Their errors are of different data, and that is said."""
    json_of = {}
    for name, digest in (("first", "a"), ("second", "b")):
        path = f"/v1/models/{name}/versions/1"
        json_of[path] = {
            **{"model": name, "number": 1, "size_bytes": 1, "job_id": None},
            **{"created_at": "2026-01-02T03:04:05Z", "digest": digest},
            "signature": {"latent": 3},
            "spec": {
                **{"linear": {"kind": "modal"}, "nonlinear": {"kind": "polynomial"}},
                "integrator": "etd1",
            },
            "evaluation": {"test": {"normalised_rmse": 0.01}},
            "certificate": {},
        }
        data = {"id": f"ds_of_the_{name}", "digest": digest}
        json_of[f"{path}/card"] = {"dataset": data}
    models = [
        {
            **{"name": name, "aliases": {"champion": 1}, "latest": 1},
            **{"description": "", "updated_at": "2026-01-02T03:04:05Z"},
        }
        for name in ("first", "second")
    ]
    json_of["/v1/models"] = {"data": models, "next": None}

    def answer(route):
        found = json_of[urlsplit(route.request.url).path]
        route.fulfill(content_type="application/json", body=json.dumps(found))

    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/models**", answer)
        view(page, "/models")
        for name in ("first", "second"):
            page.get_by_label(f"Compare {name}/1").check()
        page.get_by_role("button", name="Compare the chosen").click()
        page.wait_for_selector("h1:has-text('side by side')")
        page.get_by_text("./spnode models compare first/1 second/1").wait_for()
        assert page.get_by_role("link", name="ds_…_first").count() == 1
