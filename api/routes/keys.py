"""/v1/keys: API keys, for an admin."""

from fastapi import APIRouter, Response

from api.bodies import JsonRoute
from api.dependencies import GatewayDep
from api.schemas import KeyIn, KeyOut, NewKeyOut, Page

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


@router.post("", status_code=201, summary="Make a key")
async def create(body: KeyIn, gateway: GatewayDep, response: Response) -> NewKeyOut:
    """The secret is in this answer and never shown again."""
    secret, key = await gateway.sql(gateway.keys.create, body.name, body.scopes)
    response.headers["cache-control"] = "no-store"
    return NewKeyOut(secret=secret, **KeyOut.of(key).model_dump())


@router.get("", summary="List keys")
async def list_keys(gateway: GatewayDep) -> Page[KeyOut]:
    """Every key without its secret, revoked ones included, oldest first."""
    keys = await gateway.sql(gateway.keys.list)
    return Page(data=[KeyOut.of(key) for key in keys])


@router.delete("/{id}", summary="Revoke a key")
async def revoke(id: str, gateway: GatewayDep) -> KeyOut:
    """Takes effect here at once, in other gateways within seconds."""
    return KeyOut.of(await gateway.sql(gateway.keys.revoke, id))
