"""What a listener hears of a job, from the table to the bytes."""

import asyncio
import contextlib
import json

import pytest
import sqlalchemy as sa

from api import events
from api.events import EventHub
from services.database.engine import Database
from services.database.migrate import upgrade
from services.errors import Overloaded, Unavailable
from services.jobs import Jobs
from services.leases import Leases, Note

ERROR = {"code": "x", "detail": "bad"}
REQUEST = {"kind": "dataset", "system": "robertson", "trajectories": 4}


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A job that runs: its rows, its leases, its claim."""
    monkeypatch.setattr(events, "POLL_S", 0.01)
    database = Database(f"sqlite:///{tmp_path / 'spnode.db'}")
    upgrade(database)
    jobs, leases = Jobs(database), Leases(database, lease_seconds=15)
    job, _ = jobs.submit("dataset", REQUEST, owner="me")
    yield jobs, leases, leases.claim(job.queue, "first")
    database.close()


async def may_listen() -> bool:
    return True


@contextlib.asynccontextmanager
async def tailing(jobs):
    """A hub that runs."""

    async def sql(call, *given, **named):
        return await asyncio.to_thread(call, *given, **named)

    hub = EventHub(jobs, sql)
    running = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        running.cancel()


@contextlib.asynccontextmanager
async def hearing(hub, id, after=0):
    """What gives the next event of a job as (id, kind, data)."""

    async def heard():
        async for piece in hub.stream(id, after, may_listen):
            fields = dict(
                line.split(": ", 1) for line in piece.decode().splitlines() if line
            )
            data = json.loads(fields["data"])
            assert data["kind"] == fields["event"]
            assert str(data["id"] or "") == fields.get("id", "")
            yield data["id"], data["kind"], data["data"]

    stream = heard()
    try:
        yield lambda: asyncio.wait_for(anext(stream), 10)
    finally:
        await stream.aclose()


@contextlib.asynccontextmanager
async def listening(jobs, id, after=0):
    """The same, while a hub runs for it alone."""
    async with tailing(jobs) as hub, hearing(hub, id, after) as following:
        yield following


def test_how_far_a_job_is_comes_beside_its_events(told) -> None:
    jobs, leases, claim = told

    async def listen():
        async with listening(jobs, claim.job.id) as following:
            first = [await following() for _ in range(3)]
            assert [kind for _, kind, _ in first] == ["status", "status", "progress"]
            assert first[-1] == (None, "progress", None), "all is told so far"
            for fraction in (0.25, 0.5):
                leases.heartbeat(claim, progress={"fraction": fraction})
                assert await following() == (None, "progress", {"fraction": fraction})
            leases.heartbeat(claim, progress={"fraction": 0.5})
            leases.heartbeat(claim, notes=[Note("log", "a word", {})])
            id, kind, _ = await following()
            assert kind == "log", "what is no news is not told again"
            return id

    last = asyncio.run(listen())

    async def resume():
        async with listening(jobs, claim.job.id, after=last) as following:
            assert await following() == (None, "progress", {"fraction": 0.5})
            leases.fail(claim, ERROR)
            while (event := await following())[1] == "progress":
                pass
            assert event[1:] == ("status", {"state": "failed", "error": ERROR})
            with pytest.raises(StopAsyncIteration):
                await following()

    asyncio.run(resume())


def test_of_an_ended_job_there_is_no_progress(told) -> None:
    jobs, leases, claim = told
    leases.heartbeat(claim, progress={"fraction": 0.5})
    leases.fail(claim, ERROR)

    async def listen():
        async with listening(jobs, claim.job.id) as following:
            kinds = []
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    kinds.append((await following())[1])
            return kinds

    assert asyncio.run(listen()) == ["status"] * 3


def test_a_listener_of_many_events_misses_none_and_is_not_dropped(
    told, monkeypatch
) -> None:
    jobs, leases, claim = told
    monkeypatch.setattr(events, "_QUEUE", 5)
    monkeypatch.setattr(events, "_PAGE", 5)
    for number in range(12):
        leases.heartbeat(claim, notes=[Note("log", str(number), {"n": number})])

    async def listen():
        async with listening(jobs, claim.job.id) as early:
            while (await early())[1] != "progress":
                pass
            async with listening(jobs, claim.job.id) as late:
                heard = []
                while (event := await late())[1] != "progress":
                    heard.append(event[2])
            leases.heartbeat(claim, notes=[Note("log", "a word", {"n": 12})])
            following = (await early())[2]
            return [each["n"] for each in heard if "n" in each], following

    assert asyncio.run(listen()) == (list(range(12)), {"n": 12})


def test_a_job_that_cannot_be_read_stops_the_events_of_no_other(told, caplog):
    jobs, leases, claim = told
    other, _ = jobs.submit("dataset", REQUEST, owner="me")

    def damage():
        query = sa.text("UPDATE jobs SET progress = '{' WHERE id = :id")
        with jobs.database.transaction() as connection:
            connection.execute(query, {"id": other.id})

    async def listen():
        async with (
            tailing(jobs) as hub,
            hearing(hub, other.id) as damaged,
            hearing(hub, claim.job.id) as whole,
        ):
            for heard in (damaged, whole):
                while (await heard())[1] != "progress":
                    pass
            damage()
            with pytest.raises(StopAsyncIteration):
                await damaged()
            leases.heartbeat(claim, notes=[Note("log", "a word", {})])
            return (await whole())[1]

    assert asyncio.run(listen()) == "log"
    said = [each for each in caplog.records if other.id in each.getMessage()]
    assert all(each.exc_info for each in said), "without its traceback"
    assert said


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [(Unavailable("away"), True), (Overloaded("full", retry_after_s=1), False)],
)
def test_who_cannot_be_asked_about_hears_on_where_nothing_is_said(error, goes_on):
    async def asked():
        raise error

    assert asyncio.run(events._may(asked)) is goes_on
