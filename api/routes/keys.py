"""/v1/keys: API keys, for an admin."""

from fastapi import APIRouter, Response

from api.bodies import JsonRoute
from api.dependencies import GatewayDep
from api.schemas import KeyIn, KeyOut, NewKeyOut, Page, RotationIn
from services.keys import Key

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


@router.post("", status_code=201, summary="Make a key")
async def create(body: KeyIn, gateway: GatewayDep, response: Response) -> NewKeyOut:
    """The secret is in this answer and never shown again."""
    secret, key = await gateway.sql(
        gateway.keys.create,
        body.name,
        body.scopes,
        project=body.project,
        seconds=body.expires_in_seconds,
    )
    return _shown_once(secret, key, response)


@router.get("", summary="List keys")
async def list_keys(gateway: GatewayDep) -> Page[KeyOut]:
    """Every key without its secret, invalid ones included, oldest first."""
    keys = await gateway.sql(gateway.keys.list)
    return Page(data=[KeyOut.of(key) for key in keys])


@router.delete("/{id}", summary="Revoke a key")
async def revoke(id: str, gateway: GatewayDep) -> KeyOut:
    """Takes effect here at once, in other gateways within a second."""
    return KeyOut.of(await gateway.sql(gateway.keys.revoke, id))


@router.post("/{id}/rotate", status_code=201, summary="Rotate a key")
async def rotate(
    id: str, body: RotationIn, gateway: GatewayDep, response: Response
) -> NewKeyOut:
    """One of the same name, scopes, project and lifetime; the old one ends later."""
    secret, key = await gateway.sql(
        gateway.keys.rotate, id, keep_seconds=body.keep_seconds
    )
    return _shown_once(secret, key, response)


def _shown_once(secret: str, key: Key, response: Response) -> NewKeyOut:
    response.headers["cache-control"] = "no-store"
    response.headers["location"] = f"/v1/keys/{key.id}"
    return NewKeyOut(secret=secret, **KeyOut.of(key).model_dump())
