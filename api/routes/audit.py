"""/v1/audit: who changed what, for an admin."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.bodies import JsonRoute
from api.dependencies import GatewayDep, PagingDep
from api.schemas import ActOut, Page

router = APIRouter(prefix="/v1/audit", tags=["keys"], route_class=JsonRoute)


CallerQuery = Annotated[str | None, Query(max_length=200, description="`key:<id>`.")]
Acts = Page[ActOut]


@router.get("", summary="List what was done")
async def list_acts(
    gateway: GatewayDep, paging: PagingDep, caller: CallerQuery = None
) -> Acts:
    """Each request that may change something, and its answer's status; newest first."""
    page = await gateway.sql(gateway.audit.list, caller=caller, **paging.query)
    return Acts(data=[ActOut.of(each) for each in page.items], next=page.next)
