"""/v1/systems, /v1/presets, /v1/limits: what there is to choose from."""

import functools
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ConfigDict

from api.deadlines import MAX_TIMEOUT_S
from api.dependencies import (
    LIMITED_AT_ONCE,
    LIMITED_WAITING,
    GatewayDep,
    OwnerDep,
)
from api.heads import MAX_HEAD_BYTES
from api.middleware import MAX_DOCUMENT_BYTES
from api.routes.jobs import MAX_WAIT_S
from api.schemas import In, Out
from services.calibration.request import MOST_STARTS
from services.database.paging import MAX_LIMIT
from services.evaluation.request import MOST_VERSIONS
from services.references import MOST_SECONDS, MOST_VALUES, solve
from services.registry import MAX_TAGS, MAX_TEXT
from services.rollouts.times import times_of
from services.rollouts.wire import Times, Vector
from services.sweeps.request import MOST_CANDIDATES
from services.texts import MAX_DEPTH
from spnode_core import systems
from spnode_core.spec import MOST_MEMBERS
from spnode_core.timegrid import MAX_STEPS

router = APIRouter(prefix="/v1", tags=["catalogue"])

PRESETS = {
    "auto": "Decides from the data: equations of polynomials where they hold on what "
    "was held out, else a Koopman autoencoder, a relaxation form, principal directions "
    "for fields, or a network; what it chose and why is in the job's log and the card.",
    "paper": "arXiv 2503.01775: Hurwitz operator, Lipschitz network, Adam at 0.01.",
    "smooth": "Fields and chaos: principal directions (POD), a quadratic operator by "
    "operator inference with defect correction, Krogstad's fourth order.",
}
"""What each preset means; its names are those of ``spnode_core.spec.Preset``."""


class ReferenceIn(In):
    """Where a solution begins, and when it is wanted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "x0": [1.0, 0.0, 0.0],
                    "times": {
                        **{"start": 1e-5, "stop": 1e5, "count": 50},
                        "spacing": "log",
                    },
                }
            ]
        }
    )

    x0: Vector
    """The state at time 0, in the order of the system's states."""
    times: Times
    """Times of the solution, as those of a rollout."""


class ReferenceOut(Out):
    """A solution of a built-in system."""

    times: list[float]
    x: list[list[float]]
    """``(time, state)``"""


@router.get("/systems", summary="List built-in systems")
async def list_systems() -> dict[str, list[dict[str, Any]]]:
    """Systems with equations, a sampler and a reference solver."""
    return {"data": _systems()}


@router.post(
    "/systems/{name}/reference",
    summary="Solve a built-in system",
    response_model=ReferenceOut,
)
async def solve_reference(
    name: str, asked: ReferenceIn, gateway: GatewayDep, owner: OwnerDep
) -> Response:
    """The solution from one initial condition, to the tolerance of its datasets.

    What a rollout of its surrogate is measured against. It takes from half a second to
    ten; many solutions are a job that makes a dataset.
    """
    form = np.array(asked.times) if isinstance(asked.times, list) else asked.times
    times = times_of(form, gateway.settings.max_times)
    given = (name, asked.x0, times, gateway.settings)
    found = await gateway.limited(owner, solve, *given)
    return Response(found, media_type="application/json")


@router.get("/presets", summary="List presets")
async def list_presets() -> dict[str, list[dict[str, str]]]:
    """Named ways to decide what a training job leaves open."""
    return {
        "data": [{"name": name, "description": said} for name, said in PRESETS.items()]
    }


@router.get("/limits", summary="What this deployment allows")
async def get_limits(gateway: GatewayDep) -> dict[str, int | float | str]:
    """What is refused above: settings, and the bounds that no setting changes."""
    settings = gateway.settings
    names = (
        "max_body_bytes",
        "max_upload_bytes",
        "upload_space_bytes",
        "max_json_bytes",
        "body_space_bytes",
        "body_seconds",
        "parser_memory_bytes",
        "parser_seconds",
        "max_states",
        "max_rows",
        "max_times",
        "max_output_values",
        "max_batch_rows",
        "rollout_timeout_seconds",
        "max_job_rows",
        "max_observations",
        "max_result_bytes",
        "result_chunk_bytes",
        "result_keep_seconds",
        "tile_bytes",
        "queued_rows_limit",
        "queued_bytes_limit",
        "max_attempts",
        "max_queued_jobs",
        "queued_jobs_limit",
        "rate_per_key",
        "rate_burst",
    )
    return {
        "executor": settings.executor,
        **{name: getattr(settings, name) for name in names},
        "max_head_bytes": MAX_HEAD_BYTES,
        "max_document_bytes": MAX_DOCUMENT_BYTES,
        "max_depth": MAX_DEPTH,
        "max_steps": MAX_STEPS,
        "max_wait_seconds": MAX_WAIT_S,
        "max_timeout_seconds": MAX_TIMEOUT_S,
        "max_page": MAX_LIMIT,
        "max_tags": MAX_TAGS,
        "max_text": MAX_TEXT,
        "max_candidates": MOST_CANDIDATES,
        "max_members": MOST_MEMBERS,
        "max_starts": MOST_STARTS,
        "max_compared": MOST_VERSIONS,
        "max_read_at_once": LIMITED_AT_ONCE,
        "max_read_waiting": LIMITED_WAITING,
        "max_reference_seconds": MOST_SECONDS,
        "max_reference_values": MOST_VALUES,
    }


@functools.cache
def _systems() -> list[dict[str, Any]]:
    found = []
    for name in systems.names():
        system = systems.get(name)
        times = system.times()
        found.append(
            {
                "name": name,
                "equations": system.equations,
                "states": list(system.states),
                "units": list(system.units),
                "time_unit": system.time_unit,
                "times": {
                    "start": float(times[0]),
                    "stop": float(times[-1]),
                    "count": len(times),
                },
                "conserved": system.conserved,
                "positive": system.positive,
            }
        )
    return found
