"""The page in Chromium, before a real stack: from a file to a promoted version."""

import json
import os
import re
import subprocess
import sys

import httpx
import numpy as np
import pytest

from tests.endtoend.browser import (
    NARROW,
    WIDE,
    fits,
    opened,
    pressed,
    reached,
    serious,
    shown,
    typed,
    view,
)

LATER_S = 240_000
# When an answer was there, and when the first plot after it was another one.
WATCH = """() => {
  window.answers = [];
  const plot = document.querySelector('figure [role=img]');
  const see = () => {
    const last = performance.getEntriesByType('resource').filter(each => each.name.endsWith('/v1/rollout')).at(-1);
    window.answers.push(performance.now() - last.responseEnd);
  };
  new MutationObserver(see).observe(plot, { attributes: true, attributeFilter: ['aria-label'] });
}"""


@pytest.fixture(scope="module")
def trained(browser, shell, file):
    """From a file to a version by the page and the keyboard alone."""
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("main h1")
        pressed(page, page.get_by_role("link", name="Datasets"))
        page.get_by_text("No dataset yet").or_(
            page.get_by_text("In the store")
        ).first.wait_for()
        with page.expect_file_chooser() as asked:
            pressed(page, page.locator("#file"))
        asked.value.set_files(file)
        page.wait_for_url(re.compile("#/datasets/ds_"))
        page.get_by_role("heading", name="reaction.npz").wait_for()
        # The report on arrival, and a plot of each state.
        assert "conserved, as declared: mass = y1 + y2 + y3" in page.text_content(
            "main"
        )
        page.wait_for_selector("figure canvas")

        typed(page, page.get_by_label("Model"), "paged")
        pressed(page, page.locator("summary", has_text="Settings: auto decides them"))
        typed(page, page.get_by_label("Iterations"), "150")
        pressed(page, page.get_by_role("button", name="Train"))
        page.wait_for_url(re.compile("#/jobs/job_"))
        page.wait_for_selector("h1:has-text('Training of paged')")
        losses = page.locator("[aria-label^='Loss.']")
        losses.locator("canvas").wait_for(timeout=LATER_S)
        seen = {losses.get_attribute("aria-label")}
        page.get_by_role("link", name="Look at paged/1").wait_for(timeout=LATER_S)
        page.wait_for_timeout(600)
        seen.add(losses.get_attribute("aria-label"))
        assert len(seen) > 1, "the loss did not move"
        assert all("training from" in each for each in seen)
        pressed(page, page.get_by_role("link", name="Look at paged/1"))
        page.wait_for_selector("h1:has-text('paged/1')")
    return "paged"


def link(shell):
    """What ``./spnode status`` prints, with the key that it adds on a terminal."""
    printed = re.search(r"^page +(\S+)$", shell.run("status").stdout, re.MULTILINE)[1]
    assert "spn_" not in printed
    return f"{printed}#key={(shell.data / 'key').read_text().strip()}"


def test_a_version_shows_its_errors_certificate_and_spectrum(browser, shell, trained):
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        view(page, f"/models/{trained}/1")
        said = page.text_content("main")
        assert "error on held-out data" in said
        assert "Proved: Every eigenvalue of A has real part at most" in said
        (spectrum,) = page.locator("[aria-label^='Spectrum of A']").all()
        assert re.search(
            r"\d+ eigenvalues with real parts from -",
            spectrum.get_attribute("aria-label"),
        )
        drawn = (
            "alt => document.querySelector(`img[alt^='${alt}']`)?.naturalWidth > 500"
        )
        page.wait_for_function(drawn, arg="Held-out trajectories")
        page.get_by_text("More pictures").click()
        page.wait_for_function(drawn, arg="Loss over")
        shown(page, "version-pictures-wide-light")


def test_the_command_line_writes_the_pictures(shell, trained, tmp_path):
    folder = tmp_path / "pictures"
    done = shell.run("models", "plots", f"{trained}/1", "--output", str(folder))
    names = ("errors", "loss", "spectrum", "trajectories")
    assert done.stdout.split() == [str(folder / f"{name}.png") for name in names]
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    wrong = str(tmp_path / "file" / "x")
    refused = shell.run("models", "plots", trained, "--output", wrong, code=2)
    assert "--output" in refused.stderr


def test_a_slider_moves_the_trajectory_at_once(browser, shell, trained):
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        view(page, f"/rollout/{trained}/1")
        page.wait_for_selector("figure canvas")
        assert "reference" in page.text_content("main")
        page.evaluate(WATCH)
        slider = page.get_by_label("y1, slider")
        reached(page, slider)
        for _ in range(8):
            before = page.locator("figure [role=img]").first.get_attribute("aria-label")
            with page.expect_response("**/v1/rollout"):
                slider.press("ArrowLeft")
            page.wait_for_function(
                "before => document.querySelector('figure [role=img]').ariaLabel !== before",
                arg=before,
            )
        delays = page.evaluate("window.answers")
        assert len(delays) >= 8
        assert max(delays) < 200, delays
        # The start is no longer the reference's own.
        assert "reference" not in page.locator("figure").first.text_content()
        # Its equations are known: they are solved from there.
        page.get_by_label("solve robertson from any other start").check()
        drawn = page.locator("figure").filter(has_text="reference")
        drawn.first.wait_for()
        assert drawn.count() == 3


def test_the_snippets_run_as_printed(browser, shell, trained, tmp_path):
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        view(page, f"/rollout/{trained}/1")
        page.wait_for_selector("figure canvas")
        texts = {}
        for language in ("Python", "curl", "JAX"):
            pressed(page, page.get_by_role("button", name=language, exact=True))
            pressed(page, page.get_by_role("button", name="Copy"))
            texts[language] = page.evaluate("navigator.clipboard.readText()")
    key = (shell.data / "key").read_text().strip()
    assert all(key not in text for text in texts.values())
    environment = {
        **os.environ,
        "SPNODE_KEY": key,
        "PYTHONPATH": shell.environment["PYTHONPATH"],
    }

    def run(*command):
        done = subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python = run(sys.executable, "-c", texts["Python"])
    last = np.fromstring(re.search(r"\[(.*)\]", python, re.DOTALL)[1], sep=" ")
    answer = json.loads(run("sh", "-c", texts["curl"]))
    np.testing.assert_allclose(last, answer["x"][-1], rtol=1e-6)
    jax = run(sys.executable, "-c", texts["JAX"])
    assert jax.count("[") == 1 + 4, "a state and its Jacobian"


def test_losses_of_a_second_attempt_take_the_place_of_the_first(browser, shell):
    told = """async () => {
      const { addLoss, lossesOf } = await import('/page/loss.js');
      const points = [];
      for (const [stage, iteration, loss] of [['fit', 5, 3], ['fit', 9, 2], ['polish', 4, 1], ['fit', 9, 2.5], ['polish', 2, 1.5]])
        addLoss(points, { stage, iteration, loss });
      return lossesOf(points)[0];
    }"""
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        found = page.evaluate(told)
    assert (found["x"], found["y"]) == ([5, 9, 11], [3, 2.5, 1.5])


def test_fields_are_drawn_at_the_times_of_the_other(browser, shell):
    told = """async () => {
      const { evenTimes, resampled } = await import('/page/plots.js');
      const rows = [[0, 5], [10, null], [30, 7]];
      return [evenTimes(1, 100, 3, true), resampled([0, 1, 3], rows, [0, 0.5, 1, 2, 9])];
    }"""
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        times, rows = page.evaluate(told)
    assert times == pytest.approx([1, 10, 100])
    assert rows == [[0, 5], [5, None], [10, None], [20, None], [30, 7]]


def test_snippets_of_whole_numbers_and_intervals_say_all_that_was_asked(browser, shell):
    told = """async () => {
      const { asJax, asPython } = await import('/page/snippets.js');
      const times = { start: 0, stop: 1, count: 3, spacing: 'linear' };
      const request = { model: 'm/1', x0: [1, 0, 0], times, parameters: [2], intervals: 0.8 };
      return [asPython(request), asJax(request)];
    }"""
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        python, jax = page.evaluate(told)
    assert "parameters = np.array([2], dtype=float)" in python
    assert (
        'rollout_record("m/1", x0, times, parameters=parameters, intervals=0.8)'
        in python
    )
    # JAX differentiates by floats alone.
    assert "x0 = jnp.array([1,0,0], dtype=float)" in jax
    compile(python, "python", "exec")
    compile(jax, "jax", "exec")


def test_what_other_jobs_made_is_shown_as_tables(browser, shell, trained, file):
    url, key = shell.status()["url"], (shell.data / "key").read_text().strip()
    start = {"model": trained, "x0": [[0.9, 1e-5, 0.1]] * 3, "times": [1.0, 10.0]}
    asked = (
        {"kind": "rollout", **start},
        {
            "kind": "calibration",
            "model": trained,
            "x0": [0.9, 1e-5, 0.1],
            "times": [1.0, 10.0],
            "states": ["y1"],
            "observations": [[0.85], [0.8]],
            "noise": [0.01],
            "unknowns": {"x0": {"y1": {"lower": 0.8, "upper": 1.0}}},
            "starts": 2,
        },
    )
    headers = {"authorization": f"Bearer {key}"}
    rows, estimate = (
        httpx.post(f"{url}/v1/jobs", json=each, headers=headers).json()["id"]
        for each in asked
    )
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        view(page, f"/jobs/{rows}")
        page.get_by_text("0 to 2").wait_for(timeout=LATER_S)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download rows from 0").click()
        with np.load(download.value.path()) as chunk:
            assert chunk["x"].shape == (3, 2, 3)
        view(page, f"/jobs/{estimate}")
        page.get_by_role("region", name="Estimates").wait_for(timeout=LATER_S)
        said = page.get_by_role("region", name="Estimates").text_content()
        assert re.search(r"x0: y10\.\d+", said), said


def test_errors_are_those_of_the_api(browser, shell, trained):
    with opened(browser, link(shell), refusals=(422,)) as page:
        page.wait_for_selector("h1")
        view(page, f"/rollout/{trained}/1")
        page.wait_for_selector("figure canvas")
        page.get_by_text("Paste them").click()
        page.get_by_label("All 3 values").fill("1, 2")
        page.get_by_label("All 3 values").blur()
        assert (
            "expected 3 numbers: y1, y2, y3" in page.get_by_role("alert").text_content()
        )
        with page.expect_response(lambda each: each.status == 422) as refused:
            page.get_by_label("All 3 values").fill("1e308, 1e308, 1e308")
            page.get_by_label("All 3 values").blur()
        told = refused.value.json()["detail"]
        page.get_by_role("alert").filter(has_text=told).wait_for()
        fits(page, "rollout-refused")


def test_names_are_text_and_nothing_else(browser, shell, file):
    name = "<img src=x onerror=\"document.title='harmed'\">"
    url, key = shell.status()["url"], (shell.data / "key").read_text().strip()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/x-npz"}
    path = f"{url}/v1/datasets"
    sent = {"content": file.read_bytes(), "params": {"name": name}, "headers": headers}
    made = httpx.post(path, **sent, timeout=60).json()
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        view(page, f"/datasets/{made['id']}")
        assert page.text_content("h1") == name
        assert page.locator("main img").count() == 0
        assert page.title() == f"{name} · spnode"
    assert httpx.delete(f"{path}/{made['id']}", headers=headers).status_code == 204


def test_without_a_key_the_page_asks_for_one(browser, shell):
    url = link(shell).partition("#")[0]
    with opened(browser, url, refusals=(401,)) as page:
        page.get_by_label("Key", exact=True).last.fill(
            (shell.data / "key").read_text().strip()
        )
        page.get_by_role("button", name="Use it").click()
        page.wait_for_selector(
            "main h1:has-text('Models'), main h1:has-text('Datasets'), main h1:has-text('Jobs')"
        )


@pytest.mark.parametrize(("size", "width"), [("wide", WIDE), ("narrow", NARROW)])
def test_every_view_is_accessible_and_fits(browser, shell, trained, size, width):
    dataset = shell.json("datasets", "list")[0]["id"]
    other = published_elsewhere(shell, trained, "paged-again")
    jobs = {each["kind"]: each["id"] for each in shell.json("jobs", "list")}
    views = {
        "datasets": "/datasets",
        "dataset": f"/datasets/{dataset}",
        "jobs": "/jobs",
        **{f"job-{kind}": f"/jobs/{job}" for kind, job in jobs.items()},
        "models": "/models",
        "model": f"/models/{trained}",
        "version": f"/models/{trained}/1",
        "compare": f"/compare/{trained}/1,{other}/1",
        "rollout": f"/rollout/{trained}/1",
        "health": "/health",
        "reference": "/reference",
    }
    drawn = ("dataset", "rollout", "job-training", "version")
    assert {*drawn} < {*views}

    def checked(name):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            if name in drawn:
                page.wait_for_selector("figure canvas")
            shown(page, f"{name}-{size}-{scheme}")
            over = page.evaluate("document.documentElement.scrollWidth")
            assert over <= width, (name, scheme)
            assert not (found := serious(page)), (name, scheme, found)

    with opened(browser, link(shell), width) as page:
        page.wait_for_selector("h1")
        for name, path in views.items():
            view(page, path)
            checked(name)
        page.locator("#key").click()
        page.wait_for_selector("h1:has-text('An API key')")
        checked("key")


def published_elsewhere(shell, trained, name):
    """Upload the trained version to a model, as one that was made on another machine."""
    url, key = shell.status()["url"], (shell.data / "key").read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    base = f"{url}/v1/models"
    artifact = f"{base}/{trained}/versions/1/artifact"
    content = httpx.get(artifact, headers=headers).content
    sent = {**headers, "content-type": "application/zip"}
    target = f"{base}/{name}/versions"
    made = httpx.post(target, content=content, headers=sent, timeout=120)
    assert made.status_code == 201, made.text
    return name


def test_a_promoted_version_is_there_after_a_restart(browser, shell, trained, tmp_path):
    published_elsewhere(shell, trained, trained)
    with opened(browser, link(shell), refusals=(404, 409)) as page:
        page.wait_for_selector("h1")
        view(page, f"/models/{trained}/2")
        pressed(page, page.get_by_role("button", name="Make it champion"))
        # It was made elsewhere and never evaluated here: the gates want a reason.
        reason = page.get_by_label("Reason, for the history")
        typed(page, reason, "the same as version 1")
        pressed(page, page.get_by_role("button", name="Override"))
        page.get_by_text("champion is version 2 now").wait_for()
        # The one that was trained here passes the gates.
        view(page, f"/models/{trained}/1")
        page.get_by_role("button", name="Make it champion").click()
        page.get_by_text("champion is version 1 now").wait_for()
    shell.run("down")
    shell.run("up")
    with opened(browser, link(shell)) as page:
        page.wait_for_selector("h1")
        view(page, f"/models/{trained}")
        row = page.get_by_role("row", name="Compare version 1")
        assert "champion" in row.text_content()
        page.get_by_role("button", name="Compare the chosen").click()
        page.wait_for_selector("h1:has-text('side by side')")
