"""/v1/jobs and /jobs: submit, look, wait, follow, cancel, retry."""

import asyncio
import functools
import re
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from api.auth import Caller, check_priority, is_admitted_still
from api.conditional import etag_of, is_known, not_modified
from api.dependencies import Gateway, GatewayDep, OwnerDep, PagingDep, WorkspaceDep
from api.schemas import JobOut, Page, Validated
from api.sent_arrays import NPZ_BODY, ArraysRoute
from api.workspace import Workspace
from services.calibration.request import CalibrationJob
from services.errors import Forbidden, Invalid, Unauthorised
from services.evaluation.request import EvaluationJob
from services.job_request import JobKind, JobRequest
from services.lifecycle import Job
from services.rollouts.job_request import RolloutJob
from services.submission import submit_planned
from services.sweeps.request import SweepJob
from services.training.plan import plan
from services.training.request import stored

router = APIRouter(tags=["jobs"], route_class=ArraysRoute)
MAX_WAIT_S = 60.0
MAX_EVENT_ID = 10**18
_RETRY_AFTER_S = "2"
_LOOK_EVERY_S = 0.25
_KEY = re.compile(r"^[\x21\x23-\x7e]{1,255}$")


@router.post(
    "/v1/jobs",
    status_code=202,
    summary="Queue a job",
    response_model=JobOut,
    responses={
        200: {"model": Validated, "description": "It would be accepted (validate_only)"}
    },
    openapi_extra={"requestBody": {"content": NPZ_BODY}},
)
@router.post("/jobs", status_code=202, include_in_schema=False, response_model=JobOut)
async def submit(
    body: JobRequest,
    request: Request,
    workspace: WorkspaceDep,
    owner: OwnerDep,
    validate_only: Annotated[
        bool, Query(description="Check the request and queue nothing.")
    ] = False,
) -> Any:
    """Trainings, sweeps of them, datasets, large rollouts, calibrations, comparisons.

    An Idempotency-Key makes a repetition return the first job. The arrays of a rollout
    may come as npz.
    """
    check_priority(body.schedule, request.state.caller)
    _check_alias(body, request.state.caller)
    key = idempotency_key(request)
    sent = getattr(request.state, "sent", None)
    if isinstance(body, RolloutJob):
        return await _submit_rollout(workspace, body, sent, owner, key, validate_only)
    if sent is not None:
        raise Invalid(
            "kind", found=f"{body.kind!r} with arrays", expected="'rollout', or JSON"
        )
    options: dict[str, Any] = {
        "owner": owner,
        "idempotency_key": key,
        "validate_only": validate_only,
    }
    if isinstance(body, CalibrationJob):
        submitted = workspace.sql(workspace.calibrations.submit, body, **options)
    elif isinstance(body, EvaluationJob):
        submitted = workspace.sql(workspace.evaluations.submit, body, **options)
    elif isinstance(body, SweepJob):
        submitted = workspace.sql(workspace.sweeps.submit, body, **options)
    else:
        planned = functools.partial(plan, body, workspace.datasets, workspace.registry)
        given = (workspace.jobs, body.kind, stored(body), planned)
        submitted = workspace.sql(submit_planned, *given, **options)
    made, replayed = await submitted
    return _queued(made, replayed) if isinstance(made, Job) else _valid(made)


@router.get("/v1/jobs", summary="List jobs")
async def list_jobs(
    workspace: WorkspaceDep,
    paging: PagingDep,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        Query(description="Only jobs in this state."),
    ] = None,
    kind: Annotated[JobKind | None, Query(description="Only of this kind.")] = None,
    parent: Annotated[
        str | None, Query(description="Only the candidates of this sweep.")
    ] = None,
) -> Page[JobOut]:
    """Newest first."""
    page = await workspace.sql(
        workspace.jobs.list, **paging.query, state=state, kind=kind, parent=parent
    )
    return Page(data=[JobOut.of(job) for job in page.items], next=page.next)


@router.get("/v1/jobs/{id}", summary="Look at a job")
async def get_job(
    id: str,
    request: Request,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
    wait: Annotated[
        float,
        Query(ge=0, le=MAX_WAIT_S, description="Wait so many seconds for the end."),
    ] = 0.0,
) -> Any:
    """At once, or when the job has ended or ``wait`` seconds have passed."""
    job = await _ended(gateway, workspace, request, id, wait)
    content = JobOut.of(job).model_dump_json()
    etag = etag_of([content])
    if is_known(request, etag):
        return not_modified(etag)
    headers = {"etag": etag}
    if not job.is_terminal:
        headers["retry-after"] = _RETRY_AFTER_S
    return Response(content, 200, headers, "application/json")


@router.get(
    "/v1/jobs/{id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def get_events(
    id: str,
    request: Request,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
    after: Annotated[
        int,
        Query(ge=0, le=MAX_EVENT_ID, description="Id of the last event that you know."),
    ] = 0,
) -> Response:
    """Server-sent events from the first, or after Last-Event-ID, to the job's end.

    ``event`` is status, log, metrics or checkpoint, and ``data`` the event as JSON.
    After what has happened so far, and whenever it changes, ``progress`` has in
    ``data`` what the record has there; it has no id, since only the newest is kept.
    """
    given = request.headers.get("last-event-id")
    if given is not None:
        if not given.isascii() or not given.isdigit() or len(given) > 18:
            raise Invalid(
                "Last-Event-ID", found=repr(given[:40]), expected="an event's id"
            )
        after = int(given)
    await workspace.sql(workspace.jobs.get, id)
    may_listen = functools.partial(is_admitted_still, gateway, request.scope)
    return StreamingResponse(
        gateway.events.stream(id, after, may_listen),
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        media_type="text/event-stream",
    )


@router.get("/v1/jobs/{id}/history", summary="Read the training history")
async def get_history(
    id: str, workspace: WorkspaceDep
) -> dict[str, list[dict[str, Any]]]:
    """Losses and learning rate by iteration, oldest first."""
    return {"data": await workspace.sql(workspace.jobs.history, id)}


@router.post("/v1/jobs/{id}/cancel", status_code=202, summary="Cancel a job")
async def cancel(id: str, workspace: WorkspaceDep) -> JobOut:
    """A queued one at once; a running one within about two seconds.

    The candidates of a sweep are cancelled with it.
    """
    return JobOut.of(await workspace.sql(workspace.jobs.cancel, id))


@router.post("/v1/jobs/{id}/retry", status_code=202, summary="Retry a job")
async def retry(
    id: str, request: Request, workspace: WorkspaceDep, owner: OwnerDep
) -> JobOut:
    """A failed or cancelled one; what it had reached is used where it can be.

    Of a sweep the candidates that did not succeed are queued again. A repetition under
    the same Idempotency-Key returns the job as it is then.
    """
    key = idempotency_key(request)
    job = await workspace.sql(
        workspace.jobs.retry, id, owner=owner, idempotency_key=key
    )
    return JobOut.of(job)


async def accepted(
    workspace: Workspace,
    kind: str,
    request: dict[str, Any],
    owner: str,
    key: str | None,
) -> Response:
    """Queue a job and say where it is."""
    job, replayed = await workspace.sql(
        workspace.jobs.submit,
        kind,
        request,
        owner=owner,
        idempotency_key=key,
    )
    return _queued(job, replayed)


async def _submit_rollout(
    workspace: Workspace,
    body: RolloutJob,
    sent: Path | None,
    owner: str,
    key: str | None,
    validate_only: bool,
) -> Response:
    if key is not None and not validate_only:
        earlier = await asyncio.to_thread(
            workspace.rollout_jobs.submitted, body, sent, owner, key
        )
        if earlier is not None:
            return _queued(earlier, True)
    served = await workspace.served(body.model)
    # Reads every number that was sent: never in one of the few threads for SQL.
    made, replayed = await asyncio.to_thread(
        workspace.rollout_jobs.submit,
        body,
        served,
        sent,
        owner=owner,
        idempotency_key=key,
        validate_only=validate_only,
    )
    return _queued(made, replayed) if isinstance(made, Job) else _valid(made)


def _check_alias(body: JobRequest, caller: Caller) -> None:
    """Whoever may train may publish; what others roll out is not theirs to change."""
    alias = getattr(body, "alias", None)
    if alias is not None and not caller.allows("models:write"):
        raise Forbidden(
            f"/alias: found {alias!r}, expected none from a key without the scope "
            "'models:write'"
        )


def _valid(kept: dict[str, Any]) -> Response:
    content = Validated(request=kept).model_dump_json()
    return Response(content, 200, None, "application/json")


def _queued(job: Job, replayed: bool) -> Response:
    headers = {"location": f"/v1/jobs/{job.id}", "retry-after": _RETRY_AFTER_S}
    if replayed:
        headers["idempotency-replayed"] = "true"
    return Response(JobOut.of(job).model_dump_json(), 202, headers, "application/json")


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, quoted as the draft has it or bare.

    Raises:
        Invalid: It is empty, too long, or has characters that no key has.
    """
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    key = given.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.match(key):
        raise Invalid(
            "Idempotency-Key",
            found=repr(given[:80]),
            expected="1 to 255 visible characters, such as a UUID",
        )
    return key


async def _ended(
    gateway: Gateway, workspace: Workspace, request: Request, id: str, wait: float
) -> Job:
    """The job when it has ended, or when the time is over.

    Raises:
        Unauthorised: The caller's key was revoked meanwhile.
    """
    end = time.monotonic() + wait
    while True:
        if not await is_admitted_still(gateway, request.scope):
            raise Unauthorised("this API key was revoked or has expired meanwhile")
        job = await workspace.sql(workspace.jobs.get, id)
        left = end - time.monotonic()
        is_over = job.is_terminal or left <= 0 or gateway.stopping
        if is_over or await request.is_disconnected():
            return job
        await asyncio.sleep(min(_LOOK_EVERY_S, left))
