"""Warm starts before they are queued: which version it is, and what does not fit it."""

import numpy as np
import pytest

from services.datasets import Datasets
from services.errors import Invalid
from services.registry import Registry
from services.training.plan import PlannedTraining, plan, planned
from services.training.request import TrainingRequest
from spnode_core.ensemble import ensemble_of
from tests.api.deployment import publish
from tests.core.models import small_surrogate

STATES = ("a", "b", "c")


@pytest.fixture
def datasets(database, blobs, settings) -> Datasets:
    return Datasets(database, blobs, settings)


@pytest.fixture
def registry(database, blobs) -> Registry:
    publish(database, blobs, "small", small_surrogate(normalisation=LINEAR))
    publish(database, blobs, "small", small_surrogate(normalisation=LINEAR, seed=1))
    several = [small_surrogate(normalisation=LINEAR, seed=seed) for seed in (0, 1)]
    publish(database, blobs, "several", ensemble_of(several))
    return Registry(database, blobs)


LINEAR = dict.fromkeys(STATES, "linear")


def added(datasets, tmp_path, names=STATES, **more) -> str:
    """A dataset of five decaying trajectories."""
    times, rates = np.linspace(0.0, 1.0, 5), np.arange(1, 6)[:, None, None]
    states = np.exp(-rates * times[:, None] * np.ones(len(names)))
    path = tmp_path / "decay.npz"
    np.savez(path, states=states, times=times, names=np.array(names), **more)
    return datasets.add(path, owner="me").id


def request(dataset, **change) -> TrainingRequest:
    body = {"dataset": dataset, "model": "m", "warm_start": "small@champion"}
    return TrainingRequest.model_validate({**body, **change})


def test_the_version_is_fixed_at_submission(datasets, registry, tmp_path) -> None:
    dataset = added(datasets, tmp_path)
    row = plan(request(dataset), datasets, registry)
    first = registry.version("small", 1)
    parent = {"model": "small", "version": 1, "digest": first.digest}
    assert row["parent"] == parent
    assert row["warm_start"] == "small@champion"
    again = planned(row)
    assert isinstance(again, PlannedTraining)
    assert again.parent.model_dump() == parent
    latest = plan(request(dataset, warm_start="small/2"), datasets, registry)
    assert latest["parent"]["digest"] == registry.version("small", 2).digest
    plain = plan(request(dataset, warm_start=None), datasets, registry)
    assert "parent" not in plain


@pytest.mark.parametrize(
    ("names", "more", "words"),
    [
        (("a", "b", "z"), {}, "takes the states a, b, c"),
        (("a", "b"), {}, "takes the states a, b, c"),
        (
            STATES,
            {"parameters": np.ones((5, 1)), "parameter_names": np.array(["k"])},
            "takes the parameters none",
        ),
        (
            STATES,
            {"controls": np.ones((5, 5, 1)), "control_names": np.array(["u"])},
            "takes the controls none",
        ),
    ],
)
def test_data_of_another_kind_is_refused(
    datasets, registry, tmp_path, names, more, words
) -> None:
    dataset = added(datasets, tmp_path, names, **more)
    with pytest.raises(Invalid, match=words) as refused:
        plan(request(dataset), datasets, registry)
    assert refused.value.field == "/warm_start"


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"warm_start": "nobody"}, "/warm_start", "version_not_found"),
        ({"warm_start": "small/9"}, "/warm_start", "version_not_found"),
        ({"warm_start": "small@"}, "/warm_start", "invalid"),
        ({"surrogate": {"latent": 7}}, "/surrogate/latent", "invalid"),
        ({"preset": "smooth"}, "/preset", "invalid"),
        ({"training": {"iterations": 0}}, "/training/iterations", "invalid"),
        ({"certified": True}, "/certified", "invalid"),
        ({"warm_start": "several/1"}, "/warm_start", "invalid"),
    ],
)
def test_what_contradicts_the_version_names_the_field(
    datasets, registry, tmp_path, change, field, code
) -> None:
    dataset = added(datasets, tmp_path)
    with pytest.raises(Invalid) as refused:
        plan(request(dataset, **change), datasets, registry)
    assert (refused.value.field, refused.value.code) == (field, code)


def test_what_a_version_learned_from_is_held_out_from_nobody_after_it(
    datasets, registry, database, blobs, tmp_path
) -> None:
    dataset = added(datasets, tmp_path)
    own = {"validation": 0.2, "test": 0.2, "seed": None}
    card = {"dataset": {"id": dataset}, "split": own, "seed": 4}
    surrogate = small_surrogate(normalisation=LINEAR, seed=2)
    publish(database, blobs, "taught", surrogate, card=card)
    asked = request(dataset, warm_start="taught/1", seed=9)
    row = plan(asked, datasets, registry)
    assert row["split"] == {**own, "seed": 4}
    assert row["seed"] == 9
    chosen = {"validation": 0.4, "test": 0.0}
    fixed = request(dataset, warm_start="taught/1", split=chosen)
    assert plan(fixed, datasets, registry)["split"]["validation"] == 0.4
    other = added(datasets, tmp_path, names=STATES, time_unit=np.array("s"))
    assert "split" not in plan(request(other), datasets, registry)
