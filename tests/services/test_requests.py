import numpy as np
import pytest
from pydantic import ValidationError

from services.datasets import Datasets
from services.errors import Invalid
from services.training.request import (
    DatasetRequest,
    System,
    TrainingRequest,
    check_request,
    restored,
    stored,
)
from spnode_core import systems


@pytest.fixture
def datasets(database, blobs, settings) -> Datasets:
    return Datasets(database, blobs, settings)


@pytest.fixture
def dataset(datasets, small_file) -> str:
    return datasets.add(small_file, owner="me").id


def test_what_the_caller_left_open_stays_open() -> None:
    request = TrainingRequest.model_validate(
        {
            "kind": "training",
            "dataset": f"ds_{'0' * 26}",
            "model": "m",
            "surrogate": {"latent": 8},
        }
    )
    row = stored(request)
    assert row["surrogate"] == {"latent": 8}
    again = restored(row)
    assert again == request
    assert isinstance(again, TrainingRequest)
    assert again.surrogate is not None
    assert again.surrogate.model_fields_set == {"latent"}


def test_every_example_is_a_request() -> None:
    for model in (TrainingRequest, DatasetRequest):
        for example in model.model_json_schema()["examples"]:
            assert restored(stored(model.model_validate(example)))


def test_the_built_in_systems_are_those_of_the_library() -> None:
    assert set(System.__args__) == set(systems.names())


@pytest.mark.parametrize(
    "change",
    [
        {"model": "Not A Name"},
        {"seed": -1},
        {"unknown": 1},
        {"surrogate": {"latent": 0}},
        {"surrogate": {"linear": {"kind": "nothing"}}},
        {"training": {"learning_rate": float("nan")}},
        {"split": {"validation": 0.6, "test": 0.6}},
        {"dataset": "job_1"},
        {"members": 0},
        {"members": 17},
    ],
)
def test_a_malformed_request_is_refused(change: dict) -> None:
    right = {"dataset": f"ds_{'0' * 26}", "model": "m"}
    TrainingRequest.model_validate(right)
    with pytest.raises(ValidationError):
        TrainingRequest.model_validate({**right, **change})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dataset": f"ds_{'0' * 26}"}, "/dataset"),
        ({"alias": "v3"}, "/alias"),
        (
            {"surrogate": {"conserved": {"m/s": {"a": 1, "c~d": 1}}}},
            "/surrogate/conserved/m~1s/c~0d",
        ),
        (
            {"surrogate": {"autoencoder": {"kind": "none"}, "latent": 5}},
            "/surrogate/latent",
        ),
        (
            {"surrogate": {"linear": {"kind": "modal", "depends_on_parameters": True}}},
            "/surrogate/linear/depends_on_parameters",
        ),
        (
            {
                "surrogate": {
                    "latent": 4,
                    "linear": {"kind": "modal", "oscillating": 3},
                    "nonlinear": {"kind": "mlp"},
                }
            },
            "/surrogate/linear/oscillating",
        ),
        (
            {
                "surrogate": {
                    "autoencoder": {"kind": "residual", "logarithms": ["a", "smoke"]}
                }
            },
            "/surrogate/autoencoder/logarithms/1",
        ),
        (
            {"surrogate": {"normalisation": {"y9": "log"}}},
            "/surrogate/normalisation/y9",
        ),
        ({"training": {"pairs": True}}, "/training/pairs"),
        (
            {
                "surrogate": {"nonlinear": {"kind": "none"}},
                "training": {"pairs": True, "horizon": [4]},
            },
            "/training/horizon",
        ),
        ({"split": {"validation": 0.4, "test": 0.5}}, "/split"),
        ({"split": {"pieces": 500}}, "/split/pieces"),
        ({"members": 2, "warm_start": "m/1"}, "/members"),
    ],
)
def test_a_request_that_does_not_fit_its_dataset_names_the_field(
    datasets, dataset, change: dict, field: str
) -> None:
    right = {"dataset": dataset, "model": "m"}
    check_request(TrainingRequest.model_validate(right), datasets)
    request = TrainingRequest.model_validate({**right, **change})
    with pytest.raises(Invalid) as refused:
        check_request(request, datasets)
    assert refused.value.field == field


def test_one_trajectory_is_too_few_and_counted_as_one(datasets, tmp_path) -> None:
    path = tmp_path / "alone.npz"
    np.savez(path, states=np.linspace(1, 2, 9).reshape(1, 9, 1), times=np.arange(9.0))
    alone = datasets.add(path, owner="me").id
    request = TrainingRequest.model_validate({"dataset": alone, "model": "m"})
    with pytest.raises(Invalid, match="found 1 trajectory in ds_") as refused:
        check_request(request, datasets)
    assert refused.value.field == "/split"


def test_controls_rule_out_a_latent_space_that_they_do_not_act_on(
    datasets, tmp_path
) -> None:
    path = tmp_path / "driven.npz"
    arrays = {"states": np.ones((6, 9, 1)), "times": np.arange(9.0)}
    arrays["states"] *= np.linspace(0.5, 1.0, 54).reshape(6, 9, 1)
    names = {"control_names": np.array(["valve"])}
    np.savez(path, **arrays, **names, controls=np.zeros((6, 9, 1)))
    given = {
        "dataset": datasets.add(path, owner="me").id,
        "model": "m",
        "surrogate": {"nonlinear": {"kind": "none"}},
    }
    with pytest.raises(Invalid) as refused:
        check_request(TrainingRequest.model_validate(given), datasets)
    assert refused.value.field == "/surrogate/nonlinear/kind"


def test_a_scaling_is_of_a_state_a_parameter_or_a_control(datasets, tmp_path) -> None:
    path = tmp_path / "driven.npz"
    states = np.linspace(0.5, 1.0, 54 * 22).reshape(6, 9, 22)
    inputs = {"parameters": np.ones((6, 1)), "controls": np.zeros((6, 9, 1))}
    names = {"parameter_names": np.array(["k"]), "control_names": np.array(["valve"])}
    np.savez(path, states=states, times=np.arange(9.0), **inputs, **names)
    given = {"dataset": datasets.add(path, owner="me").id, "model": "m"}

    def check(*scaled: str) -> None:
        surrogate = {"normalisation": dict.fromkeys(scaled, "linear")}
        request = {**given, "surrogate": surrogate}
        check_request(TrainingRequest.model_validate(request), datasets)

    check("x1", "k", "valve")
    with pytest.raises(Invalid, match=r"one of x1, .*x20 and 4 more$"):
        check("x1", "x99")


def test_pieces_of_trajectories_count_as_trajectories(datasets, dataset) -> None:
    split = {"validation": 0.4, "test": 0.5, "pieces": 2}
    request = {"dataset": dataset, "model": "m", "split": split}
    check_request(TrainingRequest.model_validate(request), datasets)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"preset": "smooth"}, "/preset"),
        ({"surrogate": {"nonlinear": {"kind": "mlp"}}}, "/surrogate/nonlinear/kind"),
        (
            {"surrogate": {"integrator": "etd2rk", "nonlinear": {"kind": "mlp"}}},
            "/surrogate/integrator",
        ),
        (
            {
                "surrogate": {
                    "linear": {"kind": "modal", "shift": 0.1},
                    "nonlinear": {"kind": "contracting"},
                }
            },
            "/surrogate/linear/shift",
        ),
    ],
)
def test_what_cannot_be_certified_is_refused_before_a_job(
    datasets, dataset, change, field
) -> None:
    body = {"kind": "training", "dataset": dataset, "model": "m", **change}
    check_request(TrainingRequest.model_validate(body), datasets)
    certified = TrainingRequest.model_validate({**body, "certified": True})
    with pytest.raises(Invalid) as refused:
        check_request(certified, datasets)
    assert refused.value.field == field


def test_certified_is_kept_with_the_job(datasets, dataset) -> None:
    body = {"kind": "training", "dataset": dataset, "model": "m", "certified": True}
    request = TrainingRequest.model_validate(body)
    check_request(request, datasets)
    assert stored(request)["certified"] is True
