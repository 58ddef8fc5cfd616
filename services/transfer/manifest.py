"""What an archive of a registry says it holds.

::

    manifest.json            models with versions, aliases and their moves; datasets
    records/<sha256>.json    what the database knows of one version or dataset
    artifacts/<sha256>       the file of a surrogate
    datasets/<sha256>        the file of a dataset

All but the manifest is named by its content. So nothing in an archive can stand for
something else, and a second export into the same folder writes only what is new.
"""

import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from services.errors import Invalid
from services.projects import DEFAULT, PROJECT_PATTERN
from services.texts import check_storable
from services.versions import NAME_PATTERN, Tags
from spnode_core.artifact_file import count_values, encode_json

FORMAT = "spnode registry"
VERSION = 1
MANIFEST = "manifest.json"
ARTIFACTS, DATASETS, RECORDS = "artifacts", "datasets", "records"
MEMBER = re.compile(
    r"(?:records/[0-9a-f]{64}\.json|(?:artifacts|datasets)/[0-9a-f]{64})"
)
JSON_LIMIT_BYTES = 64 * 2**20
"""Largest manifest and largest record."""
MOST_VALUES = JSON_LIMIT_BYTES // 16
"""Most values in one: a value of two bytes costs as much memory as a long one.

A version takes four in 170 bytes, a move of an alias seven in 130; a card has no more
than a million.
"""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Number = Annotated[int, Field(ge=1, le=999_999_999)]
Project = Annotated[str, Field(pattern=PROJECT_PATTERN)]
Text = Annotated[str, Field(max_length=200)]
Part = TypeVar("Part", bound="_Part")
# One error is told; of millions each would take memory.
_First = FailFast()


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VersionEntry(_Part):
    """A version: its number, its artifact, and where the rest is written."""

    number: Number
    digest: Digest
    record: Digest


class AliasEntry(_Part):
    """Where an alias points."""

    alias: Name
    number: Number


class MoveEntry(_Part):
    """One move of an alias; ``number`` is None where it was deleted."""

    alias: Name
    number: Number | None
    previous: Number | None
    moved_by: Text
    reason: str
    moved_at: AwareDatetime


class ModelEntry(_Part):
    """A model with everything under its name."""

    name: Name
    owner: Text
    project: Project = DEFAULT
    description: str
    tags: Tags
    last_number: NonNegativeInt
    created_at: AwareDatetime
    updated_at: AwareDatetime
    versions: Annotated[tuple[VersionEntry, ...], _First]
    aliases: Annotated[tuple[AliasEntry, ...], _First]
    moves: Annotated[tuple[MoveEntry, ...], _First]


class DatasetEntry(_Part):
    """A dataset: its id, its content, and where the rest is written."""

    id: Annotated[str, Field(pattern=r"^ds_[0-9a-z]{1,60}$")]
    digest: Digest
    record: Digest


class Manifest(_Part):
    """Everything in an archive."""

    format: Literal["spnode registry"] = FORMAT
    version: Literal[1] = VERSION
    exported_at: AwareDatetime
    models: Annotated[tuple[ModelEntry, ...], _First]
    datasets: Annotated[tuple[DatasetEntry, ...], _First]

    def members(self) -> set[str]:
        """Names of all members that belong to it."""
        versions = [each for model in self.models for each in model.versions]
        contents = {f"{ARTIFACTS}/{each.digest}" for each in versions}
        contents |= {f"{DATASETS}/{each.digest}" for each in self.datasets}
        records = {record_name(each.record) for each in (*versions, *self.datasets)}
        return contents | records


class VersionContent(_Part):
    """The record of a version."""

    model: Name
    number: Number
    owner: Text
    digest: Digest
    size_bytes: NonNegativeInt
    signature: dict[str, JsonValue]
    spec: dict[str, JsonValue]
    card: dict[str, JsonValue]
    evaluation: dict[str, JsonValue]
    certificate: dict[str, JsonValue]
    job_id: Text | None
    """The job that made it, where it was made."""
    created_at: AwareDatetime


class DatasetContent(_Part):
    """The record of a dataset."""

    id: Text
    owner: Text
    project: Project = DEFAULT
    name: Text | None
    digest: Digest
    size_bytes: PositiveInt
    summary: dict[str, JsonValue]
    job_id: Text | None
    created_at: AwareDatetime


def record_name(digest: str) -> str:
    """Return the member that holds a record."""
    return f"{RECORDS}/{digest}.json"


def encoded(part: BaseModel) -> bytes:
    """Return JSON that is equal for equal parts."""
    return encode_json(part.model_dump(mode="json"))


def decoded(kind: type[Part], data: bytes, member: str) -> Part:
    """Read a manifest or a record whose author is not trusted.

    Raises:
        Invalid: It is none; the field is its member and the place in it.
    """
    check_values(data, member)
    try:
        content = json.loads(data, parse_constant=_refuse_constant)
        check_storable(content)
        if kind is Manifest:
            _check_version(content)
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"/{each}" for each in first["loc"])
        found = repr(first.get("input"))[:200]
        raise unfit(f"{member}{place}", found=found, expected=first["msg"]) from error
    except Invalid as error:
        raise unfit(
            f"{member}{error.field}", found=error.found, expected=error.expected
        ) from error
    except (ValueError, RecursionError) as error:
        raise unfit(member, found=f"no JSON ({error})", expected="JSON") from error


def check_values(data: bytes, member: str) -> None:
    """Refuse a manifest or a record of very many values, before it is read as JSON.

    Raises:
        Invalid: It is one.
    """
    values = count_values(data)
    if values > MOST_VALUES:
        found, expected = f"some {values} values", f"at most {MOST_VALUES}"
        raise unfit(member, found=found, expected=expected)


def unfit(field: str, *, found: str, expected: str) -> Invalid:
    """What is told of an archive that is not what it claims to be."""
    return Invalid(field, found=found, expected=expected, code="invalid_archive")


def _check_version(content: Any) -> None:
    found = content.get("version") if isinstance(content, dict) else None
    if found not in (None, VERSION):
        raise Invalid(
            "/version",
            found=repr(found)[:200],
            expected=f"{VERSION}; a newer spnode wrote it",
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")
