"""/v1/datasets: upload, look, download, delete; or ask for one to be made."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import TypeAdapter

from api.auth import check_priority
from api.bodies import JsonRoute
from api.content_types import media_type, refuse_type
from api.dataset_schemas import DatasetOut, TrajectoryOut
from api.dependencies import Gateway, GatewayDep, OwnerDep, PagingDep, WorkspaceDep
from api.downloads import Content, downloaded
from api.middleware import NPZ
from api.routes.jobs import accepted, idempotency_key
from api.schemas import JobOut, Page
from api.uploads import received
from api.workspace import Workspace
from services.datasets import DatasetRecord
from services.training.request import DatasetRequest, stored
from services.trajectories import read_trajectory

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=JsonRoute)
_JSON = "application/json"
# The content says what a file is; its type only that it is one.
_FILES = frozenset(
    {
        NPZ,
        "application/octet-stream",
        "application/zip",
        "application/x-hdf5",
        "application/x-netcdf",
        "application/x-matlab-data",
        "application/vnd.apache.parquet",
        "text/csv",
    }
)
_MADE = TypeAdapter(DatasetRequest)


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset, or have one made",
    response_model=DatasetOut,
    responses={202: {"model": JobOut, "description": "A job makes it"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                **{
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in sorted(_FILES)
                },
                _JSON: {
                    "schema": {"$ref": "#/components/schemas/DatasetRequest"},
                    "example": {"system": "robertson", "trajectories": 100, "seed": 0},
                },
            },
        }
    },
)
async def upload(
    request: Request,
    response: Response,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
    owner: OwnerDep,
    name: Annotated[
        str | None, Query(min_length=1, max_length=200, description="A label.")
    ] = None,
) -> Any:
    """A file as the body: npz, HDF5, netCDF, Zarr (zip), MATLAB, Parquet or CSV.

    ``curl --data-binary @file.nc -H 'Content-Type: application/octet-stream'``: the
    content says which it is. Arrays by name: ``states (trajectory, time, state)`` and
    ``times``; optionally names, units, time_unit, parameters, parameter_names,
    controls, control_names, mask, lengths. Tables have a row for every sample, in
    columns trajectory, time and the states. JSON asks a job to make a dataset of a
    system. An Idempotency-Key makes a repetition return the first dataset or job.
    """
    kind = media_type(request.headers)
    if kind == _JSON:
        made = _MADE.validate_python(await request.json())
        check_priority(made.schedule, request.state.caller)
        return await accepted(
            workspace,
            "dataset",
            stored(made),
            owner,
            idempotency_key(request),
        )
    if kind and kind not in _FILES:
        refuse_type(kind, f"{_JSON}, or a file: {', '.join(sorted(_FILES))}")
    record, replayed = await _stored(request, gateway, workspace, owner, name)
    response.headers["location"] = f"/v1/datasets/{record.id}"
    if replayed:
        response.headers["idempotency-replayed"] = "true"
    return DatasetOut.of(record)


@router.get("", summary="List datasets")
async def list_datasets(workspace: WorkspaceDep, paging: PagingDep) -> Page[DatasetOut]:
    """Newest first."""
    page = await workspace.sql(workspace.datasets.list, **paging.query)
    return Page(data=[DatasetOut.of(each) for each in page.items], next=page.next)


@router.get("/{id}", summary="Look at a dataset")
async def get_dataset(id: str, workspace: WorkspaceDep) -> DatasetOut:
    """Its summary: counts, ranges, units, what is missing."""
    return DatasetOut.of(await workspace.sql(workspace.datasets.get, id))


@router.get(
    "/{id}/data",
    summary="Download a dataset",
    response_class=Response,
    responses={
        200: {"content": {NPZ: {}}},
        206: {"description": "The range asked for"},
        304: {"description": "You have it already"},
    },
)
async def get_data(
    id: str, request: Request, gateway: GatewayDep, workspace: WorkspaceDep
) -> Response:
    """The dataset as an npz file; its SHA-256 is the ETag."""
    find = partial(workspace.sql, workspace.datasets.get, id)
    record = await find()
    name = f"{record.id}.npz"
    content = Content(record.key, record.digest, record.size_bytes, name, NPZ)
    return await downloaded(request, workspace, gateway.blobs, content, find)


@router.get("/{id}/trajectories/{number}", summary="Read a trajectory")
async def get_trajectory(
    id: str,
    number: Annotated[int, PathParameter(ge=0, le=2**31, description="From 0.")],
    gateway: GatewayDep,
    workspace: WorkspaceDep,
    samples: Annotated[
        int,
        Query(ge=2, le=10_000, description="Most samples, spread evenly over it."),
    ] = 1000,
) -> TrajectoryOut:
    """One trajectory as lists, thinned to what a plot can show."""
    found = await gateway.parsed(
        read_trajectory, workspace.datasets, id, number, samples
    )
    return TrajectoryOut.of(found)


@router.delete("/{id}", status_code=204, summary="Delete a dataset")
async def delete_dataset(id: str, workspace: WorkspaceDep) -> None:
    """Refused while a job uses it."""
    await workspace.in_store(workspace.datasets.delete, id)


async def _stored(
    request: Request,
    gateway: Gateway,
    workspace: Workspace,
    owner: str,
    name: str | None,
) -> tuple[DatasetRecord, bool]:
    """Have the body checked and keep it, or keep nothing."""
    key = idempotency_key(request)
    async with received(request, gateway.settings, gateway.upload_room) as path:
        return await gateway.limited(
            owner,
            workspace.datasets.upload,
            path,
            owner=owner,
            name=name,
            idempotency_key=key,
        )
