"""GET /health/live and /health/ready: for whoever starts, routes to, or watches us."""

from typing import Any

from fastapi import APIRouter, Response

from api.dependencies import GatewayDep

router = APIRouter(prefix="/health", tags=["operations"])


@router.get("/live", summary="Whether the process answers")
async def live() -> dict[str, str]:
    """Depends on nothing else."""
    return {"status": "live"}


@router.get("/ready", summary="Whether requests can be served")
async def ready(gateway: GatewayDep, response: Response) -> dict[str, Any]:
    """200 once champions are compiled, 503 before; and how what it needs is.

    ``checks`` tells whether database and queue answer, which changes the status no
    more: they are the same for every gateway. Workers that live are named by queue; a
    queue without one delays jobs and, where rollouts run on workers, rollouts.
    ``rollouts`` counts what waits and what was done.
    """
    found = await gateway.readiness.found()
    response.status_code = 200 if found.is_ready else 503
    return {
        "status": "ready" if found.is_ready else "not ready",
        "checks": found.checks,
        "workers": found.workers,
        "rollouts": gateway.batcher.snapshot(),
    }
