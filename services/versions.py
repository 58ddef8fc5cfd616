"""Records of the registry, and how people write which version they mean.

``robertson`` is its champion, ``robertson@alias`` what the alias points at,
``robertson/3`` a version and ``robertson@latest`` the newest.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from services.errors import Invalid
from services.gates import HELD_OUT, finite

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
NAME = re.compile(NAME_PATTERN)
CHAMPION = "champion"
LATEST = "latest"
ARTIFACTS = "artifacts"
Tags = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=100)],
        Annotated[str, Field(max_length=1000)],
    ],
    Field(max_length=64),
]
"""A caller's own words about a model or a job."""
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_NUMBER_LIKE = re.compile(r"^v?[0-9]+$")


@dataclass(frozen=True)
class ModelRecord:
    """A name in the registry."""

    name: str
    owner: str
    project: str
    """Who sees it."""
    description: str
    tags: dict[str, str]
    created_at: datetime
    updated_at: datetime
    etag: str
    """Revision of description and tags, for ``If-Match``."""
    latest: int | None
    aliases: dict[str, int]
    """Alias to number."""


@dataclass(frozen=True)
class VersionRecord:
    """One immutable artifact under a name."""

    model: str
    number: int
    owner: str
    digest: str
    size_bytes: int
    signature: dict[str, Any]
    spec: dict[str, Any]
    card: dict[str, Any]
    evaluation: dict[str, Any]
    certificate: dict[str, Any]
    job_id: str | None
    created_at: datetime

    @property
    def artifact_key(self) -> str:
        """Key of its file in the store."""
        return f"{ARTIFACTS}/{self.digest}"

    @property
    def normalised_rmse(self) -> float | None:
        """Error on held-out trajectories: those for test, or else for validation."""
        parts = (self.evaluation.get(part) for part in HELD_OUT)
        found = next(filter(None, parts), None)
        return finite(found.get("normalised_rmse")) if isinstance(found, dict) else None


@dataclass(frozen=True)
class AliasRecord:
    """Where an alias points."""

    model: str
    alias: str
    number: int
    etag: str
    updated_at: datetime
    warnings: tuple[str, ...] = ()
    """What the gates of ``champion`` noticed without refusing."""


@dataclass(frozen=True)
class AliasMove:
    """One move of an alias; ``number`` is None where it was deleted."""

    alias: str
    number: int | None
    previous: int | None
    moved_by: str
    reason: str
    moved_at: datetime


@dataclass(frozen=True)
class Reference:
    """A version as people write it: one of ``number`` and ``alias`` is set."""

    model: str
    alias: str | None
    number: int | None


def read_reference(text: str, *, field: str = "/model") -> Reference:
    """Read ``name``, ``name@alias``, ``name/number`` or ``name@latest``.

    Raises:
        Invalid: It is none of them.
    """
    name, at, alias = text.partition("@")
    name, slash, number = name.partition("/")
    is_right = (
        NAME.fullmatch(name)
        and not (at and slash)
        and (not at or NAME.fullmatch(alias))
        and (not slash or _NUMBER.fullmatch(number))
    )
    if not is_right:
        raise Invalid(
            field,
            found=repr(text[:200]),
            expected="name, name@alias, name/number or name@latest",
        )
    if slash:
        return Reference(name, None, int(number))
    return Reference(name, alias if at else CHAMPION, None)


def check_name(name: str, *, field: str = "/model") -> str:
    """Return a name that a model may have.

    Raises:
        Invalid: It may not.
    """
    if not NAME.fullmatch(name):
        expected = "lower case letters, digits, - and _, 64 at most"
        raise Invalid(field, found=repr(name[:200]), expected=expected)
    return name


def check_alias(alias: str, *, field: str = "/alias") -> str:
    """Return a name that an alias may have: not ``latest``, nothing like a number.

    Raises:
        Invalid: It may not.
    """
    check_name(alias, field=field)
    if alias == LATEST or _NUMBER_LIKE.match(alias):
        expected = "another word: latest and numbers have a meaning of their own"
        raise Invalid(field, found=repr(alias), expected=expected)
    return alias
