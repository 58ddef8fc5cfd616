import asyncio
from types import SimpleNamespace

from api.readiness import Readiness
from tests.api.deployment import deployed, start_valkey, wait_for

ROLLOUT = {"model": "small", "x0": [0.5, 1e-5, 0.5], "times": [1.0]}
WELL = {"database": "ok", "queue": "ok", "models": "warm"}
AWAY = {"queue": "does not answer"}


def test_a_queue_that_goes_away_takes_out_no_gateway_and_lets_none_in():
    with deployed(models=("small",)) as data:
        gateway = data.start_gateway()
        with gateway.client() as client:

            def found():
                answer = client.get("/health/ready")
                return answer.status_code, answer.json()["checks"]

            assert found() == (200, WELL)
            data.stop("valkey")
            wait_for(lambda: found() == (200, WELL | AWAY), 30)
            assert client.get("/v2/health/ready").status_code == 200
            assert client.post("/v1/rollout", json=ROLLOUT).status_code == 200

        later = data.start_gateway("later", until="live")
        with later.client() as client:
            # It has compiled what there is before it asks for the queue.
            asks = "the queue does not answer"
            log = data.folder / "later.log"
            wait_for(lambda: asks in log.read_text(), 60)
            assert found() == (503, WELL | AWAY | {"models": "warming"})
            problem = client.get("/v2/health/ready")
            assert problem.status_code == 503
            assert "queue: does not answer" in problem.json()["error"]
            sock = data.folder / "valkey.sock"
            data.processes["valkey"] = start_valkey(data.folder, sock)
            wait_for(lambda: found() == (200, WELL), 60)


def test_callers_without_a_key_cost_a_look_a_second():
    looks = []

    def living():
        looks.append("database")
        return [SimpleNamespace(queues=("training",))]

    async def sql(function):
        await asyncio.sleep(0.05)
        return function()

    async def ask():
        gateway = SimpleNamespace(
            sql=sql,
            warmed=True,
            workers=SimpleNamespace(living=living),
            queue=SimpleNamespace(ping=lambda: looks.append("queue")),
        )
        readiness = Readiness(gateway)
        founds = await asyncio.gather(*(readiness.found() for _ in range(50)))
        assert all(each is founds[0] for each in founds)
        await asyncio.sleep(1.1)
        again = await readiness.found()
        assert again is not founds[0]
        return again

    found = asyncio.run(ask())
    assert sorted(looks) == ["database", "database", "queue", "queue"]
    assert found.workers["training"] == 1
    assert found.checks == WELL
