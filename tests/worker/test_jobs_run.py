"""Jobs through a real worker: Celery, Valkey, SQLite, a child process each."""

import time

import jax
import numpy as np

from services.calibration.request import CalibrationJob
from services.calibration.submit import Calibrations
from services.schedule import LATE
from services.workers import Workers
from spnode_core.artifact import load, read_plots
from spnode_core.dataset import check_arrays, save_dataset
from tests.api.deployment import MODELS, publish
from tests.core.models import random_states

LONG = 10_000_000


def test_a_dataset_job_makes_a_dataset(running) -> None:
    request = {"kind": "dataset", "system": "robertson", "trajectories": 4, "seed": 1}
    job, _ = running.jobs.submit("dataset", request, owner="me")
    ended = running.end(job.id)
    assert ended.state == "succeeded", ended.error
    record = running.datasets.get(ended.result["dataset"])
    assert (record.trajectories, record.states) == (4, ("y1", "y2", "y3"))
    assert record.job_id == job.id


def test_a_training_job_publishes_a_version_that_rolls_out(running, tmp_path) -> None:
    # What decodes keeps the conserved sum.
    job = running.train("published", autoencoder="residual", iterations=200)
    ended = running.end(job.id, 180)
    assert ended.state == "succeeded", ended.error
    version = running.registry.resolve("published")
    assert (version.number, version.job_id) == (ended.result["version"], job.id)
    assert (
        version.evaluation["test"]["scaled_mse"] == ended.result["scaled_mse"]["test"]
    )
    assert version.certificate["invariant_box"]["holds"] is True
    assert version.card["job"] == job.id

    running.registry.download(version, tmp_path / "artifact")
    pictures = read_plots(tmp_path / "artifact")
    assert set(pictures) == {"loss", "errors", "spectrum", "trajectories"}
    assert sorted(pictures) == version.card["plots"]
    with jax.enable_x64():
        surrogate = load(tmp_path / "artifact", digest=version.digest)
        start, times = np.array([0.9, 1e-5, 0.1]), np.array([1.0, 1e4])
        x = np.asarray(surrogate.rollout(start, times))
    assert x.shape == (2, 3)
    np.testing.assert_allclose(x.sum(axis=1), 0.9 + 1e-5 + 0.1, rtol=1e-12)

    events = running.jobs.events(job.id)
    first = next(event for event in events if event.kind == "log")
    assert {choice["what"] for choice in first.data["choices"]} >= {"surrogate.steps"}
    assert events[-1].data["state"] == "succeeded"
    history = running.jobs.history(job.id)
    assert history[-1]["iteration"] == 200
    assert list(running.blobs.list(f"checkpoints/{job.id}")) == []
    compiled = running.settings.data_folder / "compiled"
    assert any(compiled.iterdir()), "another attempt would compile again"


def test_a_wrong_request_fails_at_once_with_its_field(running) -> None:
    dataset = running.add_dataset()
    request = {
        "kind": "training",
        "dataset": dataset,
        "model": "m",
        "surrogate": {"latent": 3, "conserved": {"mass": {"nobody": 1}}},
    }
    job, _ = running.jobs.submit("training", request, owner="me")
    ended = running.end(job.id)
    assert (ended.state, ended.attempt) == ("failed", 1)
    assert ended.error["code"] == "invalid_input"
    assert "nobody" in ended.error["detail"]
    assert ended.error["field"]


def test_data_that_cannot_be_certified_fails_the_job_with_the_reason(running) -> None:
    times = np.linspace(0, 20, 81)
    phases = np.arange(6)[:, None]
    states = np.stack([np.cos(times + phases), np.sin(times + phases)], axis=-1)
    path = running.settings.data_folder / "turning.npz"
    save_dataset(check_arrays({"states": states, "times": times}), path)
    request = {
        "kind": "training",
        "dataset": running.datasets.add(path, owner="me").id,
        "model": "turning",
        "certified": True,
    }
    job, _ = running.jobs.submit("training", request, owner="me")
    ended = running.end(job.id)
    assert (ended.state, ended.attempt) == ("failed", 1)
    assert ended.error["code"] == "invalid_input"
    assert "the data recurs" in ended.error["detail"]
    assert "turning" not in {model.name for model in running.registry.models().items}


def test_a_calibration_job_finds_what_made_the_observations(running) -> None:
    with jax.enable_x64():
        surrogate = MODELS["forced"]()
        publish(running.database, running.blobs, "forced", surrogate)
        times, x0 = np.array([0.1, 1.0, 10.0, 100.0]), random_states(1)[0]
        controls = {"controls": np.zeros((1, 2)), "control_times": np.zeros(1)}
        x = np.asarray(surrogate.rollout(x0, times, parameters=[1.3], **controls))
    noise = 1e-4
    x = x + noise * np.random.default_rng(0).normal(size=x.shape)
    asked = CalibrationJob.model_validate(
        {
            "model": "forced",
            "times": times.tolist(),
            "states": ["c"],
            "observations": [[value] for value in x[:, 2].tolist()],
            "noise": [noise],
            "x0": x0.tolist(),
            "controls": [[0.0, None]],
            "control_times": [0.0],
            "unknowns": {
                "parameters": {"p0": {"lower": 0.1, "upper": 3.0}},
                "controls": {"u1": {"lower": -1.0, "upper": 1.0}},
            },
        }
    )
    calibrations = Calibrations(running.settings, running.registry, running.jobs)
    job, _ = calibrations.submit(asked, owner="me")
    ended = running.end(job.id)
    assert ended.state == "succeeded", ended.error
    made = ended.result
    assert [each["name"] for each in made["estimates"]] == ["p0", "u1"]
    for each, true in zip(made["estimates"], (1.3, 0.0), strict=True):
        low, high = each["simultaneous"]
        assert low <= true <= high
    assert made["domain"]["inside"] is True
    # The training box is 0.5 to 2, the bounds are wider.
    assert 0 < made["domain"]["starts_outside"] < 32
    assert made["converged"] == made["starts"] == 32
    assert made["states"] == ["c"]
    assert np.shape(made["residuals"]) == (4, 1)
    (warning,) = [each for each in made["warnings"] if "held-out" in each]
    assert "model_error" in warning
    stages = [
        event.data["stage"]
        for event in running.jobs.events(job.id)
        if event.kind == "log"
    ]
    assert stages[:2] == ["load", "search"]


def test_a_running_job_is_cancelled_within_two_seconds(running) -> None:
    job = running.train("cancelled", iterations=LONG)
    running.wait(job.id, lambda now: (now.progress or {}).get("stage") == "optimise")
    asked = time.time()
    running.jobs.cancel(job.id)
    ended = running.end(job.id, 120)
    assert ended.state == "cancelled"
    assert ended.finished_at.timestamp() - asked < 2.0
    names = {model.name for model in running.registry.models().items}
    assert "cancelled" not in names


def test_a_job_that_runs_beyond_its_deadline_fails_and_publishes_nothing(
    running,
) -> None:
    job = running.train("late", iterations=LONG, schedule={"deadline_seconds": 8})
    running.wait(job.id, lambda now: now.state == "running")
    ended = running.end(job.id, 60)
    assert (ended.state, ended.error) == ("failed", LATE)
    assert (ended.finished_at - ended.deadline).total_seconds() < 2.0
    names = {model.name for model in running.registry.models().items}
    assert "late" not in names


def test_a_worker_says_that_it_lives(running) -> None:
    workers = Workers(running.database)
    (worker,) = workers.living("training")
    assert worker.queues == ("training", "datasets", "rollout_jobs")
