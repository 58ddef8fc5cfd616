"""What the card of a version says of its data, where anybody may have written it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.training.agreement import division_of

SPLIT = {"validation": 0.2, "test": 0.1}


def divided(card: dict[str, Any]) -> Any:
    version = SimpleNamespace(card={"dataset": {"id": "ds_1"}, **card})
    dataset = SimpleNamespace(id="ds_1", summary={"digest": "d"})
    return division_of(cast(Any, version), cast(Any, dataset))


def test_a_version_tells_how_it_divided_its_dataset() -> None:
    split, seed = divided({"split": SPLIT, "seed": 7})
    assert (split.validation, split.test, seed) == (0.2, 0.1, 7)
    assert divided({"dataset": {"id": "ds_2"}, "split": SPLIT, "seed": 7}) is None


@pytest.mark.parametrize(
    "card",
    [
        {"split": {}},
        {"split": SPLIT, "seed": "x"},
        {"split": SPLIT, "seed": None},
        {"split": [1], "seed": 0},
        {"split": {"train": "all"}, "seed": 0},
        {"dataset": "ds_1", "split": SPLIT},
    ],
)
def test_a_card_of_another_form_tells_nothing(card: dict[str, Any]) -> None:
    assert divided(card) is None
