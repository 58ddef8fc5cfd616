"""Going on from a version through a real worker: its parent, its card, a crash."""

import psutil

from services.training.plan import plan
from services.training.request import TrainingRequest
from tests.worker.conftest import TRAINING
from tests.worker.test_lost_worker import (
    children_of,
    first_iteration,
    kept,
    kept_far,
)


def go_on(stack, model: str, **training):
    """Submit a training that goes on from the newest version of a model."""
    body = {
        "dataset": stack.add_dataset(),
        "model": model,
        "warm_start": f"{model}@latest",
        "training": {**TRAINING, **training},
    }
    request = TrainingRequest.model_validate(body)
    row = plan(request, stack.datasets, stack.registry)
    return stack.jobs.submit("training", row, owner="me")[0]


def test_a_version_goes_on_from_another_and_says_which(running) -> None:
    first = running.end(running.train("tuned", iterations=200).id, 180)
    assert first.state == "succeeded", first.error
    ended = running.end(go_on(running, "tuned", iterations=200).id, 180)
    assert ended.state == "succeeded", ended.error
    assert ended.result["version"] == 2
    old, new = (running.registry.version("tuned", number) for number in (1, 2))
    assert new.card["parent"] == {"model": "tuned", "version": 1, "digest": old.digest}
    assert new.spec == old.spec
    warm = new.card["warm_start"]
    assert warm["part"] == "test"
    assert set(warm["comparison"]["surrogates"]) == {"reference", "fine_tuned"}
    # Its first iteration is the old version, so it is never worse on validation.
    history = running.jobs.history(ended.id)
    assert history[-1]["iteration"] == 200
    errors = [each.evaluation["validation"]["scaled_mse"] for each in (old, new)]
    assert errors[1] <= errors[0] * (1 + 1e-6)


def test_a_killed_worker_goes_on_from_the_checkpoint_not_the_version(stack) -> None:
    worker = stack.start_worker()
    first = stack.end(stack.train("tiny").id, 180)
    assert first.state == "succeeded", first.error
    job = go_on(stack, "tiny", iterations=20_000)
    kept_far(stack, job.id)
    orphans = children_of(worker)
    worker.kill()
    worker.wait()
    psutil.wait_procs(orphans, 5)
    reached = kept(stack, job.id)
    stack.start_worker()
    ended = stack.end(job.id, 240)
    assert (ended.state, ended.attempt) == ("succeeded", 2), ended.error
    assert first_iteration(stack, job.id, attempt=2) >= reached
    assert stack.registry.version("tiny", 2).card["parent"]["version"] == 1
