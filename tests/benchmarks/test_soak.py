"""What a soak finds in what it has seen."""

import dataclasses
import json

import matplotlib.image
import pytest

from benchmarks.speed.soak import Soak, Window, _Errand
from spnode_client import Client
from spnode_core.dataset import save_dataset
from spnode_core.systems import generate
from tests.api.deployment import deployed


def window(number, **change):
    return dataclasses.replace(
        Window(
            10.0 * (number + 1),
            ("rows", "gradients")[number % 2],
            20.0,
            0,
            0.004,
            0.01,
            {"gateway": 100.0, "worker": 400.0},
            {"gateway": 30, "worker": 40},
            {"gateway": 5, "worker": 9},
        ),
        **change,
    )


def soak(change=lambda number: {}):
    windows = [window(number, **change(number)) for number in range(60)]
    return Soak(10.0, "./spnode soak --minutes 10", windows)


def test_steady_processes_give_no_findings():
    assert soak().findings() == []


def test_what_grows_during_the_warm_up_does_not_count():
    grown = lambda number: {  # noqa: E731
        "memory_mb": {"gateway": 50.0 if number < 12 else 100.0, "worker": 400.0},
        "handles": {"gateway": 3 if number < 12 else 30, "worker": 40},
    }
    assert soak(grown).findings() == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"memory_mb": {"gateway": 100.0, "worker": 440.0}},
            "worker grew from 400 to 440 MB",
        ),
        (
            {"handles": {"gateway": 31, "worker": 40}},
            "gateway went from 30 to 31 handles",
        ),
        (
            {"threads": {"gateway": 5, "worker": 10}},
            "worker went from 9 to 10 threads",
        ),
        ({"failures": 1}, "10 answers were not 200"),
    ],
)
def test_what_grows_in_the_end_is_found(change, expected):
    assert soak(lambda n: change if n >= 50 else {}).findings() == [expected]


def test_only_what_became_slower_is_named():
    slower = lambda number: {"p99_s": 0.02} if number > 43 and number % 2 else {}  # noqa: E731
    assert soak(slower).findings() == ["p99 of gradients went from 10.0 to 20.0 ms"]


def test_the_report_says_what_was_found(tmp_path):
    page = soak(lambda n: {"threads": {"gateway": 5, "worker": 9 + (n > 50)}}).write(
        tmp_path
    )
    text = page.read_text()
    assert "**worker went from 9 to 10 threads.** 12,000 requests in 10 minutes" in text
    record = json.loads((tmp_path / "soak.json").read_text())
    assert record["findings"] == ["worker went from 9 to 10 threads"]
    assert len(record["windows"]) == 60
    assert matplotlib.image.imread(tmp_path / "soak.png").shape[1] > 500


def test_errands_that_failed_are_found():
    windows = soak().windows
    assert Soak(10.0, "", windows, 20, 1).findings() == ["1 errands failed"]


def test_an_errand_leaves_nothing_but_its_job(tmp_path):
    file = tmp_path / "errand.npz"
    save_dataset(generate("robertson", 3), file)
    with deployed() as data:
        gateway = data.start_gateway()
        data.start("jobs", "worker", "--queues", "datasets")
        with Client(gateway.url, gateway.key, retries=0) as client:
            errand = _Errand(client, file)
            errand.run()
            assert (errand.done, errand.failed) == (1, 0)
            assert client.datasets.list() == []
            assert [each.state for each in client.jobs.list()] == ["succeeded"]
            data.stop("gateway")
            errand.run()
            assert (errand.done, errand.failed) == (1, 1)
