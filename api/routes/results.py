"""/v1/jobs/{id}/result: what a rollout job made, chunk by chunk."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.conditional import is_known, not_modified
from api.dependencies import GatewayDep, WorkspaceDep
from api.downloads import Content, downloaded
from api.middleware import NPZ
from api.result_schemas import ResultOut
from services.results import index_digest

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get(
    "/{id}/result",
    summary="Read what a rollout job made",
    response_model=ResultOut,
    responses={304: {"description": "You have it already"}},
)
async def get_result(
    id: str,
    request: Request,
    response: Response,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
) -> object:
    """Its shape, states and times, and the chunks that hold the rows.

    409 until the job has succeeded, 410 when the result has been deleted.
    """
    job = await workspace.sql(workspace.jobs.get, id)
    etag = f'"{index_digest(job)}"'
    if is_known(request, etag):
        return not_modified(etag)
    response.headers["etag"] = etag
    return await workspace.in_store(gateway.results.index, job)


@router.get(
    "/{id}/result/{number}",
    summary="Download a chunk of a result",
    response_class=Response,
    responses={
        200: {"content": {NPZ: {}}},
        206: {"description": "The range asked for"},
        304: {"description": "You have it already"},
    },
)
async def get_chunk(
    id: str,
    number: Annotated[int, Path(ge=0, lt=2**31, description="Counted from 0.")],
    request: Request,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
) -> Response:
    """An npz file; its SHA-256 is the ETag.

    Arrays: `x`, `times`, `start` (the first row), `inside` (by row: whether it lies in
    the training domain), `failed` and `failed_times` (rows that left the finite range,
    and when), `z` and `outside` where they were asked for.
    """
    job = await workspace.sql(workspace.jobs.get, id)
    find = partial(workspace.sql, gateway.results.chunk, job, number)
    chunk = await find()
    name = f"{id}-{number:06d}.npz"
    content = Content(chunk.key(id), chunk.digest, chunk.size_bytes, name, NPZ)
    return await downloaded(request, workspace, gateway.blobs, content, find)


@router.delete("/{id}/result", status_code=204, summary="Delete what a job made")
async def delete_result(id: str, gateway: GatewayDep, workspace: WorkspaceDep) -> None:
    """The result and the inputs of a rollout job that has ended, at once."""
    job = await workspace.sql(workspace.jobs.get, id)
    await workspace.in_store(gateway.results.drop, job.id)
