"""Pieces on several threads: their order, their errors, and how many run at a time."""

import threading
import time

import pytest

from services.rollouts.threads import on_threads
from services.rollouts.tiles import for_cores, is_quicker


@pytest.mark.parametrize("at_a_time", [1, 2, 5])
def test_results_are_in_order(at_a_time):
    assert on_threads(lambda n: n * n, 20, at_a_time) == [n * n for n in range(20)]
    assert on_threads(str, 1, at_a_time) == ["0"]


def test_so_many_run_at_a_time():
    both = threading.Barrier(2, timeout=60)
    running, most = set(), []

    def one(number):
        running.add(number)
        most.append(len(running))
        both.wait()
        running.discard(number)

    on_threads(one, 6, 2)
    assert max(most) == 2


def test_after_an_error_no_more_begin_and_none_runs_on():
    begun, ended = [], []
    second = threading.Event()

    def one(number):
        begun.append(number)
        if number == 0:
            assert second.wait(60)
            raise ValueError("the first")
        second.set()
        time.sleep(0.2)
        ended.append(number)

    with pytest.raises(ValueError, match="the first"):
        on_threads(one, 50, 2)
    assert sorted(begun) == [0, 1]
    assert ended == [1]


@pytest.mark.parametrize(
    ("rows", "cores", "largest"),
    [(64, 2, 64), (5, 8, 64), (256, 8, 64), (300, 1, 256), (511, 2, 64), (512, 2, 256)],
)
def test_large_tiles_are_for_batches_that_fill_one_on_each_core(rows, cores, largest):
    assert for_cores((2, 8, 32, 64, 256), rows, cores)[-1] == largest


def test_where_memory_leaves_one_large_tile_it_is_used():
    assert for_cores((64,), 3, 2) == (64,)


def test_a_tile_that_takes_many_times_as_long_is_not_quicker(monkeypatch):
    now = [0.0]

    def taking(*seconds):
        each = iter(seconds)

        def compute():
            now[0] += next(each)

        return compute

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    usual = (0.04,) * 5
    assert is_quicker(taking(*usual), taking(*usual), by=1.0)
    assert not is_quicker(taking(*(0.09,) * 5), taking(*usual), by=1.5)
    assert not is_quicker(taking(*(0.05,) * 5), taking(*usual), by=1.0)
    # Held up by other work four times, not a fifth time.
    assert is_quicker(taking(*(0.09,) * 4, 0.04), taking(*usual), by=1.0)
    assert not is_quicker(taking(*(0.05,) * 5), taking(*(0.09,) * 4, 0.04), by=1.0)
    # What takes long is computed once.
    assert is_quicker(taking(4.0), taking(4.0), by=1.0)
    assert not is_quicker(taking(9.0), taking(4.0), by=1.5)
