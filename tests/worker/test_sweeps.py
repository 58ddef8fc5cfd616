"""A sweep through real workers: candidates trained, ranked, the best one promoted."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from services.errors import Unavailable
from services.sweeps.candidates import Outcome
from services.sweeps.request import SweepJob
from services.sweeps.submit import Sweeps
from spnode_core.artifact import load
from spnode_core.comparison import compare
from spnode_core.dataset import check_arrays, load_dataset, save_dataset
from spnode_core.spec import SplitSpec
from tests.worker.conftest import LONG, SURROGATE, TRAINING
from worker.sweeps import fetch_candidates

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


@pytest.mark.timeout(600)
def test_the_best_are_joined_and_the_ensemble_takes_the_aliases(
    running, turning, tmp_path
) -> None:
    other = {"nonlinear": {"kind": "relaxation", "width": 5, "depth": 1}}
    # Hardly trained, so it is not the best.
    odd = {
        "surrogate": {**SURROGATE, **other},
        "training": {**TRAINING, "iterations": 1},
    }
    candidates = [{**TINY, "seed": 5}, {**TINY, "seed": 6}, odd]
    asked = {"candidates": candidates, "alias": "challenger", "ensemble": 3}
    sweep = submit(running, turning, "joined", **asked)
    ended = running.end(sweep.id, 560)
    assert ended.state == "succeeded", ended.error
    found, versions = ended.result["ensemble"], {}
    alike = [row for row in ended.result["ranking"] if "seed" in row["settings"]]
    assert found["members"] == [row["version"] for row in alike]
    assert set(ended.result["aliases"]) == {"challenger", "champion"}
    aliases = running.registry.model("joined").aliases
    assert set(aliases.values()) == {found["version"]}
    (move,) = running.registry.aliases.history("joined", "champion")
    assert move.reason == f"ensemble of sweep {sweep.id}"
    with jax.enable_x64():
        for number in (*found["members"], found["version"]):
            version = running.registry.version("joined", number)
            running.registry.download(version, tmp_path / "artifact")
            versions[number] = load(tmp_path / "artifact", digest=version.digest)
        ensemble = versions.pop(found["version"])
        x0, times = [[1.0, 0.0], [0.0, 1.0]], [0.5, 5.0]
        mean = np.mean([one.rollout(x0, times) for one in versions.values()], axis=0)
        np.testing.assert_allclose(ensemble.rollout(x0, times), mean, rtol=1e-9)
    card = running.registry.version("joined", found["version"]).card
    assert card["job"] == sweep.id
    assert [each["version"] for each in card["joined"]] == found["members"]
    assert [each["settings"] for each in card["joined"]] == [
        row["settings"] for row in alike
    ]
    assert card["ensemble"]["members"] == 2
    assert card["training"] == {**TRAINING, **card["training"]}
    (warning,) = ended.result["warnings"]
    assert "2 joined, where 3 were asked for" in warning


def test_where_nothing_can_be_joined_the_best_takes_the_aliases(
    running, turning
) -> None:
    widths = [
        {**SURROGATE, "nonlinear": {"kind": "relaxation", "width": width, "depth": 1}}
        for width in (4, 5)
    ]
    candidates = [{**TINY, "surrogate": each} for each in widths]
    sweep = submit(running, turning, "apart", candidates=candidates, ensemble=2)
    ended = running.end(sweep.id, 240)
    assert ended.state == "succeeded", ended.error
    assert ended.result["ensemble"] is None
    (warning,) = ended.result["warnings"]
    assert "no ensemble was made, where 2 were asked for" in warning
    assert "1 other is of another description" in warning
    assert len(running.registry.versions("apart").items) == 2
    assert running.registry.model("apart").aliases == {"champion": ended.result["best"]}


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


def test_a_sweep_that_was_claimed_too_early_waits(tmp_path) -> None:
    # Its candidates were queued again between the look at them and the claim.
    went_on = [
        Outcome("job_1", {}, "succeeded", version=1, digest="d"),
        Outcome("job_2", {}, "queued"),
    ]
    context = SimpleNamespace(
        candidates=SimpleNamespace(outcomes=lambda sweep: went_on)
    )
    claim = SimpleNamespace(job=None)
    with pytest.raises(Unavailable, match="1 candidates go on, job_2 first"):
        fetch_candidates(context, claim, tmp_path, lambda: None)
    assert [*tmp_path.iterdir()] == []
