import asyncio
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
import sqlalchemy as sa

from api.dependencies import Gateway
from api.readiness import Readiness
from services.queue_names import ROLLOUTS_QUEUE
from tests.api.deployment import deployed, opened, start_valkey, wait_for
from tests.api.serving import serving
from tests.api.test_errors import checked

WELL = {"database": "ok", "queue": "ok", "models": "warm"}
AWAY = {"queue": "does not answer"}


@pytest.fixture
def often(monkeypatch):
    """Gateways look at champions again at once, where they wait for seconds."""
    monkeypatch.setattr("api.dependencies._WARM_EVERY_S", 0.05)
    monkeypatch.setattr("api.dependencies._LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("api.dependencies._REFUSED_AGAIN_S", 0.2)


def test_a_queue_that_goes_away_takes_out_no_gateway_and_lets_none_in():
    with deployed() as data:
        gateway = data.start_gateway()
        with gateway.client() as client:

            def found():
                answer = client.get("/health/ready")
                return answer.status_code, answer.json()["checks"]

            assert found() == (200, WELL)
            data.stop("valkey")
            wait_for(lambda: found() == (200, WELL | AWAY), 30)
            assert client.get("/v2/health/ready").status_code == 200
            assert client.get("/v1/models").status_code == 200

        later = data.start_gateway("later", until="live")
        with later.client() as client:
            asks = "what is needed to be ready does not answer: the queue"
            log = data.folder / "later.log"
            wait_for(lambda: asks in log.read_text(), 60)
            assert found() == (503, WELL | AWAY | {"models": "warming"})
            problem = client.get("/v2/health/ready")
            assert problem.status_code == 503
            assert "queue: does not answer" in problem.json()["error"]
            sock = data.folder / "valkey.sock"
            data.processes["valkey"] = start_valkey(data.folder, sock)
            wait_for(lambda: found() == (200, WELL), 60)


def test_what_cannot_be_read_of_a_champion_ends_nobody_s_watch():
    with deployed(models=("small",), executor="queue") as data:

        def note(statement):
            with (
                opened(data.settings) as (database, _),
                database.transaction() as connection,
            ):
                connection.execute(sa.text(statement))

        note("UPDATE versions SET spec = '{' || spec")
        data.start("worker", "worker", "--rollouts")
        gateway = data.start_gateway(until="live")
        logs = [data.folder / f"{name}.log" for name in ("worker", "gateway")]
        for log in logs:
            wait_for(lambda log=log: "Traceback" in log.read_text(), 60)
        note("UPDATE versions SET spec = substr(spec, 2)")
        with gateway.client() as client:
            ready = lambda: client.get("/health/ready").status_code == 200  # noqa: E731
            wait_for(ready, 120)


@pytest.mark.parametrize("executor", ["inline", "queue"])
def test_a_champion_that_the_store_has_lost_is_told_and_is_no_404(executor):
    with deployed(models=("small",), executor=executor) as data:
        with opened(data.settings) as (_, blobs):
            (key,) = blobs.list("artifacts")
            content = blobs.get(key)
            blobs.delete(key)
        if executor == "queue":
            data.start("worker", "worker", "--rollouts")
        with data.start_gateway().client() as client:
            told = lambda: client.get("/health/ready").json()["checks"]["models"]  # noqa: E731
            wait_for(lambda: told() == "warm, 1 cannot be served", 30)
            body = {"model": "small", "x0": [1.0, 0.5, 0.2], "times": [1.0]}
            for path in ("/v1/rollout", "/v1/rollout/vjp"):
                sent = body | ({"cotangents": [[1.0] * 3]} if "vjp" in path else {})
                checked(client.post(path, json=sent), 500, "lost")
            found = client.get("/v1/models/small/versions/1/artifact")
            checked(found, 500, "lost")
            ready = client.get("/v2/models/small/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            call = {"name": "small", "input": [[1.0, 0.5, 0.2]]}
            refused = client.post("/umbridge/Evaluate", json=call)
            assert refused.status_code == 500
            assert refused.json()["error"]["type"] == "lost"
            with opened(data.settings) as (_, blobs):
                blobs.put(key, content)
            assert client.post("/v1/rollout", json=body).status_code == 200
            assert client.get("/v2/models/small/ready").json()["ready"]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("executor", ["inline", "queue"])
def test_a_champion_that_is_damaged_is_told_whoever_loads_it(executor):
    async def becomes(gateway, said):
        async with asyncio.timeout(60):
            found = await gateway.readiness.found()
            while not found.checks["models"].endswith(said):
                await asyncio.sleep(0.02)
                found = await gateway.readiness.found()

    async def scenario(gateway, blobs):
        key, _ = blobs.list("artifacts")
        content = blobs.get(key)
        (blobs.root / key).write_bytes(content[:-1] + b"?")
        await gateway.start()
        try:
            await becomes(gateway, ", 1 cannot be served")
            # Which writes anew what is damaged.
            blobs.put(key, content)
            # Without a worker the other one is never warm.
            await becomes(gateway, "warm" if executor == "inline" else "warming")
        finally:
            await gateway.close()

    with (
        deployed(models=("small", "mixed"), executor=executor) as data,
        opened(data.settings) as (_, blobs),
    ):
        asyncio.run(scenario(Gateway(data.settings), blobs))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("executor", ["inline", "queue"])
def test_a_champion_that_is_lost_later_is_found_and_found_again(executor):
    async def becomes(gateway, count):
        async with asyncio.timeout(60):
            while gateway.unserved != count:
                await asyncio.sleep(0.02)

    async def scenario(gateway, blobs):
        keys = list(blobs.list("artifacts"))
        contents = {key: blobs.get(key) for key in keys}
        blobs.delete(keys[0])
        await gateway.start()
        try:
            await becomes(gateway, 1)
            blobs.delete(keys[1])
            await becomes(gateway, 2)
            for key, content in contents.items():
                blobs.put(key, content)
            await becomes(gateway, 0)
        finally:
            await gateway.close()

    with (
        deployed(models=("small", "mixed"), executor=executor) as data,
        opened(data.settings) as (_, blobs),
    ):
        asyncio.run(scenario(Gateway(data.settings), blobs))


def gateway_of(living, ping, has_room=lambda: True):
    return SimpleNamespace(
        database=SimpleNamespace(has_room=has_room),
        warmed=True,
        unserved=0,
        workers=SimpleNamespace(living=living),
        queue=SimpleNamespace(ping=ping),
    )


def test_a_full_disk_of_the_database_is_told_and_is_no_silence(monkeypatch):
    """SQLite is read on; what fills a disk is left to the threshold."""
    with (
        deployed(models=(), log_format="json") as data,
        serving(data.settings) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        client.headers["authorization"] = f"Bearer {data.key}"

        def database():
            return client.get("/health/ready").json()["checks"]["database"]

        def up(text):
            return f"spnode_database_up {text}\n" in client.get("/metrics").text

        wait_for(lambda: database() == "ok", 30)
        assert up("1.0")
        monkeypatch.setattr("services.database.engine.LEAST_ROOM_BYTES", 2**62)
        wait_for(lambda: database() == "has no room", 30)
        assert client.get("/health/ready").status_code == 200
        assert up("0.0")
        # What can be read is told.
        assert "spnode_job_queue_age_seconds{" in client.get("/metrics").text
        assert client.get("/v1/models").status_code == 200
        monkeypatch.undo()
        wait_for(lambda: database() == "ok", 30)
        assert up("1.0")


def test_callers_without_a_key_cost_a_look_a_second():
    looks = []

    def living():
        time.sleep(0.05)
        looks.append("database")
        return [SimpleNamespace(queues=("training",))]

    async def ask():
        readiness = Readiness(gateway_of(living, lambda: looks.append("queue")))
        founds = await asyncio.gather(*(readiness.found() for _ in range(50)))
        assert sorted(looks) == ["database", "queue"]
        await asyncio.sleep(1.1)
        founds.append(await readiness.found())
        readiness.close()
        return founds

    found, *others = asyncio.run(ask())
    assert sorted(looks) == ["database", "database", "queue", "queue"]
    assert all(each == found for each in others)
    assert found.workers["training"] == 1
    assert found.checks == WELL


def test_what_hangs_is_not_waited_for_and_asked_once(caplog):
    released, looks = threading.Event(), []

    def hangs():
        looks.append("queue")
        released.wait(30)

    async def ask():
        readiness = Readiness(gateway_of(list, hangs))
        founds = [await readiness.found() for _ in range(4)]
        assert looks == ["queue"], "each look holds a thread"
        released.set()
        await asyncio.sleep(1.0)
        founds.append(await readiness.found())
        readiness.close()
        return founds

    *hung, last = asyncio.run(ask())
    assert [each.checks for each in hung] == [WELL | AWAY] * 4
    assert all(each.is_ready for each in hung)
    assert last.checks == WELL
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 2, "what changes is told, and nothing twice"
    assert said[0].startswith("the queue: does not answer: nothing in")


def test_a_gateway_keeps_all_workers_busy_that_live() -> None:
    """Also those that an autoscaler has added."""

    async def scenario(gateway: Gateway) -> None:
        await gateway.start()
        try:
            assert gateway.executor.concurrency == 4
            for number in range(3):
                gateway.workers.beat(f"w{number}", [ROLLOUTS_QUEUE], is_warm=False)
            async with asyncio.timeout(30):
                while gateway.executor.concurrency != 8:
                    await asyncio.sleep(0.05)
        finally:
            await gateway.close()

    with deployed() as data:
        settings = data.settings.model_copy(update={"executor": "queue"})
        asyncio.run(scenario(Gateway(settings)))
