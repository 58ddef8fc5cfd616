"""Whatever hypothesis makes up, sent to a door: some of it, or for minutes.

``FUZZ_MINUTES=5 ./spnode test tests/protocols -k breaks`` goes on with each door for five
minutes, with other bodies each time, and says how many it sent.
"""

import os
import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))

in_time = pytest.mark.timeout(300 + 180 * MINUTES)
"""For a test that calls ``fuzz``."""


def fuzz(drawn, check, *, examples):
    """Check what a strategy draws: so many examples, or as many as the minutes hold."""
    sent = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # A body that broke something is shown as it was: to shrink it would take long.
        phases=(Phase.explicit, Phase.generate),
    )
    @given(drawn)
    def once(each):
        nonlocal sent
        sent += 1
        check(*each)

    start = time.monotonic()
    once()
    while time.monotonic() < start + 60 * MINUTES:
        once()
    print(f"{sent} requests in {time.monotonic() - start:.0f} s")
