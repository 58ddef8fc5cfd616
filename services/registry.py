"""The registry: models by name and their immutable numbered versions.

Every write locks the model's row first, so two writers never give one number twice. A
version is published inside the transaction that ends its job. Names are those of a
whole deployment, whatever the projects are.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.aliases import Aliases
from services.blobs import Blobs
from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.paging import Page, page_of
from services.database.registry_rows import (
    as_model,
    check_home,
    check_seen,
    etag,
    lock_model,
    model_row,
    next_number,
    number_of,
    promote,
    version_of,
    versions_with,
)
from services.database.tables import instant
from services.errors import (
    Conflict,
    ContentGone,
    Invalid,
    PreconditionFailed,
)
from services.projects import EVERYTHING, Access
from services.versions import (
    ARTIFACTS,
    ModelRecord,
    VersionRecord,
    check_name,
    read_reference,
)

MAX_TAGS = 64
"""Of a model."""
MAX_TEXT = 10_000
"""Characters of a description."""


class Registry:
    """Models, versions and aliases.

    Args:
        database: Where the rows are.
        blobs: Where the artifacts are.
        access: Which models the caller sees, and where those belong that it makes.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        access: Access = EVERYTHING,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.access = access
        self.clock = clock or database.clock
        self.aliases = Aliases(database, access=access, clock=clock)

    def models(self, *, limit: int = 20, after: str | None = None) -> Page[ModelRecord]:
        """Return a page of models, newest first."""
        table = tables.models
        with self.database.reading() as connection:
            rows, following = page_of(
                connection,
                sa.select(table).where(self.access.of(table.c.project)),
                created_at=table.c.created_at,
                id=table.c.name,
                limit=limit,
                after=after,
            )
            records = tuple(as_model(connection, row) for row in rows)
        return Page(records, following)

    def model(self, name: str) -> ModelRecord:
        """Return a model.

        Raises:
            NotFound: There is none of that name.
        """
        with self.database.reading() as connection:
            return as_model(connection, model_row(connection, name, self.access))

    def check_free(self, name: str) -> None:
        """Refuse a name under which nothing of this caller can be published.

        Raises:
            Conflict: It is another project's (code ``model_name_taken``).
        """
        with self.database.reading() as connection:
            check_home(connection, name, self.access.project)

    def versions(
        self, name: str, *, limit: int = 20, after: str | None = None
    ) -> Page[VersionRecord]:
        """Return a page of the versions of a model, newest first.

        Raises:
            NotFound: There is no such model.
        """
        table = tables.versions
        with self.database.reading() as connection:
            model_row(connection, name, self.access)
            rows, following = page_of(
                connection,
                sa.select(table).where(table.c.model == name),
                created_at=table.c.created_at,
                id=table.c.number,
                limit=limit,
                after=after,
            )
        return Page(tuple(VersionRecord(**row) for row in rows), following)

    def version(self, name: str, number: int) -> VersionRecord:
        """Return a version.

        Raises:
            NotFound: There is none of that name and number.
        """
        with self.database.reading() as connection:
            check_seen(connection, name, self.access)
            return version_of(connection, name, number)

    def resolve(self, reference: str, *, field: str = "/model") -> VersionRecord:
        """Return the version that ``name``, ``name@alias`` or ``name/3`` means now.

        Args:
            reference: As people write it.
            field: Where it stood in the request, for the error.

        Raises:
            Invalid: It is not written like that.
            NotFound: There is no such model, alias or version.
        """
        wanted = read_reference(reference, field=field)
        with self.database.reading() as connection:
            check_seen(connection, wanted.model, self.access)
            number = wanted.number
            if number is None:
                number = number_of(connection, wanted)
            return version_of(connection, wanted.model, number)

    def publish(
        self,
        connection: sa.Connection,
        name: str,
        *,
        owner: str,
        project: str | None = None,
        digest: str,
        size_bytes: int,
        signature: dict[str, Any],
        spec: dict[str, Any],
        card: dict[str, Any],
        evaluation: dict[str, Any],
        certificate: dict[str, Any],
        job_id: str | None = None,
        alias: str | None = None,
        is_candidate: bool = False,
        guard: Callable[[], None] | None = None,
    ) -> int:
        """Add a version, in the transaction that ends its job.

        The first version that passes the gates becomes champion by itself.

        Args:
            connection: The caller's transaction.
            name: Of the model, which is made where it is new.
            owner: Whose version it is.
            project: Whose model it is; the caller's own by default.
            digest: Of the artifact, which the store has already.
            size_bytes: Of the artifact.
            signature: What it accepts and returns.
            spec: The surrogate's description, complete.
            card: The model card.
            evaluation: Errors by part: train, validation, test.
            certificate: Certificates by name.
            job_id: The job that made it; a job makes one version.
            alias: Pointed at the new version as well; ``champion`` only through the
                gates.
            is_candidate: Of a sweep, which decides the aliases that it gets, if any.
            guard: Called before the version is added, once the store has answered:
                nobody who needs a row that it locks waits for the store.

        Returns:
            Its number.

        Raises:
            Conflict: The name is another project's (code ``model_name_taken``).
            ContentGone: The artifact was deleted meanwhile; put it again.
        """
        now, key = instant(self.clock()), f"{ARTIFACTS}/{digest}"
        # First what may take long: other publishers wait for the model's row.
        self.database.lock(connection, key)
        with self.database.silent(connection):
            is_kept = self.blobs.exists(key)
        if guard is not None:
            guard()
        home = project or self.access.project
        number = next_number(connection, check_name(name), owner, home, now)
        row = VersionRecord(
            model=name,
            number=number,
            owner=owner,
            digest=digest,
            size_bytes=size_bytes,
            signature=signature,
            spec=spec,
            card=card,
            evaluation=evaluation,
            certificate=certificate,
            job_id=job_id,
            created_at=now,
        )
        connection.execute(sa.insert(tables.versions).values(vars(row)))
        if not is_kept:
            raise ContentGone(f"the artifact {digest} was deleted meanwhile")
        if not is_candidate:
            promote(connection, name, number, alias, now, owner, "published")
        return number

    def patch(
        self,
        name: str,
        *,
        description: str | None = None,
        tags: dict[str, str] | None = None,
        if_match: str | None = None,
    ) -> ModelRecord:
        """Change a model's description or tags, or both.

        Raises:
            NotFound: There is no such model.
            Invalid: The text is too long, or the tags are too many.
            PreconditionFailed: It has changed since ``if_match``.
        """
        if description is not None and len(description) > MAX_TEXT:
            expected = f"at most {MAX_TEXT} characters"
            raise Invalid(
                "/description", found=f"{len(description)}", expected=expected
            )
        if tags is not None and len(tags) > MAX_TAGS:
            raise Invalid("/tags", found=f"{len(tags)}", expected=f"at most {MAX_TAGS}")
        given = {"description": description, "tags": tags}
        changes = {key: value for key, value in given.items() if value is not None}
        table, now = tables.models, instant(self.clock())
        with self.database.transaction() as connection:
            lock_model(connection, name, self.access)
            found = model_row(connection, name)
            if if_match not in (None, "*", etag(found["revision"])):
                raise PreconditionFailed(f"model {name!r} has changed since {if_match}")
            update = sa.update(table).where(table.c.name == name)
            changed = update.values(
                revision=table.c.revision + 1, updated_at=now, **changes
            )
            row = connection.execute(changed.returning(*table.c)).mappings().one()
            return as_model(connection, row)

    def delete_version(self, name: str, number: int) -> None:
        """Delete a version; its number is never given again.

        Raises:
            NotFound: There is no such version.
            Conflict: An alias or a job needs it (code ``version_in_use``).
        """
        table, aliases, jobs = tables.versions, tables.aliases, tables.jobs
        mine = sa.and_(table.c.model == name, table.c.number == number)
        pointing = sa.select(aliases.c.alias).where(
            aliases.c.model == name, aliases.c.number == number
        )
        with self.database.transaction() as connection:
            lock_model(connection, name, self.access)
            version = version_of(connection, name, number, lock=True)
            names = connection.execute(pointing).scalars().all()
            if names:
                pointing_at = ", ".join(f"{name}@{each}" for each in sorted(names))
                raise Conflict(
                    f"{pointing_at} points at version {number}; move or delete the "
                    "alias first",
                    code="version_in_use",
                )
            # Held by who queues one: see ``services.held``.
            needing = sa.select(jobs.c.id, jobs.c.project, jobs.c.request).where(
                jobs.c.state.in_(("queued", "running")),
                sa.cast(jobs.c.request, sa.Text).contains(version.digest),
            )
            own = model_row(connection, name)["project"]
            for job in connection.execute(needing):
                # Another project's may be of an artifact of its own, with the same
                # content; an administrator's names this one.
                if job.project != own and not _names(job.request, name):
                    continue
                whose = repr(job.id) if job.project == own else "of an administrator"
                raise Conflict(
                    f"job {whose} needs version {number}; wait for it or cancel it",
                    code="version_in_use",
                )
            connection.execute(sa.delete(table).where(mine))
        self.drop_artifact(version.digest)

    def versions_with(self, digests: Iterable[str]) -> list[tuple[str, int, str]]:
        """Return model, number and digest of the versions that have some artifacts."""
        with self.database.reading() as connection:
            return versions_with(connection, digests, self.access)

    def download(self, version: VersionRecord, path: Path) -> None:
        """Write the artifact of a version to ``path``, its digest verified."""
        self.blobs.download(version.artifact_key, path)

    def drop_artifact(self, digest: str) -> None:
        """Delete an artifact that no version refers to."""
        table, key = tables.versions, f"{ARTIFACTS}/{digest}"
        query = sa.select(table.c.model).where(table.c.digest == digest).limit(1)
        with self.database.transaction() as connection:
            self.database.lock(connection, key)
            if connection.execute(query).one_or_none() is None:
                with self.database.silent(connection):
                    self.blobs.delete(key)


def _names(request: Any, model: str) -> bool:
    """Whether some part of a job's request is of a model, however it refers to it."""
    if isinstance(request, dict):
        reference = request.get("model")
        if isinstance(reference, str) and re.split("[@/]", reference)[0] == model:
            return True
        return any(_names(part, model) for part in request.values())
    return isinstance(request, list) and any(_names(part, model) for part in request)
