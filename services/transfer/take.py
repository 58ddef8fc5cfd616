"""Takes an archive into a registry, also into one that is serving.

Each version comes in a transaction of its own, after its artifact: it is there as a
whole or not at all, and a second import goes on where the first one ended. A number
that another version has here is never overwritten.
"""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from pydantic import ValidationError

from services.blobs import Blobs
from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.registry_rows import check_home, lock_model, make_model
from services.errors import Conflict, Invalid, NotFound, Unavailable
from services.registry import Registry
from services.transfer.manifest import (
    ARTIFACTS,
    ModelEntry,
    VersionContent,
    VersionEntry,
    unfit,
)
from services.transfer.members import AbstractReader, reading
from services.transfer.outcome import Imported, Outcome
from services.transfer.take_aliases import take_aliases
from services.transfer.take_datasets import take_datasets
from spnode_core.artifact_file import read_card, read_spec
from spnode_core.errors import ArtifactError
from spnode_core.spec import Signature, SurrogateSpec


@dataclass(frozen=True)
class _Here:
    """Where the database is, the store, and a place for one content."""

    database: Database
    blobs: Blobs
    path: Path


def import_registry(
    database: Database,
    blobs: Blobs,
    source: Path,
    *,
    models: Sequence[str] = (),
    aliases: bool = False,
    datasets: bool = False,
    clock: Clock | None = None,
) -> Imported:
    """Take the versions of an archive that are not here yet.

    Args:
        database: Where the rows go.
        blobs: Where the contents go.
        source: A file or a folder that ``export_registry`` wrote.
        models: Names; all by default.
        aliases: Whether aliases are moved to where they point in the archive.
        datasets: Whether its datasets are taken too.
        clock: Seconds since 1970; the database's by default.

    Returns:
        What became of each version, alias and dataset.

    Raises:
        Invalid: It is no archive.
        NotFound: It has no such model.
        Unavailable: The database or the store does not answer.
    """
    imported, clock = Imported(), clock or database.clock
    with (
        reading(source) as archive,
        tempfile.TemporaryDirectory(prefix="spnode-import-") as folder,
    ):
        here = _Here(database, blobs, Path(folder) / "content")
        chosen = _chosen(archive.manifest.models, models)
        if datasets:
            found = take_datasets(database, blobs, archive, here.path)
            imported.outcomes += found
        for model in chosen:
            taken = [_take(here, archive, model, each) for each in model.versions]
            imported.outcomes += taken
            _keep_numbers(database, model)
            imported.outcomes += take_aliases(
                database, model, is_asked=aliases, now=clock()
            )
    return imported


def _chosen(found: Sequence[ModelEntry], names: Collection[str]) -> list[ModelEntry]:
    known = {model.name for model in found}
    for name in names:
        if name not in known:
            hint = f"the archive has {', '.join(sorted(known)) or 'none'}"
            raise NotFound("model", name, hint=hint)
    return [model for model in found if not names or model.name in names]


def _take(
    here: _Here, archive: AbstractReader, model: ModelEntry, entry: VersionEntry
) -> Outcome:
    name = f"{model.name}/{entry.number}"
    try:
        with here.database.reading() as connection:
            check_home(connection, model.name, model.project)
            there = _place(connection, model, entry)
        if there is None:
            content = archive.record(VersionContent, entry.record)
            _check_record(model, entry, content)
            archive.extract(ARTIFACTS, entry.digest, here.path)
            _check_artifact(name, here.path, content)
            there = _add(here, model, entry, content)
    except (Invalid, Conflict) as error:
        return Outcome("version", name, "refused", error.message)
    if there is None:
        return Outcome("version", name, "added")
    other = "" if there == entry.number else f"as {model.name}/{there}"
    return Outcome("version", name, "there", other)


def _place(
    connection: sa.Connection, model: ModelEntry, entry: VersionEntry
) -> int | None:
    """The number under which a version is here; None where its number is free.

    Raises:
        Conflict: Another version has its number.
    """
    here = numbers_of(connection, model.name)
    if here.get(entry.number) == entry.digest:
        return entry.number
    own = {each.number for each in model.versions if each.digest == entry.digest}
    other = [n for n, digest in here.items() if digest == entry.digest and n not in own]
    if other:
        return min(other)
    if entry.number in here:
        raise Conflict(
            f"{model.name}/{entry.number} is another version here: its artifact has "
            f"SHA-256 {here[entry.number]}, that of the archive {entry.digest}",
            code="version_differs",
        )
    return None


def numbers_of(connection: sa.Connection, model: str) -> dict[int, str]:
    """Return the digest of each version of a model, by number."""
    table = tables.versions
    query = sa.select(table.c.number, table.c.digest).where(table.c.model == model)
    return {row.number: row.digest for row in connection.execute(query)}


def _check_record(
    model: ModelEntry, entry: VersionEntry, content: VersionContent
) -> None:
    found = (content.model, content.number, content.digest)
    expected = (model.name, entry.number, entry.digest)
    if found != expected:
        raise unfit(f"records/{entry.record}", found=f"{found}", expected=f"{expected}")


def _check_artifact(name: str, path: Path, content: VersionContent) -> None:
    """What the record says of an artifact must be what the artifact says.

    Raises:
        Invalid: It is not, or the file is no artifact.
    """
    try:
        spec, card = read_spec(path), read_card(path)
        said = (
            SurrogateSpec.model_validate(content.spec),
            Signature.model_validate(content.signature),
            content.card,
        )
    except (ArtifactError, ValidationError) as error:
        expected = "an artifact and a record that this version of spnode reads"
        raise unfit(name, found=str(error)[:1000], expected=expected) from error
    parts = ("spec", "signature", "card")
    for part, one, other in zip(
        parts, said, (spec.surrogate, spec.signature, card), strict=True
    ):
        if one != other:
            expected = f"the {part} in its artifact"
            raise unfit(f"{name}/{part}", found="another one", expected=expected)
    if (size := path.stat().st_size) != content.size_bytes:
        raise unfit(
            f"{name}/size_bytes", found=f"{content.size_bytes}", expected=f"{size}"
        )


def _add(
    here: _Here, model: ModelEntry, entry: VersionEntry, content: VersionContent
) -> int | None:
    """Put the artifact, then the row; None, or where it has come to be meanwhile."""
    here.blobs.put(f"{ARTIFACTS}/{entry.digest}", here.path)
    try:
        return _insert(here, model, entry, content)
    except Conflict:
        Registry(here.database, here.blobs).drop_artifact(entry.digest)
        raise


def _insert(
    here: _Here, model: ModelEntry, entry: VersionEntry, content: VersionContent
) -> int | None:
    key = f"{ARTIFACTS}/{entry.digest}"
    with here.database.transaction() as connection:
        # First what may take long, in the order in which ``Registry.publish`` locks.
        here.database.lock(connection, key)
        with here.database.silent(connection):
            is_kept = here.blobs.exists(key)
        _lock(connection, model)
        check_home(connection, model.name, model.project)
        there = _place(connection, model, entry)
        if there is not None:
            return there
        _raise_number(connection, model.name, max(model.last_number, entry.number))
        # The job that made it is not here.
        row = {**dict(content), "job_id": None}
        connection.execute(sa.insert(tables.versions).values(row))
        if not is_kept:
            raise Unavailable(
                f"the artifact {entry.digest} was deleted meanwhile; import again"
            )
    return None


def _keep_numbers(database: Database, model: ModelEntry) -> None:
    """Take a model's numbers where no version of it was new here, or it has none."""
    try:
        with database.transaction() as connection:
            if model.versions:
                lock_model(connection, model.name)
            else:
                _lock(connection, model)
            check_home(connection, model.name, model.project)
            _raise_number(connection, model.name, model.last_number)
    except (NotFound, Conflict):
        # Its versions were refused, each with the reason.
        return


def _raise_number(connection: sa.Connection, name: str, given: int) -> None:
    """See to it that a number given elsewhere is not given here to something else."""
    models = tables.models
    mine = sa.and_(models.c.name == name, models.c.last_number < given)
    connection.execute(sa.update(models).where(mine).values(last_number=given))


def _lock(connection: sa.Connection, model: ModelEntry) -> None:
    """Lock the row of a model, which is made where it is new."""
    try:
        lock_model(connection, model.name)
    except NotFound:
        make_model(
            connection,
            model.name,
            model.owner,
            model.project,
            created_at=model.created_at,
            updated_at=model.updated_at,
            description=model.description,
            tags=model.tags,
            last_number=0,
        )
        lock_model(connection, model.name)
