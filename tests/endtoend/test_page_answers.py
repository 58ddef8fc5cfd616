"""The page on answers that are given to it: what few deployments would say."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.endtoend.browser import NARROW, fits, opened, serious, view

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
FAILED = {
    **JOB,
    "kind": "training",
    "state": "failed",
    "error": {"code": "attempts_exhausted", "detail": "the process died"},
}


def answer(page, job, events=""):
    """What the service would say of a job that no worker runs here."""
    record = {"status": 200, "content_type": "application/json"}
    path = f"**/v1/jobs/{job['id']}"
    page.route(path, lambda route: route.fulfill(**record, body=json.dumps(job)))
    stream = {"status": 200, "content_type": "text/event-stream", "body": events}
    page.route(f"{path}/events*", lambda route: route.fulfill(**stream))


def test_a_sweep_has_a_bar_and_counts_its_candidates(browser, link):
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        told = {**JOB["progress"], "succeeded": 5, "fraction": 0.75}
        data = json.dumps({"id": None, "kind": "progress", "data": told})
        # A sweep waits while its candidates are trained.
        answer(page, {**JOB, "state": "queued"}, f"event: progress\ndata: {data}\n\n")
        view(page, f"/jobs/{JOB['id']}")
        page.get_by_text("3 of 8 trained, 1 not").wait_for()
        page.get_by_text("5 of 8 trained, 1 not").wait_for()
        assert page.get_by_label("Progress").get_attribute("value") in ("0.5", "0.75")
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
        fits(page, "job-failed")


def test_losses_of_a_curriculum_go_on_where_the_part_before_ended(browser, link):
    told = """async () => {
      const { addLoss, lossesOf } = await import('/page/loss.js');
      const points = [];
      for (const [part, iteration] of [[0, 5], [0, 9], [1, 2], [1, 6]])
        addLoss(points, { stage: 'optimise', part, iteration, loss: 1 });
      return lossesOf(points)[0].x;
    }"""
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        assert page.evaluate(told) == [5, 9, 11, 15]


def test_versions_without_values_and_conjugate_pairs_are_drawn(browser, link):
    # Eigenvalues -1 +- i beside those of another, and one that has none.
    told = """async () => {
      const { curves } = await import('/page/plots.js');
      const of = (label, x, y) => ({ label, x, y, points: true });
      const each = [of('a', [1, 1, 2], [-1, 1, 0]), of('b', [3], [0]), of('c', [], [])];
      const figure = curves('Spectrum', each, { x: { log: true } });
      document.querySelector('main').append(figure);
      await new Promise((done) => setTimeout(done, 300));
      const rows = [...figure.querySelectorAll('.u-series')].length;
      return [figure.querySelectorAll('canvas').length, rows];
    }"""
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        assert page.evaluate(told) == [1, 4]
        # As uPlot has them: both of the pair.
        joined = """async () => {
          const { joined } = await import('/page/plots.js');
          const of = (x, y) => ({ label: 'a', x, y, points: true });
          return joined([of([1, 1, 2], [-1, 1, 0]), of([3], [0]), of([], [])])[0];
        }"""
        x, a, b, c = page.evaluate(joined)
    assert len(x) == 4
    assert [value for value in a if value is not None] == [-1, 1, 0]
    assert [value for value in b if value is not None] == [0]
    assert not [value for value in c if value is not None]


def test_rankings_and_comparisons_are_tables(browser, link):
    told = """async () => {
      const { resultOf } = await import('/page/results.js');
      const text = (job) => resultOf(job).flat(3).map((each) => each.textContent).join(' | ');
      const ranking = [
        { job: 'job_a', settings: { 'surrogate.latent': 4 }, state: 'succeeded', version: 3, seconds: 9, error: null, validation: 0.01, test: 0.02 },
        { job: 'job_b', settings: { 'surrogate.latent': 2 }, state: 'failed', version: null, seconds: 1, error: { detail: 'it diverged' }, validation: null, test: null }];
      const one = (error) => ({ error, normalised_rmse: error / 2, worst_state: { name: 'y2', normalised_rmse: error }, mid_trajectory: null });
      const surrogates = { 'm/1': one(0.2), 'm/2': one(0.1) };
      const ensemble = { version: 9, members: [3, 1], validation: 0.008, test: 0.015 };
      return [text({ kind: 'sweep', result: { model: 'm', ranking, ensemble } }),
        text({ kind: 'evaluation', result: { trajectories: 7, surrogates, paired: { 'm/2': { verdict: 'm/2 is better on all' } } } })];
    }"""
    with opened(browser, link) as page:
        page.wait_for_selector("h1")
        ranking, comparison = page.evaluate(told)
    assert "m/341 %2 %9succeeded" in ranking
    assert "its job2––1it diverged" in ranking
    said = "m/9 is the ensemble of m/3, m/1: 0.8 % on the validation part, 1.5 % on"
    assert said in ranking
    assert "the same 7 trajectories" in comparison
    assert "m/210 %5 %y2 10 %–m/2 is better on all" in comparison


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


def test_versions_are_shown_page_by_page_and_stay_chosen(browser, link):
    model = {"name": "mine", "aliases": {"champion": 3}, "latest": 3, "versions": []}
    version = {"model": "mine", "size_bytes": 1, "created_at": "2026-01-02T03:04:05Z"}
    pages = {
        None: {
            "data": [{**version, "number": 3, "normalised_rmse": 0.012}],
            "next": "3",
        },
        "3": {
            "data": [{**version, "number": 2, "normalised_rmse": None}],
            "next": None,
        },
    }

    def answer(route):
        asked = urlsplit(route.request.url)
        after = parse_qs(asked.query).get("after", [None])[0]
        found = pages[after] if asked.path.endswith("/versions") else model
        body = json.dumps({"description": "", **found})
        route.fulfill(headers={"etag": '"a"'}, json=json.loads(body))

    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/models/mine**", answer)
        view(page, "/models/mine")
        row = page.get_by_role("row", name="version 3")
        assert "1.2 %" in row.inner_text()
        page.get_by_label("Compare version 3").uncheck()
        page.get_by_role("button", name="Older ones").click()
        page.get_by_label("Compare version 2").wait_for()
        assert not page.get_by_label("Compare version 3").is_checked()
        assert not page.get_by_role("button", name="Older ones").is_visible()


def version_of(name, digest, number=1, certificate=None):
    """A version, and the card that names its data, at their paths."""
    path = f"/v1/models/{name}/versions/{number}"
    version = {
        **{"model": name, "number": number, "size_bytes": 1, "job_id": None},
        **{"created_at": "2026-01-02T03:04:05Z", "digest": digest},
        "signature": {"latent": 3},
        "spec": {
            **{"linear": {"kind": "modal"}, "nonlinear": {"kind": "polynomial"}},
            "integrator": "etd1",
        },
        "evaluation": {"test": {"normalised_rmse": 0.01}},
        "certificate": certificate or {},
    }
    data = {"id": f"ds_of_the_{name}", "digest": digest}
    return {path: version, f"{path}/card": {"dataset": data}}


def answering(json_of):
    """What answers each request with the record at its path."""

    def answer(route):
        route.fulfill(json=json_of[urlsplit(route.request.url).path])

    return answer


def test_versions_beyond_the_eighth_are_named(browser, link):
    json_of = {}
    for number in range(1, 11):
        json_of |= version_of("mine", "a", number)

    asked = ",".join(f"mine/{number}" for number in range(1, 11))
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/models**", answering(json_of))
        view(page, f"/compare/{asked}")
        page.get_by_text(
            "8 stand side by side at most; left out: mine/9, mine/10."
        ).wait_for()
        assert page.get_by_role("columnheader", name="mine/").count() == 8
        view(page, "/compare/mine/1,mine/2")
        assert page.get_by_text("left out").count() == 0


def test_versions_of_two_models_stand_side_by_side(browser, link):
    """Their errors are of different data, and that is said."""
    json_of = {}
    for name, digest in (("first", "a"), ("second", "b")):
        json_of |= version_of(name, digest)
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


def test_what_a_claim_is_worth_is_told_by_its_fields(browser, link):
    """Its sentence may call one of several bounds vacuous, where another is of use."""
    claim = {"assumptions": [], "holds": True, "is_vacuous": False}
    certificate = {
        "sharp": {**claim, "statement": "Below 0.1; the other form, 10^9, is vacuous."},
        "ball": {**claim, "is_vacuous": True, "statement": "All stay below 10^12."},
        "lyapunov": {**claim, "holds": False, "statement": "No norm is known."},
    }
    json_of = version_of("mine", "a", certificate=certificate)
    json_of["/v1/models/mine"] = {"name": "mine", "aliases": {}, "latest": 1}

    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/models**", answering(json_of))
        view(page, "/models/mine/1")
        page.get_by_text("What is not proved, or says nothing (2)").click()
        said = page.locator(".claims").all_inner_texts()
    assert "Proved: Below 0.1" in said[0]
    assert "Proved, and vacuous: All stay" in said[1]
    assert "Not proved: No norm" in said[1]


def test_a_job_says_what_it_waits_for(browser, link):
    waiting = {**JOB, "kind": "training", "state": "queued", "progress": None}
    ready = {"status": "ready", "checks": {}, "workers": {"training.gpu": 0}}
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/health/ready", lambda route: route.fulfill(json=ready))
        answer(page, {**waiting, "queue": "training.gpu"})
        view(page, f"/jobs/{JOB['id']}")
        page.get_by_text("No worker takes training.gpu now").wait_for()
    cancelling = {**waiting, "state": "running", "cancel_requested": True}
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        answer(page, {**cancelling, "queue": "training"})
        view(page, f"/jobs/{JOB['id']}")
        page.get_by_text("Being cancelled").wait_for()


def test_a_view_that_failed_is_asked_for_again(browser, link):
    problem = {"status": 503, "detail": "the database is away", "code": "unavailable"}
    with opened(browser, link, refusals=(503,)) as page:
        page.wait_for_selector("main h1")
        refuse = lambda route: route.fulfill(status=503, json=problem)  # noqa: E731
        page.route("**/v1/models?*", refuse)
        view(page, "/models")
        page.get_by_text("the database is away").wait_for()
        # A link to the view that is shown asks too.
        page.get_by_role("link", name="Models", exact=True).click()
        page.get_by_text("the database is away").wait_for()
        page.unroute("**/v1/models?*")
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("heading", name="Models", exact=True).wait_for()


def test_the_reference_names_types_and_bounds(browser, link):
    with opened(browser, link) as page:
        page.get_by_role("link", name="REST", exact=True).click()
        page.get_by_label("Find").wait_for()
        said = page.text_content("main")
        current = page.locator("nav [aria-current]").inner_text()
    assert current == "REST"
    assert "integer, at least 1, at most 100" in said
    assert "list of" in said


def test_the_reference_tells_answers_and_codes(browser, link):
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        view(page, "/reference")
        find = page.get_by_label("Find")
        find.fill("list datasets")
        page.get_by_text("GET /v1/datasets · List datasets").click()
        # Of a page the fields of its items stand below its own.
        for name in ("Page[DatasetOut]", "DatasetOut"):
            page.get_by_role("region", name=f"Fields of {name}", exact=True).wait_for()
        answer = page.get_by_role("region", name="Fields of DatasetOut", exact=True)
        assert "size_bytes" in answer.inner_text()
        page.get_by_text("200 application/json: Page_DatasetOut_").wait_for()
        page.get_by_text("GET /v1/datasets · List datasets").click()
        find.fill("gate_failed")
        assert not page.get_by_text("List datasets").is_visible()
        page.get_by_text("A problem and its").click()
        row = page.get_by_role("row").filter(has_text="gate_failed")
        assert row.inner_text().split()[:3] == ["409", "gate_failed", "The"]
        assert page.get_by_role("row").filter(has_text="request_id").first.is_visible()
        assert not (found := serious(page)), found
