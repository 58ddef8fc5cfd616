"""GET /health/live and /health/ready: for whoever starts, routes to, or watches us."""

import logging
from typing import Any

from fastapi import APIRouter, Response

from api.dependencies import Gateway, GatewayDep
from services.errors import ServiceError
from services.queue_names import QUEUES

log = logging.getLogger("spnode.api")
router = APIRouter(prefix="/health", tags=["operations"])


@router.get("/live", summary="Whether the process answers")
async def live() -> dict[str, str]:
    """Depends on nothing else."""
    return {"status": "live"}


@router.get("/ready", summary="Whether requests can be served")
async def ready(gateway: GatewayDep, response: Response) -> dict[str, Any]:
    """Database and queue answer, and champions are compiled (else 503).

    Workers that live are named by queue; a queue without one delays jobs and, where
    rollouts run on workers, rollouts. ``rollouts`` counts what waits and what was done.
    """
    is_ready, checks = await readiness(gateway)
    workers: dict[str, int] = dict.fromkeys(QUEUES, 0)
    if checks["database"] == "ok":
        for worker in await gateway.sql(gateway.workers.living):
            for name in worker.queues:
                workers[name] = workers.get(name, 0) + 1
    response.status_code = 200 if is_ready else 503
    return {
        "status": "ready" if is_ready else "not ready",
        "checks": checks,
        "workers": workers,
        "rollouts": gateway.batcher.snapshot(),
    }


async def readiness(gateway: Gateway) -> tuple[bool, dict[str, str]]:
    """Whether requests can be served, and the state of what that needs."""
    checks = {
        "database": await _answers(gateway, gateway.database.ping),
        "queue": await _answers(gateway, gateway.queue.ping),
        "models": "warm" if gateway.warmed else "warming",
    }
    return set(checks.values()) <= {"ok", "warm"}, checks


async def _answers(gateway: Gateway, ping: Any) -> str:
    try:
        await gateway.sql(ping)
    except ServiceError as error:
        # Whoever asks has no key: hosts and users are for the log.
        log.warning("not ready: %s", error)
        return "does not answer"
    return "ok"
