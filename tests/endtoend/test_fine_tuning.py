"""From a version to a better one, from the shell: go on, compare, move the alias."""

import pytest

from spnode_core import systems
from spnode_core.dataset import save_dataset
from tests.endtoend.conftest import QUICK


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Trajectories of the same reaction that no version has seen."""
    path = tmp_path_factory.mktemp("held") / "held_out.npz"
    save_dataset(systems.generate("robertson", 12, seed=9), path)
    return path


@pytest.fixture(scope="module")
def tuned(shell, model, file):
    """The version that goes on from the first, for longer and from later samples."""
    done = shell.run(
        "train",
        file,
        *("--model", model, "--warm-start", f"{model}/1"),
        *(*QUICK, "--iterations", "600", "--set", "training.later_starts=1"),
    )
    assert f"against {model}/1" in done.stderr
    return shell.json("models", "show", f"{model}@latest")


def test_a_version_goes_on_from_another_and_the_card_says_so(shell, model, tuned):
    card = shell.json("models", "card", f"{model}/{tuned['number']}")
    assert (card["parent"]["model"], card["parent"]["version"]) == (model, 1)
    assert card["warm_start"]["comparison"]["reference"] == "reference"
    assert card["warm_start"]["kept"] is False


def test_versions_are_compared_and_the_alias_follows_the_better(
    shell, model, tuned, held_out
):
    number = tuned["number"]
    new, old = f"{model}/{number}", f"{model}/1"
    found = shell.json("models", "compare", old, new, "--dataset", held_out)
    assert (found["part"], found["trajectories"]) == ("all", 12)
    paired = found["paired"][new]
    # Four times as long on a loss that was far from its floor.
    assert paired["better"] > paired["worse"]
    assert paired["is_worse"] is False

    shell.run("models", "alias", model, "serving", 1)
    moving = ("models", "alias", model, "serving")
    shell.run(*moving, number, "--compare", held_out)
    refused = shell.run(*moving, 1, "--compare", held_out, code=1)
    assert "is worse" in refused.stderr
    assert shell.json("models", "show", f"{model}@serving")["number"] == number
    shell.run(*moving, 1, "--compare", held_out, "--force")
    assert shell.json("models", "show", f"{model}@serving")["number"] == 1


def test_the_test_part_of_its_own_data_is_compared_by_default(shell, model, tuned):
    (dataset,) = {
        shell.json("models", "card", f"{model}/{n}")["dataset"]["id"]
        for n in (tuned["number"],)
    }
    done = shell.run(
        *("models", "compare", f"{model}/1", f"{model}/{tuned['number']}"),
        *("--dataset", dataset),
    )
    assert "on the test part" in done.stdout
    assert "nearest_trajectory" in done.stdout


def test_data_of_another_system_are_refused_at_once(shell, model, tmp_path):
    path = tmp_path / "other.npz"
    save_dataset(systems.generate("transient_growth", 8, seed=1), path)
    refused = shell.run(
        *("train", path, "--model", model, "--warm-start", f"{model}/1"), code=1
    )
    assert "/warm_start" in refused.stderr
    assert "y1, y2, y3" in refused.stderr
