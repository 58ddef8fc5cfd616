"""Who may do what: keys by Bearer, X-API-Key or Basic, checked before a body is read.

Basic, with the key as the password, is all that unmodified UM-Bridge and Tesseract
clients can send. Which scope a request needs stands in one table below.
"""

import asyncio
import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import Scope

from api.dependencies import Gateway
from services.errors import Forbidden, Unauthorised, Unavailable
from services.keys import SCOPES, Key
from services.projects import DEFAULT, Access
from services.schedule import Schedule

OPEN = re.compile(r"^/((v2/)?health/(live|ready)|docs|openapi\.json|page/.*)?$")
"""What needs no key."""

SCOPE_OF: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("*", re.compile(r"^/v1/(keys|audit)(/|$)"), "admin"),
    ("GET", re.compile(r"^/metrics$"), "metrics"),
    ("POST", re.compile(r"^(/v1)?/rollout(/|$)|^/v1/objective$"), "rollout"),
    ("POST", re.compile(r"^/v1/systems/"), "rollout"),
    ("POST", re.compile(r"^/v2/repository/index$"), "read"),
    ("POST", re.compile(r"^/(umbridge|v2|tesseract)(/|$)"), "rollout"),
    ("*", re.compile(r"^(/v1)?/jobs(/|$)"), "jobs:write"),
    ("*", re.compile(r"^/v1/datasets(/|$)"), "datasets:write"),
    ("*", re.compile(r"^/v1/models(/|$)"), "models:write"),
)
"""Method (``*``: all that write), path and scope; every other request is ``read``."""

READS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
METRICS = "/metrics"
_METRICS_WAIT_S = 2.0
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Caller(NamedTuple):
    """Who sent a request."""

    id: str
    scopes: tuple[str, ...]
    project: str = DEFAULT

    @property
    def access(self) -> Access:
        """What it sees: its project; an administrator all of them."""
        return Access(self.project, sees_all="admin" in self.scopes)

    def allows(self, scope: str) -> bool:
        """Whether the caller has a scope; ``admin`` has every one."""
        return scope in self.scopes or "admin" in self.scopes


LOOPBACK = Caller("loopback", SCOPES)


def needed_scope(method: str, path: str) -> str:
    """The scope that a request needs; HEAD tells what GET does, but for the body."""
    method = "GET" if method == "HEAD" else method
    for verb, pattern, scope in SCOPE_OF:
        if pattern.match(path) and (
            verb == method
            or (verb == "*" and (method not in READS or scope == "admin"))
        ):
            return scope
    return "read"


async def admitted(
    gateway: Gateway, scope: Scope, headers: Mapping[str, str]
) -> Caller:
    """Who sent a request, kept in the request's state with what it works with.

    Args:
        gateway: The services, which know the keys.
        scope: The request.
        headers: Its headers.

    Raises:
        Unauthorised: There is no key, or none that is known.
    """
    caller = await _caller(gateway, scope, headers)
    scope["state"]["caller"] = caller
    scope["state"]["workspace"] = gateway.workspace(caller.access)
    return caller


def check_scope(caller: Caller, wanted: str) -> None:
    """Refuse who lacks a scope.

    Raises:
        Forbidden: It does.
    """
    if not caller.allows(wanted):
        raise Forbidden(
            f"this key has the scopes {', '.join(caller.scopes)} and lacks {wanted!r}"
        )


async def is_admitted_still(gateway: Gateway, scope: Scope) -> bool:
    """Whether the key of a request that was admitted is valid yet.

    Raises:
        Unavailable: The database does not answer.
    """
    try:
        await _caller(gateway, scope, scope["state"]["headers"])
    except Unauthorised:
        return False
    return True


async def _caller(gateway: Gateway, scope: Scope, headers: Mapping[str, str]) -> Caller:
    secret = secret_in(headers)
    if secret is None:
        if gateway.settings.loopback_open and _is_loopback(scope, headers):
            return LOOPBACK
        raise Unauthorised(
            "no API key: send it as `Authorization: Bearer <key>`, as `X-API-Key`, "
            "or as the password of Basic"
        )
    known = gateway.keys.cached(secret)
    key = known or await _verified(gateway, scope["path"], secret)
    if key is None:
        raise Unauthorised("this API key is unknown, revoked or has expired")
    return Caller(f"key:{key.id}", key.scopes, key.project)


async def _verified(gateway: Gateway, path: str, secret: str) -> Key | None:
    """The valid key of a secret.

    Who watches the service is told of a database that is away: for metrics the key
    that was valid minutes ago will do, at once where the database hangs.
    """
    seen = gateway.keys.seen(secret) if path == METRICS else None
    if seen is None or not seen.allows("metrics"):
        return await gateway.verified(secret)
    try:
        async with asyncio.timeout(_METRICS_WAIT_S):
            return await gateway.verified(secret)
    except (TimeoutError, Unavailable):
        return seen


def check_priority(schedule: Schedule, caller: Caller) -> None:
    """Everybody may stand back; before others only an administrator may step.

    Raises:
        Forbidden: The caller is none.
    """
    if schedule.priority > 0 and not caller.allows("admin"):
        raise Forbidden(
            f"/schedule/priority: found {schedule.priority}, expected at most 0 "
            "from a key without the scope 'admin'"
        )


def secret_in(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries, or None.

    Raises:
        Unauthorised: The Authorization header is of no known form.
    """
    direct = headers.get("x-api-key")
    if direct is not None:
        return direct.strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "":
            return None
        case "bearer":
            return value.strip()
        case "basic":
            return _password(value)
    raise Unauthorised(f"Authorization {scheme!r} is not Bearer or Basic")


def _password(value: str) -> str:
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode()
    except ValueError as error:
        raise Unauthorised("Basic credentials are not base64 of user:key") from error
    user, _, password = pair.partition(":")
    return password or user


def _is_loopback(scope: Scope, headers: Mapping[str, str]) -> bool:
    client = scope.get("client")
    # The Host check keeps a web page elsewhere from reaching us by DNS rebinding.
    named = headers.get("host", "").lower()
    host = re.sub(r":\d+$", "", named)
    if not client or host not in _LOOPBACK_HOSTS or "x-forwarded-for" in headers:
        return False
    # And this one, a page elsewhere that sends a form or plain text to this machine.
    origin = headers.get("origin", "").lower()
    if origin and origin != f"http://{named}":
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
