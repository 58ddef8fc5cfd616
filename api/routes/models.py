"""/v1/models: the registry. A version is named by number, alias, or ``latest``."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response

from api.bodies import JsonRoute
from api.conditional import is_known, not_modified
from api.dependencies import Gateway, GatewayDep, OwnerDep, PagingDep, WorkspaceDep
from api.downloads import IMMUTABLE, Content, downloaded
from api.schemas import (
    AliasMoveIn,
    AliasMoveOut,
    AliasOut,
    ModelDetail,
    ModelOut,
    ModelPatch,
    Page,
    VersionOut,
    VersionSummary,
)
from api.workspace import Workspace
from services.errors import NotFound
from services.versions import VersionRecord
from services.work_folder import working
from spnode_core.artifact_file import PLOT_NAME, read_plots
from spnode_core.errors import ArtifactError

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=JsonRoute)
IfMatch = Annotated[
    str | None, Header(description="The ETag as you saw it, or * for whatever it is.")
]
PlotName = Annotated[str, Path(pattern=f"^{PLOT_NAME}$")]


@router.get("", summary="List models")
async def list_models(workspace: WorkspaceDep, paging: PagingDep) -> Page[ModelOut]:
    """Newest first."""
    page = await workspace.sql(workspace.registry.models, **paging.query)
    return Page(data=[ModelOut.of(each) for each in page.items], next=page.next)


@router.get("/{name}", summary="Look at a model")
async def get_model(
    name: str, request: Request, response: Response, workspace: WorkspaceDep
) -> ModelDetail:
    """Its aliases and its newest versions; the ETag is for PATCH."""
    record = await workspace.sql(workspace.registry.model, name)
    versions = await workspace.sql(workspace.registry.versions, name, limit=100)
    response.headers["etag"] = record.etag
    return ModelDetail(
        **ModelOut.of(record).model_dump(),
        versions=[VersionSummary.of(each) for each in versions.items],
    )


@router.patch("/{name}", summary="Change description or tags")
async def patch_model(
    name: str,
    body: ModelPatch,
    response: Response,
    workspace: WorkspaceDep,
    if_match: IfMatch = None,
) -> ModelOut:
    """What is left out stays as it is."""
    record = await workspace.sql(
        workspace.registry.patch,
        name,
        description=body.description,
        tags=body.tags,
        if_match=if_match,
    )
    response.headers["etag"] = record.etag
    return ModelOut.of(record)


@router.get("/{name}/versions", summary="List versions")
async def list_versions(
    name: str, workspace: WorkspaceDep, paging: PagingDep
) -> Page[VersionSummary]:
    """Newest first."""
    page = await workspace.sql(workspace.registry.versions, name, **paging.query)
    return Page(data=[VersionSummary.of(each) for each in page.items], next=page.next)


@router.get("/{name}/versions/{version}", summary="Look at a version")
async def get_version(
    name: str, version: str, response: Response, workspace: WorkspaceDep
) -> VersionOut:
    """What it accepts, how it was built, how good it is."""
    record = await _version(workspace, name, version)
    response.headers["etag"] = f'"{record.digest}"'
    return VersionOut.of(record)


@router.delete(
    "/{name}/versions/{version}", status_code=204, summary="Delete a version"
)
async def delete_version(
    name: str, version: str, gateway: GatewayDep, workspace: WorkspaceDep
) -> None:
    """Refused while an alias points at it; its number is never given again."""
    record = await _version(workspace, name, version)
    await workspace.in_store(workspace.registry.delete_version, name, record.number)
    gateway.forget_references()


@router.get("/{name}/versions/{version}/card", summary="Read the model card")
async def get_card(name: str, version: str, workspace: WorkspaceDep) -> dict[str, Any]:
    """Lineage, choices and their reasons, errors, platform."""
    return (await _version(workspace, name, version)).card


@router.get("/{name}/versions/{version}/certificate", summary="Read the certificate")
async def get_certificate(
    name: str, version: str, workspace: WorkspaceDep
) -> dict[str, Any]:
    """What is proved about the version, with its assumptions."""
    return (await _version(workspace, name, version)).certificate


@router.get("/{name}/versions/{version}/evaluation", summary="Read the errors")
async def get_evaluation(
    name: str, version: str, workspace: WorkspaceDep
) -> dict[str, Any]:
    """Errors on the training, validation and test parts of the data."""
    return (await _version(workspace, name, version)).evaluation


@router.get(
    "/{name}/versions/{version}/artifact",
    summary="Download the artifact",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}},
        206: {"description": "The range asked for"},
        304: {"description": "You have it already"},
    },
)
async def get_artifact(
    name: str,
    version: str,
    request: Request,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
) -> Response:
    """The file that ``spnode_core.load`` reads; its SHA-256 is the ETag."""
    find = partial(_version, workspace, name, version)
    record = await find()
    content = Content(
        record.artifact_key,
        record.digest,
        record.size_bytes,
        f"{record.model}-{record.number}.spnode",
        "application/zip",
    )
    return await downloaded(request, workspace, gateway.blobs, content, find)


@router.get(
    "/{name}/versions/{version}/plots/{plot}",
    summary="Look at a picture of the training",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}},
        304: {"description": "You have it already"},
    },
)
async def get_plot(
    name: str,
    version: str,
    plot: PlotName,
    request: Request,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
) -> Response:
    """One of those that the card lists as ``plots``: PNG, drawn by the worker.

    ``loss``, ``errors`` over time, ``spectrum`` of A, held-out ``trajectories`` against
    the reference.
    """
    record = await _version(workspace, name, version)
    # The card may come with an artifact that was made elsewhere.
    drawn = record.card.get("plots")
    drawn = drawn if isinstance(drawn, list) else []
    if plot not in drawn:
        known = ", ".join(map(str, drawn)) or "none"
        hint = f"{record.model}/{record.number} has {known}"
        raise NotFound("plot", plot, hint=hint)
    etag = f'"{record.digest}-{plot}"'
    if is_known(request, etag):
        return not_modified(etag)
    content = await gateway.parsed(_plot, gateway, record, plot)
    return Response(
        content,
        media_type="image/png",
        headers={
            "etag": etag,
            "cache-control": IMMUTABLE,
            "x-content-type-options": "nosniff",
        },
    )


@router.get("/{name}/aliases/{alias}", summary="Where an alias points")
async def get_alias(
    name: str, alias: str, response: Response, workspace: WorkspaceDep
) -> AliasOut:
    """The ETag is for moving it."""
    record = await workspace.sql(workspace.registry.aliases.get, name, alias)
    response.headers["etag"] = record.etag
    return AliasOut.of(record)


@router.put("/{name}/aliases/{alias}", summary="Point an alias at a version")
async def set_alias(
    name: str,
    alias: str,
    body: AliasMoveIn,
    response: Response,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
    owner: OwnerDep,
    if_match: IfMatch = None,
) -> AliasOut:
    """One atomic move, kept in the history; If-Match is needed where it exists.

    ``champion`` refuses a version whose evaluation or certificate fails, unless
    ``override`` gives a reason.
    """
    record = await workspace.sql(
        workspace.registry.aliases.set,
        name,
        alias,
        body.version,
        moved_by=owner,
        if_match=if_match,
        override=body.override,
    )
    gateway.forget_references()
    response.headers["etag"] = record.etag
    return AliasOut.of(record)


@router.delete("/{name}/aliases/{alias}", status_code=204, summary="Delete an alias")
async def delete_alias(
    name: str,
    alias: str,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
    owner: OwnerDep,
    if_match: IfMatch = None,
) -> None:
    """Its history stays."""
    await workspace.sql(
        workspace.registry.aliases.delete,
        name,
        alias,
        moved_by=owner,
        if_match=if_match,
    )
    gateway.forget_references()


@router.get("/{name}/aliases/{alias}/history", summary="Every move of an alias")
async def alias_history(
    name: str, alias: str, workspace: WorkspaceDep
) -> Page[AliasMoveOut]:
    """Newest first."""
    moves = await workspace.sql(workspace.registry.aliases.history, name, alias)
    return Page(data=[AliasMoveOut.of(move) for move in moves])


def _plot(gateway: Gateway, record: VersionRecord, plot: str) -> bytes:
    with working(gateway.settings, "plots") as folder:
        gateway.blobs.download(record.artifact_key, folder / "artifact")
        try:
            return read_plots(folder / "artifact")[plot]
        except (ArtifactError, KeyError) as error:
            raise NotFound("plot", plot, hint="its artifact has none") from error


async def _version(workspace: Workspace, name: str, version: str) -> VersionRecord:
    separator = "/" if version.isdigit() else "@"
    return await workspace.sql(
        workspace.registry.resolve, f"{name}{separator}{version}", field="version"
    )
