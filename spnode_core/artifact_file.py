"""The container of a surrogate: one zip file that is checked before it is believed.

::

    manifest.json            format, version, SHA-256 of each other member
    spec.json                an ``ArtifactSpec``: all that rebuilds the surrogate
    parameters.safetensors   its arrays, by path in the tree
    card.json                what is known about it
    probe.safetensors        a recorded rollout that loading repeats
    plots/<name>.png         pictures of the training, where they were drawn

Members are stored, not compressed, under fixed time stamps: equal surrogates give
equal bytes, and the SHA-256 of the file is its identity. Nothing is unpickled, and
nothing here imports JAX or safetensors, so that a gateway can read spec and card.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from spnode_core.atomic import replacing
from spnode_core.errors import ArtifactError, InvalidInput
from spnode_core.npz import EARLIEST, ZIP_FAULTS
from spnode_core.spec import SCHEMA_VERSION, ArtifactSpec
from spnode_core.zip_directory import check_directory

FORMAT = "spnode surrogate"
VERSION = 1
MANIFEST = "manifest.json"
SPEC, PARAMETERS = "spec.json", "parameters.safetensors"
CARD, PROBE = "card.json", "probe.safetensors"
MEMBERS = (SPEC, PARAMETERS, CARD, PROBE)
PLOT_NAME = r"[a-z][a-z0-9_]{0,39}"
MOST_PLOTS = 16

_LIMITS = {
    MANIFEST: 64 * 1024,
    SPEC: 8 * 1024**2,
    PARAMETERS: 1024**3,
    CARD: 16 * 1024**2,
    PROBE: 256 * 1024**2,
}
# Sixteen bytes for each of a card that is as large as it may be. One of two bytes costs
# as much memory and time as a long one.
_MOST_VALUES = 1_000_000
_PLOT = re.compile(rf"plots/({PLOT_NAME})\.png")
_PLOT_BYTES = 4 * 1024**2
_PNG = b"\x89PNG\r\n\x1a\n"
_ENCRYPTED = 0x1


def read_spec(path: str | Path) -> ArtifactSpec:
    """Read what a surrogate's file describes.

    Raises:
        ArtifactError: The file is damaged, forged or too new.
    """
    return parse_spec(read_members(path, (SPEC,))[SPEC])


def read_card(path: str | Path) -> dict[str, Any]:
    """Read the card of a surrogate's file.

    Raises:
        ArtifactError: The file is damaged or forged.
    """
    return parse_json(read_members(path, (CARD,))[CARD], CARD)


def read_plots(path: str | Path) -> dict[str, bytes]:
    """Read the pictures in a surrogate's file, PNG by name; none where it has none.

    Raises:
        ArtifactError: The file is damaged or forged.
    """
    return {
        found[1]: data
        for member, data in read_members(path, (), plots=True).items()
        if (found := _PLOT.fullmatch(member))
    }


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal: the identity of an artifact.

    Raises:
        ArtifactError: There is no such file.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{Path(path).name} cannot be read: {error}") from error


def write_members(path: str | Path, members: Mapping[str, bytes]) -> str:
    """Write the container atomically.

    Args:
        path: Where to.
        members: Content of each of ``MEMBERS``, and of ``plots/<name>.png``.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        ArtifactError: What is said to be a picture is none, or has no proper name.
    """
    plots = sorted(set(members) - set(MEMBERS))
    if len(plots) > MOST_PLOTS:
        raise ArtifactError(f"{len(plots)} pictures, more than {MOST_PLOTS}")
    for name in plots:
        if not _PLOT.fullmatch(name):
            raise ArtifactError(f"{name!r} is no plots/<name>.png")
        _check_plot(name, members[name])
    order = (*MEMBERS, *plots)
    for name in MEMBERS:
        if (size := len(members[name])) > _LIMITS[name]:
            raise ArtifactError(f"{name} has {size} bytes, more than {_LIMITS[name]}")
        if name.endswith(".json"):
            _check_values(members[name], name)
    hashes = {name: hashlib.sha256(members[name]).hexdigest() for name in order}
    manifest = {"format": FORMAT, "version": VERSION, "sha256": hashes}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST, EARLIEST), encode_json(manifest))
        for name in order:
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), members[name])
    data = buffer.getvalue()
    with replacing(Path(path)) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def read_members(
    path: str | Path, names: tuple[str, ...], *, plots: bool = False
) -> dict[str, bytes]:
    """Read members, each verified against the manifest.

    Args:
        path: The file.
        names: Some of ``MEMBERS``.
        plots: Whether to read all pictures as well.

    Raises:
        ArtifactError: The file is damaged, forged or too new.
    """
    name = Path(path).name
    try:
        with Path(path).open("rb") as file, _opened(file, name) as archive:
            there = _check_members(archive, name)
            manifest = parse_json(archive.read(MANIFEST), MANIFEST)
            drawn = [each for each in there if _PLOT.fullmatch(each)] if plots else []
            content = {member: archive.read(member) for member in (*names, *drawn)}
    except (*ZIP_FAULTS, OSError, ValueError) as error:
        raise ArtifactError(f"{name} is no complete artifact: {error}") from error
    _check_manifest(manifest, name, there)
    for member, data in content.items():
        found = hashlib.sha256(data).hexdigest()
        if found != manifest["sha256"][member]:
            raise ArtifactError(
                f"{name}: {member} has SHA-256 {found}, but the manifest says "
                f"{manifest['sha256'][member]}"
            )
    for member in drawn:
        _check_plot(member, content[member])
    return content


def _opened(file: IO[bytes], name: str) -> zipfile.ZipFile:
    try:
        check_directory(file, name)
    except InvalidInput as error:
        raise ArtifactError(str(error)) from error
    return zipfile.ZipFile(file)


def _check_members(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Names of the members, all of which may be read."""
    found = [member.filename for member in archive.infolist()]
    plots = {each for each in found if _PLOT.fullmatch(each)}
    if sorted(found) != sorted((MANIFEST, *MEMBERS, *plots)) or len(plots) > MOST_PLOTS:
        raise ArtifactError(
            f"{name} holds {sorted(found)[:8]}, not {sorted((MANIFEST, *MEMBERS))} "
            f"and up to {MOST_PLOTS} plots"
        )
    for member in archive.infolist():
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if not is_stored or member.compress_size != member.file_size:
            raise ArtifactError(f"{name}: {member.filename} is compressed, not stored")
        if member.flag_bits & _ENCRYPTED:
            raise ArtifactError(f"{name}: {member.filename} is encrypted")
        limit = _LIMITS.get(member.filename, _PLOT_BYTES)
        if member.file_size > limit:
            raise ArtifactError(
                f"{name}: {member.filename} has {member.file_size} bytes, more than "
                f"{limit}"
            )
    return found


def _check_plot(member: str, data: bytes) -> None:
    """A browser is shown it: nothing but PNG may be behind the name."""
    if not data.startswith(_PNG) or len(data) > _PLOT_BYTES:
        raise ArtifactError(f"{member} is no PNG of at most {_PLOT_BYTES} bytes")


def _check_manifest(manifest: dict[str, Any], name: str, there: list[str]) -> None:
    if manifest.get("format") != FORMAT:
        raise ArtifactError(f"{name} is not a {FORMAT}")
    if manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{name} has format version {manifest.get('version')!r}; this library "
            f"reads version {VERSION}"
        )
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or {MANIFEST, *hashes} != set(there):
        raise ArtifactError(f"{name}: the manifest lacks the hash of a member")


def parse_spec(data: bytes) -> ArtifactSpec:
    """Validate a spec.json.

    Raises:
        ArtifactError: It is not one, or of a later schema.
    """
    content = parse_json(data, SPEC)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{SPEC} has schema version {content.get('schema_version')!r}; this "
            f"library reads {SCHEMA_VERSION}"
        )
    try:
        return ArtifactSpec.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{SPEC}: {place}: {first['msg']}") from error


def encode_json(content: Any) -> bytes:
    """JSON that is equal for equal content.

    Raises:
        ArtifactError: Something in it is no JSON, e.g. a NaN.
    """
    try:
        text = json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"content that is no JSON: {error}") from error
    return text.encode()


def parse_json(data: bytes, member: str) -> dict[str, Any]:
    """A member that is a JSON object.

    Raises:
        ArtifactError: It is not, or one of very many values.
    """
    _check_values(data, member)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{member} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{member} is no JSON object")
    return content


def count_values(data: bytes) -> int:
    """About how many values a JSON text has, without reading it: never far too few.

    Separators in texts count too, so there may be fewer.
    """
    return sum(map(data.count, (b",", b"[", b"{")))


def _check_values(data: bytes, member: str) -> None:
    values = count_values(data)
    if values > _MOST_VALUES:
        raise ArtifactError(
            f"{member} holds some {values} values, more than {_MOST_VALUES}"
        )
