"""A comparison of versions through a real worker."""

import jax
import numpy as np
import pytest

from services.errors import Conflict
from services.evaluation.request import EvaluationJob
from services.evaluation.submit import Evaluations
from spnode_core.dataset import check_arrays, save_dataset
from spnode_core.spec import NoAutoencoderSpec
from tests.api.deployment import publish
from tests.core.models import GRID, STATES, random_states, small_surrogate

LINEAR = dict.fromkeys(STATES, "linear")


@pytest.fixture(scope="module")
def dataset(running) -> str:
    """Two versions of a model, and trajectories that the second one makes."""
    with jax.enable_x64():
        # Without an autoencoder a rollout goes through its own states again, exactly.
        options = {"latent": 3, "autoencoder": NoAutoencoderSpec()}
        pair = [
            small_surrogate(normalisation=LINEAR, seed=seed, **options)
            for seed in (0, 1)
        ]
        for each in pair:
            publish(running.database, running.blobs, "pair", each)
        states = np.asarray(pair[1].rollout(random_states(10), GRID))
    arrays = {"states": states, "times": GRID, "names": np.array(STATES)}
    path = running.settings.data_folder / "pair.npz"
    save_dataset(check_arrays(arrays), path)
    return running.datasets.add(path, owner="me").id


def test_versions_are_compared_on_the_same_trajectories(running, dataset) -> None:
    evaluations = Evaluations(running.registry, running.datasets, running.jobs)
    asked = EvaluationJob(models=["pair@champion", "pair@latest"], dataset=dataset)
    job, _ = evaluations.submit(asked, owner="me")
    ended = running.end(job.id, 240)
    assert ended.state == "succeeded", ended.error
    found = ended.result
    assert (found["part"], found["trajectories"]) == ("all", 10)
    assert found["reference"] == "pair/1"
    paired = found["paired"]["pair/2"]
    assert (paired["better"], paired["is_worse"]) == (10, False)
    assert found["surrogates"]["pair/2"]["normalised_rmse"] < 1e-10
    message = running.jobs.events(job.id)[-1].message
    assert message == "2 versions compared"


def test_a_job_is_not_retried_whose_version_is_gone(running, dataset) -> None:
    with jax.enable_x64():
        third = small_surrogate(normalisation=LINEAR, seed=3)
        number = publish(running.database, running.blobs, "pair", third)
    evaluations = Evaluations(running.registry, running.datasets, running.jobs)
    asked = EvaluationJob(models=["pair/1", f"pair/{number}"], dataset=dataset)
    job, _ = evaluations.submit(asked, owner="me")
    running.jobs.cancel(job.id)
    running.registry.delete_version("pair", number)
    with pytest.raises(Conflict, match="has been deleted"):
        running.jobs.retry(job.id)
    assert running.jobs.get(job.id).state == "cancelled"
