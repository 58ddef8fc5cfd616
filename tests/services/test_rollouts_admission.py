import numpy as np
import pytest

from services.errors import Overloaded
from services.rollouts.admission import Admission
from services.rollouts.work import Work


def test_the_time_to_come_back_follows_from_the_measured_rate():
    now = [0.0]
    admission = Admission(rows_limit=1000, bytes_limit=10**9, clock=lambda: now[0])
    admission.admit(1000, 8000)
    for _ in range(5):
        now[0] += 0.5
        admission.computed(50, 400)
    with pytest.raises(Overloaded) as caught:
        admission.admit(450, 3600)
    # 100 rows a second; 750 are left, 200 too many.
    assert caught.value.retry_after_s == pytest.approx(2.0)


def test_idle_time_does_not_count_as_slow():
    now = [0.0]
    admission = Admission(rows_limit=100, bytes_limit=10**9, clock=lambda: now[0])
    for _ in range(3):
        admission.admit(100, 800)
        now[0] += 1.0
        admission.computed(100, 800)
        admission.leave(0, 800)
        now[0] += 60.0
    admission.admit(100, 800)
    with pytest.raises(Overloaded) as caught:
        admission.admit(100, 800)
    assert caught.value.retry_after_s == pytest.approx(1.0)


def test_expected_answers_count_every_direction():
    times, k = 5, 4
    rows = {
        "x0": np.zeros((2, 3)),
        "parameters": np.zeros((2, 1)),
        "tangents.x0": np.zeros((2, k, 3)),
        "tangents.parameters": np.zeros((2, k, 1)),
    }
    given = Work("jvp", "d", rows, {"times": np.zeros(times)}, 2)
    inputs = 8 * (2 * 4) * (1 + k) + 8 * times
    assert given.expected_bytes == inputs + 8 * 2 * times * 3 * (1 + k)


def test_who_comes_when_it_is_nearly_full_is_refused_unread():
    admission = Admission(rows_limit=100, bytes_limit=10**9)
    admission.check_open()
    admission.admit(89, 10)
    admission.check_open()
    admission.admit(1, 10)
    with pytest.raises(Overloaded, match="90 rows and 20 bytes are queued"):
        admission.check_open()
    admission.computed(50, 10)
    admission.check_open()
    # What is larger than the limit and alone is taken, and closes the door.
    alone = Admission(rows_limit=100, bytes_limit=10)
    alone.admit(1, 1000)
    with pytest.raises(Overloaded):
        alone.check_open()
    alone.computed(1, 1000)
    alone.leave(0, 1000)
    alone.check_open()
