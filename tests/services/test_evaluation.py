"""Evaluation jobs before they are queued: versions, trajectories and overlaps fixed."""

import dataclasses

import pytest

from services.datasets import Datasets
from services.errors import Invalid, NotFound
from services.evaluation.request import EvaluationJob, PlannedEvaluation, plan
from services.evaluation.submit import Evaluations
from services.jobs import Jobs
from services.registry import Registry
from tests.api.deployment import publish
from tests.core.models import small_surrogate
from tests.services.test_warm_start import LINEAR, added


@pytest.fixture
def datasets(database, blobs, settings) -> Datasets:
    return Datasets(database, blobs, settings)


@pytest.fixture
def registry(database, blobs) -> Registry:
    for seed in (0, 1, 2):
        publish(database, blobs, "m", small_surrogate(normalisation=LINEAR, seed=seed))
    return Registry(database, blobs)


@pytest.fixture
def evaluations(database, datasets, registry) -> Evaluations:
    return Evaluations(registry, datasets, Jobs(database))


def asked(dataset, *models, **change) -> EvaluationJob:
    models = models or ("m@champion", "m/2")
    return EvaluationJob.model_validate(
        {"models": list(models), "dataset": dataset, **change}
    )


def trained_on(version, dataset, seed=0, test=0.2):
    split = {"validation": 0.2, "test": test}
    card = {"dataset": {"id": dataset.id}, "split": split, "seed": seed}
    return dataclasses.replace(version, card=card)


def test_versions_are_fixed_and_an_alias_may_move(
    evaluations, datasets, tmp_path
) -> None:
    job = asked(added(datasets, tmp_path))
    made, replayed = evaluations.submit(job, owner="me", idempotency_key="k")
    assert not replayed
    row = PlannedEvaluation.model_validate(made.request)
    assert [str(each) for each in row.versions] == ["m/1", "m/2"]
    assert (row.part, row.warnings) == ("all", [])
    evaluations.registry.aliases.set("m", "champion", 3, moved_by="me", if_match="*")
    again, replayed = evaluations.submit(job, owner="me", idempotency_key="k")
    assert (again.id, replayed) == (made.id, True)


def test_the_test_part_of_the_last_version_trained_on_it_is_compared(
    datasets, registry, tmp_path
) -> None:
    dataset = datasets.get(added(datasets, tmp_path))
    old, new = (registry.version("m", number) for number in (1, 2))
    job = asked(dataset.id)
    tuned = [old, trained_on(new, dataset, seed=7)]
    row = plan(job, tuned, dataset)
    assert (row["part"], row["split_seed"], row["split"]["test"]) == ("test", 7, 0.2)
    assert row["warnings"] == []

    both = [trained_on(old, dataset, seed=1), trained_on(new, dataset, seed=7)]
    (warning,) = plan(job, both, dataset)["warnings"]
    assert "m/1 learned from some of these trajectories" in warning
    (warning,) = plan(asked(dataset.id, part="all"), tuned, dataset)["warnings"]
    assert "m/2 was trained on" in warning

    # The same division, once by the training's seed and once by the split's own.
    split = {"validation": 0.2, "test": 0.2, "seed": 7}
    card = {"dataset": {"id": dataset.id}, "split": split, "seed": 3}
    swept = dataclasses.replace(old, card=card)
    row = plan(job, [swept, trained_on(new, dataset, seed=7)], dataset)
    assert (row["split_seed"], row["split"]["seed"], row["warnings"]) == (7, None, [])

    none = [old, trained_on(new, dataset, test=0.0)]
    assert plan(job, none, dataset)["part"] == "all"
    with pytest.raises(Invalid) as refused:
        plan(asked(dataset.id, part="test"), none, dataset)
    assert refused.value.field == "/part"


@pytest.mark.parametrize(
    ("models", "error", "field"),
    [
        (("m/1", "m@champion"), Invalid, "/models/1"),
        (("m/1", "m@"), Invalid, "/models/1"),
        (("m/1", "nobody"), NotFound, None),
    ],
)
def test_what_cannot_be_compared_is_refused(
    evaluations, datasets, tmp_path, models, error, field
) -> None:
    dataset = added(datasets, tmp_path)
    with pytest.raises(error) as refused:
        evaluations.submit(asked(dataset, *models), owner="me")
    assert field in (None, getattr(refused.value, "field", None))


def test_other_data_are_refused_and_so_is_no_dataset(
    evaluations, datasets, tmp_path
) -> None:
    dataset = added(datasets, tmp_path, ("a", "b", "z"))
    with pytest.raises(Invalid, match="takes the states a, b, c") as refused:
        evaluations.submit(asked(dataset), owner="me")
    assert refused.value.field == "/models/0"
    with pytest.raises(Invalid) as refused:
        evaluations.submit(asked(f"ds_{'0' * 26}"), owner="me")
    assert refused.value.code == "dataset_not_found"
