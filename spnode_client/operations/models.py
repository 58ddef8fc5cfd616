"""Operations on the registry: ``/v1/models``."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from spnode_client.calls import Call, Operation, delete, json_call, once, perform
from spnode_client.errors import Conflict, NotFound
from spnode_client.records import ModelVersion, Record

_PLOT = re.compile("[a-z][a-z0-9_]{0,39}")
# Of a change that others may have come before.
_TRIES = 5


def split_reference(reference: str) -> tuple[str, str]:
    """``robertson``, ``robertson@alias`` or ``robertson/3`` as name and version."""
    if "@" in reference:
        name, _, version = reference.partition("@")
    elif "/" in reference:
        name, _, version = reference.partition("/")
    else:
        name, version = reference, "champion"
    return name, version


def page(query: Record, retries: int) -> Operation[Record]:
    """One page of models as the service gives it."""
    reply = yield from perform(Call("GET", "/v1/models", query), retries)
    return reply.json()


def get(name: str, retries: int) -> Operation[Record]:
    """A model with its versions and aliases."""
    reply = yield from perform(Call("GET", f"/v1/models/{quote(name)}"), retries)
    return reply.json()


def versions(name: str, query: Record, retries: int) -> Operation[Record]:
    """One page of a model's versions, newest first, as the service gives it."""
    call = Call("GET", f"/v1/models/{quote(name)}/versions", query)
    reply = yield from perform(call, retries)
    return reply.json()


def version(reference: str, retries: int) -> Operation[ModelVersion]:
    """The version that a name, an alias or a number stands for."""
    reply = yield from perform(Call("GET", _version_path(reference)), retries)
    return ModelVersion.of(reply.json())


def part(reference: str, name: str, retries: int) -> Operation[Record]:
    """A version's ``card``, ``certificate`` or ``evaluation``."""
    reply = yield from perform(
        Call("GET", f"{_version_path(reference)}/{name}"), retries
    )
    return reply.json()


def artifact(reference: str, path: str | Path, retries: int) -> Operation[Path]:
    """Write a version's artifact to ``path``."""
    call = Call(
        "GET", f"{_version_path(reference)}/artifact", save_to=Path(path), timeout_s=600
    )
    yield from perform(call, retries)
    return Path(path)


def plots(reference: str, retries: int) -> Operation[dict[str, bytes]]:
    """The pictures of a version's training, PNG by name."""
    base = _version_path(reference)
    card = yield from part(reference, "card", retries)
    found = {}
    # A card may come from anybody, and names become names of files.
    named = card.get("plots")
    named = named if isinstance(named, list) else []
    for name in filter(_PLOT.fullmatch, map(str, named)):
        reply = yield from perform(Call("GET", f"{base}/plots/{name}"), retries)
        found[name] = reply.content
    return found


def register(name: str, path: str | Path, retries: int) -> Operation[ModelVersion]:
    """Register an artifact that was made elsewhere, once whatever is tried again."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    headers = {"content-type": "application/zip"}
    place = f"/v1/models/{quote(name)}/versions"
    call = Call("POST", place, headers=headers, content=path, timeout_s=600)
    reply = yield from perform(once(call), retries)
    return ModelVersion.of(reply.json())


def set_alias(
    name: str,
    alias: str,
    number: int,
    if_match: str | None,
    retries: int,
    override: str | None = None,
) -> Operation[Record]:
    """Point an alias at a version; without ``if_match``, wherever it points now."""
    path = _alias_path(name, alias)
    if if_match is None:
        try:
            seen = yield from perform(Call("GET", path), retries)
            if_match = seen.headers["etag"]
        except NotFound:
            if_match = None
    headers = {} if if_match is None else {"if-match": if_match}
    reason = {} if override is None else {"override": override}
    call = json_call("PUT", path, {"version": number, **reason}, headers=headers)
    try:
        reply = yield from perform(call, retries)
    except Conflict as error:
        if not (error.status in (412, 428) and error.is_doubtful):
            raise
        # An earlier try may have moved it, and so have changed its ETag, or made it.
        reply = yield from perform(Call("GET", path), retries)
        if reply.json().get("number") != number:
            raise error from None
    return reply.json()


def alias_history(name: str, alias: str, retries: int) -> Operation[list[Record]]:
    """Every move of an alias, newest first; that of a deleted one too."""
    call = Call("GET", f"{_alias_path(name, alias)}/history")
    reply = yield from perform(call, retries)
    return reply.json()["data"]


def delete_alias(
    name: str, alias: str, if_match: str | None, retries: int
) -> Operation[None]:
    """Delete an alias; without ``if_match``, wherever it points."""
    headers = {"if-match": if_match or "*"}
    call = Call("DELETE", _alias_path(name, alias), headers=headers)
    yield from delete(call, retries)


def describe(name: str, changes: Record, retries: int) -> Operation[Record]:
    """Change a model's description or tags; what is None stays."""
    body = {field: value for field, value in changes.items() if value is not None}
    call = json_call("PATCH", f"/v1/models/{quote(name)}", body)
    reply = yield from perform(call, retries)
    return reply.json()


def tag(
    name: str,
    changes: Mapping[str, str | None],
    description: str | None,
    retries: int,
) -> Operation[Record]:
    """Change some tags beside the others, whoever else changes some meanwhile."""
    path = f"/v1/models/{quote(name)}"
    for left in reversed(range(_TRIES)):
        seen = yield from perform(Call("GET", path), retries)
        tags = {**seen.json().get("tags", {}), **changes}
        body: Record = {
            "tags": {key: tags[key] for key in tags if tags[key] is not None}
        }
        if description is not None:
            body["description"] = description
        headers = {"if-match": seen.headers["etag"]}
        try:
            call = json_call("PATCH", path, body, headers=headers)
            reply = yield from perform(call, retries)
        except Conflict as error:
            if error.status != 412 or not left:
                raise
        else:
            return reply.json()
    raise AssertionError("the last try returns or raises")


def delete_version(reference: str, retries: int) -> Operation[None]:
    """Remove a version that no alias points at."""
    yield from delete(Call("DELETE", _version_path(reference)), retries)


def _version_path(reference: str) -> str:
    name, number = split_reference(reference)
    return f"/v1/models/{quote(name)}/versions/{quote(number)}"


def _alias_path(name: str, alias: str) -> str:
    return f"/v1/models/{quote(name)}/aliases/{quote(alias)}"
