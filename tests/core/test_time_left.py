"""The estimate of the time that is left: measured, and within the limit."""

import math
import time

import numpy as np

from spnode_core.training.progress import Reporter
from spnode_core.training.stages import Drive, Record, first_state

LIMIT_S = 1.5


class Endless:
    """A stage that no limit of time lets finish."""

    name, iterations, validate_every, patience = "optimise", 10**9, 10**9, None

    def advance(self, state, count):
        time.sleep(1e-3 * count)
        return state

    def validate(self, parameters):
        return np.ones(1)

    def learning_rate(self, iteration):
        return None


def estimates(reporter, told, share=1.0):
    drive = Drive(
        Endless(), Record(), reporter, lambda *_: None, lambda _: 0.0, 10.0, share
    )
    drive.run(first_state({}, {}), {})
    return [each.remaining_s for each in told]


def test_none_is_given_before_iterations_were_timed_nor_more_than_the_limit_leaves():
    told = []
    first, *later = estimates(Reporter(told.append, None, LIMIT_S), told)
    assert told[0].iteration == 1
    assert first is None, "it would be of the compilation"
    for left, each in zip(later, told[1:], strict=True):
        # Reported a moment after it was estimated.
        assert left <= max(LIMIT_S - each.seconds, 0.0) + 0.05
    assert max(later) > 0


def test_what_compiled_for_all_of_its_share_iterates_for_a_tenth_of_the_time():
    reporter, stage, record = Reporter(None, None, 20.0), Endless(), Record()
    reporter.earlier_s = 10.0
    drive = Drive(stage, record, reporter, lambda *_: None, lambda _: 0.0, 10.0, 0.15)
    drive.run(first_state({}, {}), {})
    assert (record.begun_s or 0.0) >= 10.0
    assert 12.0 <= reporter.seconds < 14.0
    assert record.iteration > 100
    assert record.outcome.startswith("its share of max_seconds reached")


def test_a_candidate_has_its_share_of_the_time():
    told = []
    _, *later = estimates(Reporter(told.append, None, 2 * LIMIT_S), told, 0.5)
    assert 0 < max(later) < LIMIT_S


def test_without_a_limit_nothing_bounds_an_estimate():
    assert Reporter().left_s() == math.inf
