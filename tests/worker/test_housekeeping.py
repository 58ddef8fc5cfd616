"""A round of the housekeeping, against a broker that takes no more messages."""

import time

import pytest
import redis
import sqlalchemy as sa

from services.database import tables
from services.database.migrate import upgrade
from services.jobs import Jobs
from services.queue import redis_client
from services.settings import Settings
from worker.context import Context, open_context
from worker.housekeeping import Housekeeping

RESEND_S = 2.0
QUEUES = ("datasets", "training")
REQUESTS = (
    {"kind": "dataset", "system": "robertson", "trajectories": 2},
    {"kind": "training", "model": "m"},
)


@pytest.fixture
def context(valkey: str, tmp_path):
    settings = Settings(
        data_folder=tmp_path / "data", redis_url=valkey, resend_seconds=RESEND_S
    )
    context = open_context(settings, QUEUES)
    upgrade(context.database)
    yield context
    context.queue.close()
    context.database.close()


@pytest.fixture
def broker(context: Context):
    """A connection to the broker, which is empty and has room."""
    with redis_client(context.settings) as client:
        client.flushall()
        yield client
        client.config_set("maxmemory", "0")
        client.flushall()


def sent(context: Context) -> dict[str, int]:
    """How many jobs of each queue are noted as sent."""
    table = tables.jobs
    noted = sa.func.count(table.c.sent_at).label("noted")
    query = sa.select(table.c.queue, noted).group_by(table.c.queue)
    with context.database.reading() as connection:
        return {row.queue: row.noted for row in connection.execute(query)}


def waiting(context: Context) -> dict[str, int]:
    return {queue: context.queue.waiting(queue) for queue in QUEUES}


def test_a_round_ends_at_the_first_message_that_the_broker_does_not_take(
    context: Context, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.queue._SILENT_S", 0.1)
    jobs = Jobs(context.database)
    for request in REQUESTS:
        for _ in range(3):
            jobs.submit(request["kind"], request, owner="me")
    housekeeping = Housekeeping(context)
    # It answers, but refuses writes: as one that is full.
    broker.config_set("maxmemory", "1")
    began = time.monotonic()
    housekeeping.go_round()
    assert sent(context) == {"datasets": 3, "training": 0}, "went on after it failed"
    stopped_at = time.monotonic()
    broker.config_set("maxmemory", "0")
    rested_s = None
    while waiting(context) != {"datasets": 3, "training": 3}:
        assert time.monotonic() - stopped_at < 20 * RESEND_S
        time.sleep(0.1)
        housekeeping.go_round()
        if rested_s is None and waiting(context)["datasets"]:
            rested_s = time.monotonic() - began
    assert rested_s is not None
    assert rested_s > RESEND_S, "what was noted rests"
    housekeeping.go_round()
    assert waiting(context) == {"datasets": 3, "training": 3}, "each of them once"


def test_a_worker_that_has_just_come_takes_no_living_job_back(
    valkey: str, tmp_path
) -> None:
    """The database was away for longer than a lease, and one worker came anew."""
    times = {"lease_seconds": 2.0, "heartbeat_seconds": 0.5}
    settings = Settings(data_folder=tmp_path / "data", redis_url=valkey, **times)
    living, new = (open_context(settings, QUEUES) for _ in range(2))
    try:
        upgrade(living.database)
        job, _ = Jobs(living.database).submit("dataset", REQUESTS[0], owner="me")
        claim = living.leases.claim("datasets", "living")
        assert claim is not None
        time.sleep(2.5)
        housekeeping = Housekeeping(new)
        housekeeping.go_round()
        assert Jobs(living.database).get(job.id).state == "running"
        # One that lives renews within that time; this one does not.
        time.sleep(1.0)
        housekeeping.go_round()
        assert not living.leases.heartbeat(claim)
        end = time.monotonic() + 20.0
        while Jobs(living.database).get(job.id).state == "running":
            assert time.monotonic() < end
            time.sleep(0.5)
            housekeeping.go_round()
    finally:
        for each in (living, new):
            each.queue.close()
            each.database.close()
