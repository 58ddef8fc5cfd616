"""API keys: ``spn_<id>_<secret>``, shown once and kept as a digest.

A secret has 256 random bits, so a plain SHA-256 is enough to keep it by. A verified key
is believed for a second without asking the database; revoking it in this process takes
effect at once. A key is rotated by another that takes its place; the old one has an end
then, and may be used until it.
"""

import contextlib
import hmac
import math
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant
from services.errors import Conflict, Invalid, NotFound, Unavailable
from services.identity import encode, sha256
from services.projects import DEFAULT, check_project

SCOPES = (
    "datasets:write",
    "jobs:write",
    "models:write",
    "rollout",
    "read",
    "metrics",
    "admin",
)
PREFIX = "spn"
CACHED_KEYS = 1024
SEEN_S = 24 * 3600.0
LONGEST_S = 10 * 366 * 24 * 3600
USE_NOTED_EVERY = timedelta(minutes=1)
_SECRET = re.compile(rf"{PREFIX}_[0-9a-z]{{12}}_[A-Za-z0-9_-]{{43}}")


@dataclass(frozen=True)
class Key:
    """A key without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    project: str
    """Whose data it sees."""
    created_at: datetime
    expires_at: datetime | None
    """When it becomes invalid by itself."""
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str | None = None
    """The key that took its place, where it was rotated."""

    def allows(self, scope: str) -> bool:
        """Whether it has a scope; ``admin`` has every one."""
        return scope in self.scopes or "admin" in self.scopes


class Keys:
    """The keys of a deployment.

    Args:
        database: Where the rows are.
        cache_seconds: For how long a verified key is believed.
        clock: Seconds since 1970; the database's by default.
        monotonic: Seconds that never go back, by which verified keys are forgotten.
    """

    def __init__(
        self,
        database: Database,
        *,
        cache_seconds: float = 1.0,
        clock: Clock | None = None,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.database = database
        self.cache_seconds = cache_seconds
        self.clock = clock or database.clock
        self.monotonic = monotonic
        self._cache: OrderedDict[str, tuple[float, Key]] = OrderedDict()
        self._lock = threading.Lock()

    def create(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        project: str = DEFAULT,
        seconds: float | None = None,
    ) -> tuple[str, Key]:
        """Make a key.

        Args:
            name: What it is for, 1 to 200 characters.
            scopes: Some of ``SCOPES``.
            project: Whose data it sees; with ``admin`` it sees all.
            seconds: How long it is valid; for good by default.

        Returns:
            The secret, which nobody can read again, and the key.

        Raises:
            Invalid: The name is empty or too long, a scope is unknown, the project has
                no name of one, or the key would be invalid from the start.
        """
        chosen = tuple(sorted(set(scopes)))
        unknown = [scope for scope in chosen if scope not in SCOPES]
        if unknown or not chosen:
            expected = f"some of {', '.join(SCOPES)}"
            raise Invalid("/scopes", found=repr(unknown or ()), expected=expected)
        if not 1 <= len(name) <= 200:
            raise Invalid("/name", found=repr(name), expected="1 to 200 characters")
        lifetime = None if seconds is None else _time("/expires_in_seconds", seconds)
        with self.database.transaction() as connection:
            named = check_project(project)
            return self._insert(connection, name, chosen, named, lifetime)

    def rotate(self, id: str, *, keep_seconds: float) -> tuple[str, Key]:
        """Make a key in the place of another, which stays valid for a while.

        The new one has the name, the scopes, the project and the lifetime of the old
        one.

        Args:
            id: Of the old one.
            keep_seconds: How long both are valid; 0: the old one ends at once.

        Returns:
            The secret, which nobody can read again, and the new key.

        Raises:
            NotFound: There is no key of that id.
            Conflict: The key is revoked or has expired, or has been rotated.
            Invalid: The time is no time.
        """
        keep = _time("/keep_seconds", keep_seconds, least=0.0)
        table = tables.keys
        with self.database.transaction() as connection:
            query = sa.select(table).where(table.c.id == id).with_for_update()
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                raise NotFound("key", id)
            now, old = instant(self.clock()), _as_key(row)
            if not _is_valid(old, now):
                raise Conflict(f"key {id} is revoked or has expired; make a new one")
            if old.replaced_by is not None:
                # What is left of its life is no lifetime for another heir.
                raise Conflict(
                    f"key {old.replaced_by} has taken the place of key {id}; rotate "
                    "that one, or revoke it and make a new one",
                    code="key_replaced",
                )
            lifetime = old.expires_at and old.expires_at - old.created_at
            made = self._insert(connection, old.name, old.scopes, old.project, lifetime)
            ends = min(now + keep, old.expires_at or now + keep)
            update = sa.update(table).where(table.c.id == id)
            heir = made[1].id
            connection.execute(update.values(expires_at=ends, replaced_by=heir))
        self._forget(id)
        return made

    def _insert(
        self,
        connection: sa.Connection,
        name: str,
        scopes: tuple[str, ...],
        project: str,
        lifetime: timedelta | None,
    ) -> tuple[str, Key]:
        id = encode(secrets.randbits(60), 12)
        secret = f"{PREFIX}_{id}_{secrets.token_urlsafe(32)}"
        now = instant(self.clock())
        ends = None if lifetime is None else now + lifetime
        row = {
            "id": id,
            "name": name,
            "digest": sha256(secret.encode()),
            "scopes": list(scopes),
            "project": project,
            "created_at": now,
            "expires_at": ends,
        }
        connection.execute(sa.insert(tables.keys).values(row))
        return secret, Key(id, name, scopes, project, now, ends, None, None)

    def verify(self, secret: str) -> Key | None:
        """Return the key of a secret that is valid, or None."""
        if not is_secret(secret):
            return None
        known = self.cached(secret)
        if known is not None:
            return known
        digest = sha256(secret.encode())
        # It may be revoked from when its row is read.
        began = self.monotonic()
        key = self._look_up(secret, digest)
        with self._lock:
            self._cache.pop(digest, None)
            if key is not None:
                self._cache[digest] = (began + self._believed_s(key), key)
                if len(self._cache) > CACHED_KEYS:
                    self._cache.popitem(last=False)
        return key

    def cached(self, secret: str) -> Key | None:
        """Return the key of a secret that was verified lately, without any SQL."""
        return self._known(secret, 0.0)

    def seen(self, secret: str) -> Key | None:
        """Return the key of a secret that was valid here a day ago or later.

        It may be revoked: believe it for nothing that matters.
        """
        return self._known(secret, SEEN_S)

    def _known(self, secret: str, longer_s: float) -> Key | None:
        digest = sha256(secret.encode())
        with self._lock:
            until, key = self._cache.get(digest, (-math.inf, None))
        return key if self.monotonic() < until + longer_s else None

    def revoke(self, id: str) -> Key:
        """Make a key invalid for good.

        Raises:
            NotFound: There is no key of that id.
        """
        table, now = tables.keys, instant(self.clock())
        when = sa.func.coalesce(
            table.c.revoked_at, sa.literal(now, table.c.created_at.type)
        )
        update = sa.update(table).where(table.c.id == id).values(revoked_at=when)
        with self.database.transaction() as connection:
            row = (
                connection.execute(update.returning(*table.c)).mappings().one_or_none()
            )
        if row is None:
            raise NotFound("key", id)
        self._forget(id)
        return _as_key(row)

    def list(self) -> "list[Key]":
        """Return every key, invalid ones included, oldest first."""
        table = tables.keys
        query = sa.select(table).order_by(table.c.created_at, table.c.id)
        with self.database.reading() as connection:
            return [_as_key(row) for row in connection.execute(query).mappings()]

    def _look_up(self, secret: str, digest: str) -> Key | None:
        table = tables.keys
        query = sa.select(table).where(table.c.id == secret.split("_", 2)[1])
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None or not hmac.compare_digest(row["digest"], digest):
            return None
        key = _as_key(row)
        if not _is_valid(key, instant(self.clock())):
            return None
        with contextlib.suppress(Unavailable):  # another time
            self._note_use(key)
        return key

    def _believed_s(self, key: Key) -> float:
        if key.expires_at is None:
            return self.cache_seconds
        left = key.expires_at - instant(self.clock())
        return min(self.cache_seconds, left.total_seconds())

    def _forget(self, id: str) -> None:
        with self._lock:
            for digest in [d for d, (_, key) in self._cache.items() if key.id == id]:
                del self._cache[digest]

    def _note_use(self, key: Key) -> None:
        now, table = instant(self.clock()), tables.keys
        if key.last_used_at is not None and now - key.last_used_at < USE_NOTED_EVERY:
            return
        update = sa.update(table).where(table.c.id == key.id).values(last_used_at=now)
        with self.database.transaction() as connection:
            connection.execute(update)


def is_secret(text: str) -> bool:
    """Whether a text has the form of a secret; no other is worth a question."""
    return _SECRET.fullmatch(text) is not None


def _is_valid(key: Key, now: datetime) -> bool:
    is_over = key.expires_at is not None and key.expires_at <= now
    return key.revoked_at is None and not is_over


def _time(place: str, seconds: float, *, least: float = 1.0) -> timedelta:
    if not least <= seconds <= LONGEST_S:
        expected = f"{least:g} to {LONGEST_S:,} seconds"
        raise Invalid(place, found=repr(seconds), expected=expected)
    return timedelta(seconds=seconds)


def _as_key(row: sa.RowMapping) -> Key:
    values = {name: row[name] for name in Key.__dataclass_fields__}
    return Key(**{**values, "scopes": tuple(row["scopes"])})
