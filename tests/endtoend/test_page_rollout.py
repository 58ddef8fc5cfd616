"""The rollout panel where there is more than one page of what it can choose from."""

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.endtoend.browser import opened, view

CREATED = "2026-01-02T03:04:05Z"
SIGNATURE = {
    **{"states": ["x1"], "units": [""], "parameters": [], "controls": []},
    **{"time_unit": "s", "intervals": False, "members": 1, "latent": 1},
    "domain": {"lower": [0], "upper": [1], "end": 10},
}
VERSION = {"model": "mine", "number": 1, "signature": SIGNATURE, "spec": {}}
DRIVEN = {
    **SIGNATURE,
    **{"parameters": ["p1", "p2"], "controls": ["u1"]},
    "domain": {
        **{"lower": [0], "upper": [2], "end": 10},
        **{"parameters_lower": [0, 0], "parameters_upper": [4, 4]},
        **{"controls_lower": [0], "controls_upper": [6]},
    },
}
TRAJECTORY = {
    **{"names": ["x1"], "states": [[0.5], [0.25]], "times": [0, 1], "number": 0},
    **{"parameter_names": [], "parameters": [], "control_names": [], "controls": []},
    **{"control_times": [], "switches": 0, "samples": 2},
}
PARAMETERS = {"parameter_names": ["p2", "p1"], "parameters": [1, 3]}
CONTROLS = {
    **{"control_names": ["u1"], "controls": [[5]]},
    **{"control_times": [0], "switches": 1},
}


def dataset(number, state="x1"):
    times = {"shortest_step": 0.1, "longest": 10, "unit": "s", "decades": 2}
    summary = {"states": {state: {}}, "trajectories": 1, "times": times}
    name = f"file-{number}.npz"
    return {
        **{"id": f"ds_{number}", "name": name, "summary": summary, "size_bytes": 1},
        "created_at": CREATED,
    }


# Four pages: the second and third have nothing that fits.
PAGES = [
    [dataset(9), dataset(8, "other")],
    [dataset(7, "other")],
    [dataset(6, "other")],
    [dataset(5), dataset(4, "other")],
]
DATASETS = {each["id"]: each for page in PAGES for each in page}


def model(name, version):
    aliases = {"champion": version} if version else {}
    shown = {"description": "", "updated_at": CREATED}
    return {"name": name, "aliases": aliases, "latest": version, **shown}


MODELS = [[model("mine", 1), model("bare", None)], [model("old", 4)]]


def told(pages, url):
    at = int(parse_qs(url.query).get("after", ["0"])[0])
    after = str(at + 1) if at + 1 < len(pages) else None
    return {"data": pages[at], "next": after}


def answer(route):
    url = urlsplit(route.request.url)
    _, _, kind, *rest = url.path.split("/")
    found = None
    if kind == "rollout":
        found = {"times": [0, 1], "x": [[0.5], [0.3]], "warnings": []}
    elif kind == "systems" and not rest:
        found = {"data": [{"name": "decay", "states": ["x1"]}]}
    elif kind == "systems":
        (start,) = json.loads(route.request.post_data)["x0"]
        found = {"times": [0, 1], "x": [[start], [start / 2]]} if start < 0.9 else None
    elif kind == "models" and not rest:
        found = told(MODELS, url)
    elif kind == "models" and rest == ["mine", "versions", "1"]:
        found = VERSION
    elif kind == "models" and rest == ["mine", "versions", "2"]:
        found = {**VERSION, "number": 2, "signature": DRIVEN}
    elif kind == "models" and rest[-1] == "card":
        found = {"dataset": None}
    elif kind == "models":
        every = {each["name"]: each for page in MODELS for each in page}
        found = every.get(rest[0])
    elif kind == "datasets" and not rest:
        found = told(PAGES, url)
    elif kind == "datasets":
        found = DATASETS.get(rest[0]) and (
            TRAJECTORY if rest[1:] else DATASETS[rest[0]]
        )
    if found is None:
        problem = {"status": 404, "detail": f"there is no {rest[0]}"}
        return route.fulfill(status=404, json=problem)
    return route.fulfill(json=found)


@pytest.fixture
def page(browser, link):
    with opened(browser, link, refusals=(404,)) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/**", answer)
        yield page


def offered(page):
    return page.get_by_label("Dataset", exact=True).locator("option").all_inner_texts()


def test_a_model_is_reached_by_pages_and_by_its_name(page):
    view(page, "/rollout")
    assert page.get_by_role("link", name="old").count() == 0
    page.get_by_role("button", name="Older ones").click()
    page.get_by_role("link", name="old").wait_for()
    named = page.get_by_label("A model by its name")
    for name, said in (("nothing", "there is no nothing"), ("bare", "has no version")):
        named.fill(name)
        named.press("Enter")
        page.get_by_role("alert").filter(has_text=said).wait_for()
    named.fill("mine")
    named.press("Enter")
    page.wait_for_url(re.compile("#/rollout/mine/1"))
    page.get_by_role("heading", name="Rollout of mine/1").wait_for()


def test_a_dataset_is_reached_by_pages(page):
    view(page, "/rollout/mine/1")
    assert offered(page) == ["none", "file-9.npz"]
    page.get_by_role("button", name="Older ones").click()
    # The pages without any that fits are passed over.
    page.get_by_text("1 more in the list of datasets").wait_for()
    assert offered(page) == ["none", "file-9.npz", "file-5.npz"]
    assert not page.get_by_role("button", name="Older ones").is_visible()


def test_a_dataset_is_reached_by_its_id(page):
    view(page, "/rollout/mine/1")
    named = page.get_by_label("Or another by its id")
    for given, said in (("ds_4", "file-4.npz has no x1"), ("ds_1", "there is no ds_1")):
        named.fill(given)
        named.press("Enter")
        page.get_by_role("alert").filter(has_text=said).wait_for()
    named.fill("ds_5")
    named.press("Enter")
    # It is chosen, and drawn beside the rollout from its start.
    page.get_by_text("the reference shows while the start").wait_for()
    assert page.get_by_label("Dataset", exact=True).input_value() == "ds_5"
    page.locator("figure").filter(has_text="reference").wait_for()
    assert page.get_by_label("x1", exact=True).input_value() == "0.5"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "p1, p2, u1"),
        ({**PARAMETERS, **CONTROLS, "parameter_names": ["p2", "p3"]}, "p1"),
        ({**PARAMETERS, **CONTROLS, "control_names": ["u2"]}, "u1"),
    ],
)
def test_a_dataset_without_inputs_of_the_model_gives_its_start_alone(
    page, given, missing
):
    told = {**TRAJECTORY, **given}
    page.route("**/trajectories/*", lambda route: route.fulfill(json=told))
    view(page, "/rollout/mine/2")
    page.locator("figure").wait_for()
    with page.expect_response("**/v1/rollout") as answered:
        page.get_by_label("Dataset", exact=True).select_option("ds_9")
    page.get_by_text(f"It has no {missing}, which the model takes").wait_for()
    sent = answered.value.request.post_data_json
    assert (sent["x0"], sent["parameters"]) == ([0.5], [2, 2])
    assert (sent["controls"], sent["control_times"]) == ([[3]], [0])
    assert page.locator("figure").filter(has_text="reference").count() == 0
    assert page.get_by_text("the reference shows while").count() == 0


def test_a_value_that_is_no_number_is_told_until_another_is_there(page):
    view(page, "/rollout/mine/1")
    page.locator("figure").wait_for()
    number = page.get_by_label("x1", exact=True)
    pasted = page.get_by_label("All 1 values")
    page.get_by_text("Paste them").click()
    alert = page.get_by_role("alert")

    def refused(field, given, said):
        field.fill(given)
        field.blur()
        alert.filter(has_text=said).wait_for()
        assert field.get_attribute("aria-invalid") == "true"
        color = "each => getComputedStyle(each).borderTopColor"
        assert field.evaluate(color) == alert.first.evaluate(color)

    def mended():
        alert.first.wait_for(state="detached")
        for field in (number, pasted):
            assert field.get_attribute("aria-invalid") is None

    refused(number, "0,95", "found '0,95'; expected a number")
    assert pasted.input_value() == "0.5"
    page.get_by_label("x1, slider").press("ArrowRight")
    mended()
    assert number.input_value() == pasted.input_value() == "0.501"
    refused(number, " ", "found nothing; expected a number")
    refused(pasted, "1, 2", "found 2 values; expected 1 numbers: x1")
    number.fill("0.7")
    number.blur()
    mended()
    refused(number, "1e999", "found '1e999'; expected a number")
    refused(pasted, "nothing", "expected 1 numbers: x1")
    page.get_by_label("Dataset", exact=True).select_option("ds_9")
    page.get_by_text("the reference shows while the start").wait_for()
    mended()
    assert number.input_value() == pasted.input_value() == "0.5"


def test_a_known_system_is_solved_from_any_start(page):
    view(page, "/rollout/mine/1")
    page.locator("figure").wait_for()
    drawn = page.locator("figure").filter(has_text="reference")
    assert drawn.count() == 0
    # The file may be of another system that has a state of the same name.
    solved = page.get_by_label("solve decay from any other start")
    solved.check()
    drawn.wait_for()
    start = page.get_by_label("x1", exact=True)
    start.fill("0.95")
    start.press("Enter")
    page.get_by_role("alert").filter(has_text="there is no decay").wait_for()
    assert drawn.count() == 0, "that of another start"
    start.fill("0.25")
    start.press("Enter")
    drawn.wait_for()
    assert page.get_by_role("alert").count() == 0
    solved.uncheck()
    drawn.wait_for(state="detached")
