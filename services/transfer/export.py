"""A registry, or some models of it, as an archive; from a running service too.

The rows of a model are read from one moment. Its artifacts are immutable, so they can
be copied afterwards.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.blobs import Blobs
from services.database import tables
from services.database.engine import Database
from services.database.registry_rows import aliases_of, model_row
from services.datasets import DatasetRecord
from services.errors import Conflict, NotFound
from services.transfer.manifest import (
    ARTIFACTS,
    DATASETS,
    AliasEntry,
    DatasetContent,
    DatasetEntry,
    Manifest,
    ModelEntry,
    MoveEntry,
    VersionContent,
    VersionEntry,
    encoded,
)
from services.transfer.members import AbstractWriter, writing
from services.versions import VersionRecord


@dataclass(frozen=True)
class _Model:
    row: dict[str, Any]
    versions: list[VersionRecord]
    aliases: dict[str, int]
    moves: list[dict[str, Any]]


def export_registry(
    database: Database,
    blobs: Blobs,
    target: Path,
    *,
    models: Sequence[str] = (),
    datasets: bool = False,
) -> Manifest:
    """Write models with all their versions, aliases and the moves of these.

    Args:
        database: Where the rows are.
        blobs: Where the contents are.
        target: A file where the name ends in .zip, else a folder. A folder of an
            earlier export is brought up to date.
        models: Names; all by default.
        datasets: Whether datasets go along: those that the cards of these models name,
            or all of them where no models are named.

    Returns:
        What was written.

    Raises:
        NotFound: There is no such model.
        Conflict: A version was deleted meanwhile, or ``target`` is something else.
        Damaged: A content is not the one that its row names.
    """
    found = [_read(database, name) for name in models or _names(database)]
    with (
        writing(target) as archive,
        tempfile.TemporaryDirectory(prefix="spnode-export-") as folder,
    ):
        copy = _Copy(archive, blobs, Path(folder) / "content")
        chosen = _datasets(database, found, every=not models) if datasets else []
        manifest = Manifest(
            exported_at=datetime.now(UTC),
            models=tuple(_model_entry(copy, each) for each in found),
            datasets=tuple(_dataset_entry(copy, each) for each in chosen),
        )
        archive.finish(manifest)
    return manifest


@dataclass(frozen=True)
class _Copy:
    archive: AbstractWriter
    blobs: Blobs
    path: Path

    def __call__(self, prefix: str, digest: str, owner: str) -> None:
        key = f"{prefix}/{digest}"
        if self.archive.has(key):
            return
        try:
            self.blobs.download(key, self.path)
        except NotFound as error:
            raise Conflict(
                f"the content of {owner} is not in the store: it was deleted "
                "meanwhile, or this is not the store of this database; export again"
            ) from error
        self.archive.add(key, self.path)


def _model_entry(copy: _Copy, model: _Model) -> ModelEntry:
    return ModelEntry(
        **model.row,
        versions=tuple(_version_entry(copy, each) for each in model.versions),
        aliases=tuple(
            AliasEntry(alias=alias, number=number)
            for alias, number in model.aliases.items()
        ),
        moves=tuple(MoveEntry(**move) for move in model.moves),
    )


def _version_entry(copy: _Copy, version: VersionRecord) -> VersionEntry:
    copy(ARTIFACTS, version.digest, f"{version.model}/{version.number}")
    record = copy.archive.add_record(encoded(VersionContent(**vars(version))))
    return VersionEntry(number=version.number, digest=version.digest, record=record)


def _dataset_entry(copy: _Copy, dataset: DatasetRecord) -> DatasetEntry:
    copy(DATASETS, dataset.digest, dataset.id)
    record = copy.archive.add_record(encoded(DatasetContent(**vars(dataset))))
    return DatasetEntry(id=dataset.id, digest=dataset.digest, record=record)


def _names(database: Database) -> list[str]:
    query = sa.select(tables.models.c.name).order_by(tables.models.c.name)
    with database.reading() as connection:
        return list(connection.execute(query).scalars())


def _read(database: Database, name: str) -> _Model:
    versions, moves = tables.versions, tables.alias_moves
    of_it = sa.select(versions).where(versions.c.model == name)
    fields = [moves.c[field] for field in MoveEntry.model_fields]
    moved = sa.select(*fields).where(moves.c.model == name).order_by(moves.c.id)
    with database.reading() as connection:
        row = dict(model_row(connection, name))
        row.pop("revision")
        found = connection.execute(of_it.order_by(versions.c.number)).mappings()
        return _Model(
            row=row,
            versions=[VersionRecord(**each) for each in found],
            aliases=aliases_of(connection, name),
            moves=[dict(each) for each in connection.execute(moved).mappings()],
        )


def _datasets(
    database: Database, models: list[_Model], *, every: bool
) -> list[DatasetRecord]:
    table = tables.datasets
    query = sa.select(table).order_by(table.c.created_at, table.c.id)
    cards = [version.card for model in models for version in model.versions]
    named = {(card.get("dataset") or {}).get("id") for card in cards}
    with database.reading() as connection:
        found = [DatasetRecord(**row) for row in connection.execute(query).mappings()]
    return [each for each in found if every or each.id in named]
