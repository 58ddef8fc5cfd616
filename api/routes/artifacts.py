"""POST /v1/models/{name}/versions: register an artifact that was made elsewhere."""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import IntegrityError

from api.content_types import media_type, refuse_type
from api.dependencies import Gateway, GatewayDep, OwnerDep, WorkspaceDep
from api.routes.jobs import idempotency_key
from api.schemas import VersionOut
from api.uploads import received
from api.workspace import Workspace
from services.blobs import Damaged
from services.database.idempotency import (
    Asked,
    made_under,
    remember,
    request_digest,
)
from services.database.tables import instant
from services.errors import Gone, Invalid, NotFound
from services.rollouts.work import Work
from services.texts import check_storable
from services.versions import ARTIFACTS, VersionRecord, check_name
from spnode_core.artifact_file import file_digest, read_card, read_spec
from spnode_core.errors import ArtifactError
from spnode_core.spec import ArtifactSpec, Signature

router = APIRouter(prefix="/v1/models", tags=["models"])
_FILES = frozenset({"", "application/zip", "application/octet-stream"})
_TRIAL_S = 60.0
_VERSION = "version"


@router.post(
    "/{name}/versions",
    status_code=201,
    summary="Register an artifact made elsewhere",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/zip": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def upload(
    name: str,
    request: Request,
    response: Response,
    gateway: GatewayDep,
    workspace: WorkspaceDep,
    owner: OwnerDep,
) -> VersionOut:
    """The file that ``spnode_core.save`` wrote, as the body.

    It is rolled out once before it is registered. What its card claims stays in the
    card: the gates of ``champion`` count only what this service has evaluated, so such
    a version needs ``override`` to become champion. An Idempotency-Key makes a
    repetition return the first version.
    """
    kind = media_type(request.headers)
    if kind not in _FILES:
        refuse_type(kind, "application/zip")
    check_name(name, field="name")
    key = idempotency_key(request)
    async with received(request, gateway.settings, gateway.upload_room) as path:
        asked = None
        if key is not None:
            digest = await asyncio.to_thread(file_digest, path)
            same = request_digest({"model": name, "content": digest})
            asked = Asked(owner, key, same)
        record = await workspace.sql(_made_before, workspace, name, asked)
        if record is not None:
            response.headers["idempotency-replayed"] = "true"
        else:
            record = await _registered(gateway, workspace, name, path, owner, asked)
    response.headers["location"] = f"/v1/models/{name}/versions/{record.number}"
    return VersionOut.of(record)


async def _registered(
    gateway: Gateway,
    workspace: Workspace,
    name: str,
    path: Path,
    owner: str,
    asked: Asked | None,
) -> VersionRecord:
    try:
        spec, card = await gateway.limited(
            owner, lambda: (read_spec(path), read_card(path))
        )
    except ArtifactError as error:
        raise _refused(str(error)) from error
    _check_states(len(spec.signature.states), gateway.settings.max_states)
    check_storable(card, place="/card.json")
    check_storable(spec.model_dump(), place="/spec.json")
    digest = await asyncio.to_thread(gateway.blobs.put_content, ARTIFACTS, path)
    try:
        await _try_out(gateway, digest, spec.signature)
        size = path.stat().st_size
        made = (workspace, name, owner, digest, size, spec, card, asked)
        try:
            return await workspace.in_store(_publish, *made)
        except IntegrityError:
            # Another one used the same key between our look and our insert.
            earlier = await workspace.sql(_made_before, workspace, name, asked)
            if earlier is None:
                raise
            return earlier
    except BaseException as error:
        await workspace.in_store(workspace.registry.drop_artifact, digest)
        if isinstance(error, Damaged):
            raise _refused(error.message) from error
        raise


async def _try_out(gateway: Gateway, digest: str, signature: Signature) -> None:
    """Roll out once from the middle of the domain, which loads and verifies it."""
    domain = signature.domain
    middle = {
        "x0": (domain.lower, domain.upper),
        "parameters": (domain.parameters_lower, domain.parameters_upper),
        "controls": (domain.controls_lower, domain.controls_upper),
    }
    rows = {
        name: (np.array([lower]) + np.array([upper])) / 2
        for name, (lower, upper) in middle.items()
        if lower
    }
    shared = {"times": np.array([domain.end])}
    if "controls" in rows:
        rows["controls"] = rows["controls"][:, None]
        shared["control_times"] = np.zeros(1)
    work = Work("rollout", digest, rows, shared, 1)
    results = await gateway.batcher.run(work, deadline=time.monotonic() + _TRIAL_S)
    if not np.isfinite(results["x"]).all():
        raise _refused("a surrogate whose rollout is not finite")


def _made_before(
    workspace: Workspace, name: str, asked: Asked | None
) -> VersionRecord | None:
    """The version that was registered under a key, if there is one.

    Raises:
        Gone: It has been deleted.
        Invalid: The key was used for another request.
    """
    if asked is None:
        return None
    registry = workspace.registry
    with registry.database.reading() as connection:
        made = made_under(connection, asked, instant(registry.clock()))
    if made is None:
        return None
    number = int(made.removeprefix(_VERSION))
    try:
        return registry.version(name, number)
    except NotFound as error:
        raise Gone(
            f"version {number} of {name!r}, which was registered under this "
            "Idempotency-Key, has been deleted; register it again under a new key",
            code="version_deleted",
        ) from error


def _publish(
    workspace: Workspace,
    name: str,
    owner: str,
    digest: str,
    size: int,
    spec: ArtifactSpec,
    card: dict[str, Any],
    asked: Asked | None,
) -> VersionRecord:
    registry = workspace.registry
    with registry.database.transaction() as connection:
        number = registry.publish(
            connection,
            name,
            owner=owner,
            digest=digest,
            size_bytes=size,
            signature=spec.signature.model_dump(mode="json"),
            spec=spec.surrogate.model_dump(mode="json"),
            card=card,
            evaluation={},
            certificate={},
        )
        if asked is not None:
            now = instant(registry.clock())
            remember(connection, asked, f"{_VERSION} {number}", now)
    return registry.version(name, number)


def _check_states(count: int, most: int) -> None:
    """Refuse more states than ``max_states``: rollouts grow with them.

    Raises:
        Invalid: There are more.
    """
    if count > most:
        raise Invalid(
            "/spec.json/signature/states",
            found=f"{count} states",
            expected=f"at most {most} (SPNODE_MAX_STATES)",
            code="invalid_artifact",
        )


def _refused(found: str) -> Invalid:
    return Invalid(
        "file",
        found=found,
        expected="an artifact as spnode_core.save writes it",
        code="invalid_artifact",
    )
