"""Operations on API keys: ``/v1/keys``, for an admin's key."""

from urllib.parse import quote

from spnode_client.calls import Call, Operation, json_call, once, perform
from spnode_client.records import Record


def create(body: Record, retries: int) -> Operation[Record]:
    """Make a key; its secret is in this answer and never again."""
    call = json_call("POST", "/v1/keys", body)
    reply = yield from perform(once(call), retries)
    return reply.json()


def rotate(key_id: str, keep_seconds: float, retries: int) -> Operation[Record]:
    """Make a key in the place of another; its secret is in this answer only."""
    path = f"/v1/keys/{quote(key_id)}/rotate"
    call = json_call("POST", path, {"keep_seconds": keep_seconds})
    reply = yield from perform(once(call), retries)
    return reply.json()


def page(retries: int) -> Operation[Record]:
    """The keys, without their secrets."""
    reply = yield from perform(Call("GET", "/v1/keys"), retries)
    return reply.json()


def acts(query: Record, retries: int) -> Operation[Record]:
    """One page of what callers did, newest first."""
    reply = yield from perform(Call("GET", "/v1/audit", query), retries)
    return reply.json()


def revoke(key_id: str, retries: int) -> Operation[None]:
    """Make a key useless."""
    yield from perform(Call("DELETE", f"/v1/keys/{quote(key_id)}"), retries)
