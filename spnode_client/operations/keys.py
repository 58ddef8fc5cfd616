"""Operations on API keys: ``/v1/keys``, for an admin's key."""

from urllib.parse import quote

from spnode_client.calls import Call, Operation, json_call, perform
from spnode_client.errors import ProblemError, Unreachable, problem_error
from spnode_client.records import Record

_PERHAPS = (
    "the key may have been made, and nobody has its secret: see the list of keys, and "
    "revoke it"
)


def create(body: Record, retries: int) -> Operation[Record]:
    """Make a key; its secret is in this answer and never again."""
    return (yield from _made(json_call("POST", "/v1/keys", body), retries))


def rotate(key_id: str, keep_seconds: float, retries: int) -> Operation[Record]:
    """Make a key in the place of another; its secret is in this answer only."""
    path = f"/v1/keys/{quote(key_id)}/rotate"
    call = json_call("POST", path, {"keep_seconds": keep_seconds})
    return (yield from _made(call, retries))


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


def _made(call: Call, retries: int) -> Operation[Record]:
    """Have a key made, once: its secret is in no second answer.

    Raises:
        Unreachable: No answer came; the key may have been made.
        ProblemError: The service refused, or failed: it may have been made then, too.
    """
    try:
        reply = yield from perform(call, retries, is_repeatable=False)
    except Unreachable as error:
        raise Unreachable(f"{error}; {_PERHAPS}") from error
    except ProblemError as error:
        if error.status < 500:
            raise
        problem = {**error.problem, "detail": f"{error.detail}; {_PERHAPS}"}
        raise problem_error(error.status, problem, error.retry_after) from error
    return reply.json()
