"""What the rollout panel draws: fields of many states, and bands around few."""

import json
import re
from urllib.parse import urlsplit

import pytest

from tests.endtoend.browser import fits, opened, view

MANY = 20
CREATED = "2026-01-02T03:04:05Z"
TIMES = [0, 5, 10]
WAVE = [[(at + state) / (MANY + 1) for state in range(MANY)] for at in range(3)]
"""From 0 to 1; the reference is half of it."""


def signature(names, **given):
    return {
        **{"states": names, "units": [""] * len(names), "parameters": []},
        **{"controls": [], "time_unit": "s", "latent": 4},
        **{"intervals": False, "members": 1, **given},
        "domain": {
            **{"lower": [0] * len(names), "upper": [1] * len(names), "end": 10},
        },
    }


SIGNATURES = {
    "field": signature([f"u{i}" for i in range(MANY)]),
    "unsure": signature(["x1"], intervals=True, members=3),
}
DATASET = {
    **{"id": "ds_1", "name": "waves.npz", "size_bytes": 1, "created_at": CREATED},
    "summary": {
        "states": {f"u{i}": {} for i in range(MANY)},
        "trajectories": 1,
        "times": {"shortest_step": 0.1, "longest": 10, "unit": "s", "decades": 2},
    },
}
TRAJECTORY = {
    **{"names": SIGNATURES["field"]["states"], "times": TIMES, "number": 0},
    **{"states": [[value / 2 for value in row] for row in WAVE], "samples": 3},
    **{"parameter_names": [], "parameters": [], "control_names": [], "controls": []},
    **{"control_times": [], "switches": 0},
}


def rollout(asked):
    if asked["model"].startswith("field"):
        return {"times": TIMES, "x": WAVE, "warnings": []}
    found = {"times": TIMES, "x": [[0.5], [0.3], [0.2]], "warnings": []}
    if asked.get("intervals"):
        found |= {"lower": [[0.5], [0.2], [0.1]], "upper": [[0.5], [0.4], [0.3]]}
    if asked.get("spread"):
        found |= {"spread": [[0.0], [0.02], [0.03]]}
    return found


def answer(route):
    _, _, kind, *rest = urlsplit(route.request.url).path.split("/")
    if kind == "rollout":
        return route.fulfill(json=rollout(json.loads(route.request.post_data)))
    if kind == "systems":
        return route.fulfill(json={"data": []})
    if kind == "datasets":
        found = TRAJECTORY if rest[1:] else DATASET if rest else {"data": [DATASET]}
        return route.fulfill(json={"next": None, **found})
    if rest[-1] == "card":
        trained = {"id": "ds_1"} if rest[0] == "field" else None
        return route.fulfill(json={"dataset": trained})
    version = {"model": rest[0], "number": 1, "spec": {}}
    return route.fulfill(json={**version, "signature": SIGNATURES[rest[0]]})


@pytest.fixture
def page(browser, link):
    with opened(browser, link) as page:
        page.wait_for_selector("main h1")
        page.route("**/v1/**", answer)
        yield page


BRIGHTNESS = """each => {
  const { data, width, height } = each.getContext("2d").getImageData(0, 0, each.width, each.height);
  const at = (column, row) => { const i = 4 * (row * width + column); return data[i] + data[i + 1] + data[i + 2]; };
  return { width, height, bottom: at(0, height - 1), top: at(width - 1, 0) };
}"""


def test_many_states_are_drawn_as_fields_beside_their_reference(page):
    view(page, "/rollout/field/1")
    ours = page.get_by_role("img", name=re.compile("^Surrogate, 20 states"))
    theirs = page.get_by_role("img", name=re.compile("^Reference"))
    ours.wait_for()
    theirs.wait_for()
    assert "20 states over 3 times, values from 0 to 1" in ours.get_attribute(
        "aria-label"
    )
    drawn, reference = ours.evaluate(BRIGHTNESS), theirs.evaluate(BRIGHTNESS)
    assert (drawn["width"], drawn["height"]) == (3, MANY)
    # In the same colours: time to the right, states upwards, the reference half of it.
    assert drawn["top"] > reference["top"] > drawn["bottom"] == reference["bottom"]
    fits(page, "rollout-fields")


def test_intervals_and_spread_are_drawn_as_bands(page):
    view(page, "/rollout/unsure/1")
    figure = page.locator("figure.plot").first
    figure.wait_for()
    for label, band in (("prediction intervals", "80 %"), ("spread", "±2 deviations")):
        assert figure.get_by_text(band).count() == 0
        page.get_by_label(label).check()
        figure.get_by_text(band).first.wait_for()
    fits(page, "rollout-bands")
