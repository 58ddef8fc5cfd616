"""Archives of a registry that are damaged, forged or made to do harm."""

import contextlib
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import pytest

from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import upgrade
from services.errors import Invalid
from services.identity import sha256
from services.registry import Registry
from services.settings import Settings
from services.transfer.manifest import MANIFEST, MOST_VALUES
from services.transfer.take import import_registry
from tests.services.test_transfer import change, export, publish, take


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A good archive of one version, as a folder and as a file."""
    path = tmp_path_factory.mktemp("made")
    with opened(path / "data") as registry:
        publish(registry, path, 1)
        export(registry, path / "folder")
        export(registry, path / "registry.zip")
    return path


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return shutil.copytree(made / "folder", tmp_path / "folder")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """An empty registry, which stays empty whatever is tried."""
    with opened(tmp_path_factory.mktemp("elsewhere")) as registry:
        yield registry


@contextlib.contextmanager
def opened(path: Path):
    settings = Settings(data_folder=path)
    database = Database(settings.database_url)
    upgrade(database)
    yield Registry(database, Blobs(settings.store_url))
    database.close()


def first(folder: Path, part: str) -> Path:
    return next((folder / part).iterdir())


def forge(folder: Path, field: str, value: object) -> None:
    """Change a record and everything that names it, as a forger would."""
    record = first(folder, "records")
    content = json.loads(record.read_text())
    content[field] = value
    data = json.dumps(content).encode()
    record.unlink()
    (folder / "records" / f"{sha256(data)}.json").write_bytes(data)
    version = lambda manifest: manifest["models"][0]["versions"][0]  # noqa: E731
    change(folder, lambda manifest: version(manifest).update(record=sha256(data)))


def broken(folder: Path) -> None:
    path = first(folder, "artifacts")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def linked(folder: Path) -> None:
    path = first(folder, "artifacts")
    path.unlink()
    path.symlink_to("/etc/hostname")


def linked_folder(folder: Path) -> None:
    (folder / "artifacts").rename(folder.parent / "moved")
    (folder / "artifacts").symlink_to(folder.parent / "moved")


def piped(folder: Path) -> None:
    path = first(folder, "artifacts")
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (broken, "found a content of SHA-256"),
        (linked, "expected a plain file"),
        (linked_folder, "expected a plain file"),
        (piped, "expected a plain file"),
        (lambda folder: first(folder, "artifacts").unlink(), "No such file"),
        (lambda folder: first(folder, "records").unlink(), "No such file"),
        (lambda folder: forge(folder, "number", 2), "expected .*'small', 1"),
        (lambda folder: forge(folder, "card", {}), "small/1/card"),
        (lambda folder: forge(folder, "size_bytes", 1), "small/1/size_bytes"),
        (lambda folder: forge(folder, "evaluation", {"a": float("nan")}), "NaN is no"),
        (lambda folder: forge(folder, "owner", "a\0b"), "without NUL"),
    ],
)
def test_a_version_that_is_not_what_it_claims_is_refused(
    folder, elsewhere, harm, words
) -> None:
    harm(folder)
    found = import_registry(elsewhere.database, elsewhere.blobs, folder)
    (refused,) = found.of("refused")
    assert refused.name == "small/1"
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(refused.detail)
    assert not elsewhere.models().items
    assert not list(elsewhere.blobs.list("artifacts"))


def bombed(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("records/" + "0" * 64 + ".json", bytes(10_000_000))


def overlapped(path: Path) -> None:
    """Two members of the directory that share the bytes of one."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
        largest = max(archive.infolist(), key=lambda each: each.file_size)
    end = data.rindex(b"PK\5\6")
    entries, at = data[start:end], data[start:end].index(largest.filename.encode())
    entry_start = entries.rindex(b"PK\1\2", 0, at)
    following = entries.find(b"PK\1\2", at)
    entry = entries[entry_start : following if following > 0 else None]
    other = entry.replace(largest.filename.encode(), b"artifacts/" + b"0" * 64)
    tail = bytearray(data[end:])
    count = struct.unpack_from("<H", tail, 10)[0] + 1
    struct.pack_into("<HHI", tail, 8, count, count, len(entries) + len(other))
    path.write_bytes(data[:end] + other + bytes(tail))


def added(name: str, content: bytes = b"x", mode: int = 0o100600):
    def harm(path: Path) -> None:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, content)

    return harm


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (bombed, "a compressed member"),
        (overlapped, "members of .* bytes in a file of"),
        (added("../../escaped"), "an unknown member"),
        (added("/etc/passwd"), "an unknown member"),
        (added("artifacts/../manifest.json"), "an unknown member"),
        (added("artifacts/" + "0" * 64), "a member nobody names"),
        (added("artifacts/" + "0" * 64, mode=0o120777), "a link or an odd file"),
        (added(MANIFEST), "the member twice"),
        # What is left ends in the directory of an artifact, which is a zip too.
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "unknown member"),
        (lambda path: path.write_bytes(b""), "not a zip file"),
    ],
)
def test_a_hostile_file_is_refused_before_anything_is_taken(
    made, elsewhere, tmp_path, harm, words
) -> None:
    path = Path(shutil.copy(made / "registry.zip", tmp_path))
    harm(path)
    with pytest.raises(Invalid, match=words) as refused:
        take(elsewhere, path)
    assert refused.value.code == "invalid_archive"
    assert not elsewhere.models().items


def test_a_member_of_millions_of_values_is_refused_unread(folder, elsewhere) -> None:
    (folder / MANIFEST).write_bytes(b'{"models":[' + b"0," * MOST_VALUES + b"0]}")
    with pytest.raises(Invalid, match=r"manifest\.json: found some \d+ values"):
        take(elsewhere, folder)


def test_of_many_things_that_are_wrong_the_first_is_told(folder, elsewhere) -> None:
    change(folder, lambda manifest: manifest.update(models=[0] * 1000))
    with pytest.raises(Invalid, match=r"manifest\.json/models/0: ") as refused:
        take(elsewhere, folder)
    assert refused.value.__cause__.error_count() == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": 2}, "manifest.json/version"),
        ({"format": "another"}, "manifest.json/format"),
        ({"more": 1}, "manifest.json/more"),
        ({"models": [{"name": "../x"}]}, "manifest.json/models/0/name"),
    ],
)
def test_a_manifest_that_is_none_names_the_field(
    folder, elsewhere, changes, field
) -> None:
    change(folder, lambda manifest: manifest.update(changes))
    with pytest.raises(Invalid) as refused:
        take(elsewhere, folder)
    assert refused.value.field == field
    shutil.rmtree(folder)
    with pytest.raises(Invalid, match="registry export"):
        take(elsewhere, folder)
