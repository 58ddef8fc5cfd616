"""A sweep through real workers: candidates trained, ranked, the best one promoted."""

import jax
import numpy as np
import pytest

from services.sweeps.request import SweepJob
from services.sweeps.submit import Sweeps
from spnode_core.artifact import load
from spnode_core.comparison import compare
from spnode_core.dataset import check_arrays, load_dataset, save_dataset
from spnode_core.spec import SplitSpec
from tests.worker.conftest import LONG, SURROGATE, TRAINING

TINY = {"surrogate": SURROGATE, "training": TRAINING}
SPLIT = {"validation": 0.2, "test": 0.2}


@pytest.fixture(scope="module")
def turning(running) -> str:
    """Data that go round for ever: what cannot be certified, so such jobs fail."""
    times = np.linspace(0, 20, 41)
    phases = np.arange(10)[:, None]
    states = np.stack([np.cos(times + phases), np.sin(times + phases)], axis=-1)
    path = running.settings.data_folder / "turning.npz"
    save_dataset(check_arrays({"states": states, "times": times}), path)
    return running.datasets.add(path, owner="me").id


def submit(stack, dataset: str, model: str, **asked):
    sweeps = Sweeps(stack.registry, stack.datasets, stack.jobs)
    body = {"dataset": dataset, "model": model, "split": SPLIT}
    return sweeps.submit(SweepJob.model_validate({**body, **asked}), owner="me")[0]


def candidates_of(sweep) -> list[str]:
    return [each["job"] for each in sweep.request["candidates"]]


@pytest.mark.timeout(600)
def test_candidates_are_ranked_on_the_same_trajectories(
    running, turning, tmp_path
) -> None:
    candidates = [{**TINY, "seed": 5}, {"certified": True}, {**TINY, "seed": 6}]
    sweep = submit(running, turning, "swept", candidates=candidates, alias="challenger")
    ended = running.end(sweep.id, 560)
    assert ended.state == "succeeded", ended.error
    ranking = ended.result["ranking"]
    ids = candidates_of(sweep)
    assert sorted(row["job"] for row in ranking) == ids
    best, other, failed = ranking
    assert (failed["job"], failed["state"]) == (ids[1], "failed")
    assert "the data recurs" in failed["error"]["detail"]
    assert 0 < best["validation"] <= other["validation"]
    assert {best["settings"]["seed"], other["settings"]["seed"]} == {5, 6}

    surrogates = {}
    with jax.enable_x64():
        for row in (best, other):
            version = running.registry.version("swept", row["version"])
            assert version.card["split"] == {**SPLIT, "seed": 0}
            running.registry.download(version, tmp_path / "artifact")
            surrogates[row["job"]] = load(tmp_path / "artifact", digest=row["digest"])
        running.datasets.download(turning, tmp_path / "data.npz")
        data = load_dataset(tmp_path / "data.npz")
        _, *parts = data.split(SplitSpec.model_validate(SPLIT), 0)
        for name, part in zip(("validation", "test"), parts, strict=True):
            found = compare(surrogates, part)["surrogates"]
            for row in (best, other):
                expected = found[row["job"]]["error"]
                np.testing.assert_allclose(row[name], expected, rtol=1e-6)

    number = best["version"]
    assert (ended.result["best"], ended.result["digest"]) == (number, best["digest"])
    aliases = {"challenger": number, "champion": number}
    assert ended.result["aliases"] == list(aliases)
    assert running.registry.model("swept").aliases == aliases
    moves = running.registry.aliases.history("swept", "champion")
    assert [move.reason for move in moves] == [f"best of sweep {sweep.id}"]
    events = running.jobs.events(sweep.id)
    told = [each.message for each in events if each.kind == "log"]
    assert "2 of 3 candidates trained, 1 failed" in told
    states = [each.data["state"] for each in events if each.kind == "status"]
    assert states == ["queued", "running", "succeeded"]


def test_a_sweep_without_a_success_fails_and_names_each(running, turning) -> None:
    grid, base = {"seed": [0, 1]}, {"certified": True}
    sweep = submit(running, turning, "none", grid=grid, base=base)
    ended = running.end(sweep.id, 240)
    assert (ended.state, ended.attempt) == ("failed", 1)
    assert ended.error["code"] == "no_candidate_succeeded"
    for each, seed in zip(candidates_of(sweep), (0, 1), strict=True):
        assert f"{each} (seed={seed}): " in ended.error["detail"]


def test_a_cancelled_sweep_ends_its_candidates(running, turning) -> None:
    base = {**TINY, "training": {**TRAINING, "iterations": LONG}}
    sweep = submit(running, turning, "cut", grid={"seed": [0, 1]}, base=base)
    first, second = candidates_of(sweep)
    running.wait(first, lambda job: job.state == "running")
    running.jobs.cancel(sweep.id)
    assert running.jobs.get(second).state == "cancelled"
    assert running.end(first, 60).state == "cancelled"
    assert running.jobs.get(sweep.id).state == "cancelled"
