"""A registry as an archive, and back: whole, once, and never over something else."""

import json
from pathlib import Path

import pytest

from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import upgrade
from services.datasets import Datasets
from services.errors import Conflict, NotFound, Unavailable
from services.identity import sha256
from services.projects import Access
from services.registry import Registry
from services.transfer.export import export_registry
from services.transfer.manifest import MANIFEST
from services.transfer.take import import_registry
from spnode_core.artifact_file import (
    CARD,
    MEMBERS,
    encode_json,
    read_members,
    read_spec,
    write_members,
)
from tests.services.test_registry import BOX, GOOD

(MADE,) = (Path(__file__).parent / "data/first_schema/store/artifacts").iterdir()


def publish(registry: Registry, path: Path, seed: int, name="small", **more) -> str:
    """Publish an artifact that differs from others by its card."""
    card = {"seed": seed, "dataset": {"id": more.pop("dataset", None)}}
    members = {**read_members(MADE, MEMBERS), CARD: encode_json(card)}
    file = path / "made.spnode"
    digest = write_members(file, members)
    registry.blobs.put(f"artifacts/{digest}", file)
    spec = read_spec(file)
    with registry.database.transaction() as connection:
        registry.publish(
            connection,
            name,
            owner="me",
            digest=digest,
            size_bytes=file.stat().st_size,
            signature=spec.signature.model_dump(mode="json"),
            spec=spec.surrogate.model_dump(mode="json"),
            card=card,
            evaluation=more.pop("evaluation", GOOD),
            certificate={"invariant_box": BOX},
            **more,
        )
    return digest


@pytest.fixture
def registry(database: Database, blobs: Blobs, tmp_path: Path) -> Registry:
    """Two models; one alias of the first has moved."""
    registry = Registry(database, blobs)
    for seed in (1, 2):
        publish(registry, tmp_path, seed, job_id=f"job_{seed}")
    publish(registry, tmp_path, 9, name="other")
    registry.patch("small", description="three states", tags={"a": "b"})
    registry.aliases.set("small", "champion", 2, moved_by="me", if_match="*")
    return registry


def export(registry: Registry, target: Path, **options):
    return export_registry(registry.database, registry.blobs, target, **options)


def take(registry: Registry, source: Path, **options) -> dict[str, str]:
    """Import; return the state of each thing."""
    found = import_registry(registry.database, registry.blobs, source, **options)
    assert found.is_good == (not found.of("refused"))
    return {each.name: each.state for each in found.outcomes}


def rows(registry: Registry, name: str) -> list[dict]:
    """The versions of a model, without the job, which stays where it is."""
    found = registry.versions(name).items
    return [{**vars(version), "job_id": None} for version in found]


@pytest.mark.parametrize("form", ["registry.zip", "folder"])
def test_everything_comes_over_once(registry, elsewhere, tmp_path, form) -> None:
    target = tmp_path / form
    export(registry, target)
    versions = dict.fromkeys(("small/1", "small/2", "other/1"), "added")
    aliases = dict.fromkeys(("small@champion", "other@champion"), "left")
    assert take(elsewhere, target) == versions | aliases
    assert elsewhere.model("small").aliases == {}
    for name in ("small", "other"):
        assert rows(elsewhere, name) == rows(registry, name)
    for version in elsewhere.versions("small").items:
        elsewhere.blobs.verify(version.artifact_key)
    made, kept = elsewhere.model("small"), registry.model("small")
    same = ("owner", "description", "tags", "created_at", "updated_at", "latest")
    assert [getattr(made, each) for each in same] == [
        getattr(kept, each) for each in same
    ]
    again = take(elsewhere, target, aliases=True)
    assert again == dict.fromkeys(versions, "there") | dict.fromkeys(aliases, "moved")
    assert elsewhere.model("small").aliases == {"champion": 2}
    moved = elsewhere.aliases.history("small", "champion")
    assert [(each.number, each.moved_by) for each in moved] == [
        (2, "registry import"),
        (2, "me"),
        (1, "me"),
    ]
    assert set(take(elsewhere, target, aliases=True).values()) == {"there"}
    assert len(elsewhere.aliases.history("small", "champion")) == 3


def test_it_goes_through_postgresql_unchanged(
    registry, elsewhere, postgres_url, tmp_path
) -> None:
    database = Database(postgres_url)
    upgrade(database)
    fleet = Registry(database, Blobs(f"file://{tmp_path / 'fleet'}"))
    export(registry, tmp_path / "up.zip")
    assert set(take(fleet, tmp_path / "up.zip", aliases=True).values()) == {
        "added",
        "moved",
    }
    assert set(take(fleet, tmp_path / "up.zip", aliases=True).values()) == {"there"}
    publish(fleet, tmp_path, 3)
    export(fleet, tmp_path / "down")
    take(elsewhere, tmp_path / "down", aliases=True)
    assert rows(elsewhere, "small")[1:] == rows(registry, "small")
    assert elsewhere.version("small", 3).digest == fleet.version("small", 3).digest
    moved = elsewhere.aliases.history("small", "champion")
    assert [each.number for each in moved] == [2, 2, 2, 1]
    publish(elsewhere, tmp_path, 4)
    export(elsewhere, tmp_path / "down")
    publish(fleet, tmp_path, 5)
    assert take(fleet, tmp_path / "down")["small/4"] == "refused"
    database.close()


def test_a_model_of_the_same_name_gets_what_it_lacks(
    registry, elsewhere, tmp_path
) -> None:
    target = tmp_path / "folder"
    export(registry, target, models=["small"])
    take(elsewhere, target)
    elsewhere.patch("small", description="ours")
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.json")}
    publish(registry, tmp_path, 3)
    export(registry, target, models=["small"])
    kept = {path for path, at in before.items() if path.stat().st_mtime_ns == at}
    assert kept == before.keys() - {target / MANIFEST}, "records are not written again"
    found = take(elsewhere, target)
    assert [found[f"small/{n}"] for n in (1, 2, 3)] == ["there", "there", "added"]
    assert elsewhere.model("small").description == "ours"
    assert "other/1" not in found
    publish(elsewhere, tmp_path, 4)
    assert elsewhere.model("small").latest == 4


def test_nothing_is_added_to_a_model_of_another_project(
    registry, elsewhere, tmp_path
) -> None:
    ours = Registry(elsewhere.database, elsewhere.blobs, access=Access("ours"))
    publish(ours, tmp_path, 77)
    target = tmp_path / "registry.zip"
    export(registry, target)
    found = import_registry(elsewhere.database, elsewhere.blobs, target, aliases=True)
    refused = [each for each in found.of("refused") if each.name.startswith("small")]
    assert {each.name for each in refused} >= {"small/1", "small/2", "small@champion"}
    assert [each for each in refused if "another project" not in each.detail] == []
    assert ours.model("small").latest == 1
    assert elsewhere.model("other").project == "default"


def test_a_taken_number_is_refused_with_both_digests(
    registry, elsewhere, tmp_path
) -> None:
    ours = publish(elsewhere, tmp_path, 77)
    theirs = registry.version("small", 1).digest
    target = tmp_path / "registry.zip"
    export(registry, target)
    found = import_registry(elsewhere.database, elsewhere.blobs, target, aliases=True)
    (refused,) = found.of("refused")
    assert refused.name == "small/1"
    assert ours in refused.detail
    assert theirs in refused.detail
    assert elsewhere.version("small", 1).digest == ours
    assert elsewhere.version("small", 2).digest == registry.version("small", 2).digest
    assert not elsewhere.blobs.exists(f"artifacts/{theirs}"), "nothing of it is left"
    # The same artifact under another number is not taken twice.
    again = publish(elsewhere, tmp_path, 1)
    assert again == theirs
    found = import_registry(elsewhere.database, elsewhere.blobs, target)
    (other,) = [each for each in found.outcomes if each.name == "small/1"]
    assert (other.state, other.detail) == ("there", "as small/3")


def test_a_number_that_was_given_is_not_given_again(
    registry, elsewhere, tmp_path
) -> None:
    publish(registry, tmp_path, 3)
    registry.delete_version("small", 3)
    export(registry, tmp_path / "registry.zip")
    take(elsewhere, tmp_path / "registry.zip")
    publish(elsewhere, tmp_path, 5)
    assert elsewhere.model("small").latest == 4


def test_a_given_number_comes_without_a_version(registry, elsewhere, tmp_path) -> None:
    target = tmp_path / "registry.zip"
    export(registry, target)
    take(elsewhere, target)
    last = publish_and_delete(registry, tmp_path)
    publish(registry, tmp_path, 4, name="emptied")
    registry.patch("emptied", description="all gone")
    registry.aliases.delete("emptied", "champion", moved_by="me", if_match="*")
    registry.delete_version("emptied", 1)
    export(registry, target)
    assert set(take(elsewhere, target).values()) <= {"there", "left"}
    publish(elsewhere, tmp_path, 5)
    assert elsewhere.model("small").latest == last + 1
    assert elsewhere.model("emptied").description == "all gone"
    publish(elsewhere, tmp_path, 5, name="emptied")
    assert elsewhere.model("emptied").latest == 2


def publish_and_delete(registry, folder):
    publish(registry, folder, 3)
    last = registry.model("small").latest
    registry.delete_version("small", last)
    return last


def test_champion_keeps_its_gate(registry, elsewhere, tmp_path) -> None:
    publish(registry, tmp_path, 5, name="unproved", evaluation={})
    registry.aliases.set("unproved", "champion", 1, moved_by="me", override="I know it")
    target = tmp_path / "registry.zip"
    export(registry, target, models=["unproved"])
    assert take(elsewhere, target, aliases=True)["unproved@champion"] == "moved"
    assert elsewhere.aliases.history("unproved", "champion")[0].reason == (
        "imported: I know it"
    )
    elsewhere.aliases.delete("unproved", "champion", moved_by="me", if_match="*")
    folder = tmp_path / "changed"
    export(registry, folder, models=["unproved"])
    change(folder, lambda manifest: manifest["models"][0].update(moves=[]))
    assert take(elsewhere, folder, aliases=True)["unproved@champion"] == "refused"


@pytest.fixture
def after_a_trial(registry, tmp_path):
    """An archive in which an alias was deleted."""
    registry.aliases.set("small", "trial", 1, moved_by="me")
    registry.aliases.delete("small", "trial", moved_by="me", if_match="*")
    target = tmp_path / "registry.zip"
    export(registry, target)
    return target


def test_the_history_of_a_deleted_alias_comes_along(
    registry, elsewhere, after_a_trial
) -> None:
    target = after_a_trial
    assert take(elsewhere, target)["small@trial"] == "left"
    assert take(elsewhere, target, aliases=True)["small@trial"] == "added"
    kept = registry.aliases.history("small", "trial")
    assert elsewhere.aliases.history("small", "trial") == kept
    assert [each.number for each in kept] == [None, 1]
    assert "trial" not in elsewhere.model("small").aliases
    for asked in (False, True):
        assert take(elsewhere, target, aliases=asked)["small@trial"] == "there"
    assert elsewhere.aliases.history("small", "trial") == kept


def test_a_history_of_other_versions_than_those_here_is_left(
    elsewhere, after_a_trial, tmp_path
) -> None:
    publish(elsewhere, tmp_path, 7)
    assert take(elsewhere, after_a_trial, aliases=True)["small@trial"] == "left"
    with pytest.raises(NotFound, match="trial"):
        elsewhere.aliases.history("small", "trial")


def test_datasets_go_along_where_that_is_asked(
    registry, elsewhere, settings, small_file, tmp_path
) -> None:
    datasets = Datasets(registry.database, registry.blobs, settings)
    named = datasets.add(small_file, owner="me", name="named").id
    unnamed = datasets.add(small_file, owner="me").id
    publish(registry, tmp_path, 6, name="third", dataset=named)
    target = tmp_path / "registry.zip"
    assert not export(registry, target).datasets
    assert {each.id for each in export(registry, target, datasets=True).datasets} == {
        named,
        unnamed,
    }
    export(registry, target, models=["third"], datasets=True)
    assert named not in take(elsewhere, target)
    assert take(elsewhere, target, datasets=True)[named] == "added"
    assert take(elsewhere, target, datasets=True)[named] == "there"
    there = Datasets(elsewhere.database, elsewhere.blobs, settings)
    assert there.get(named) == datasets.get(named)
    there.download(named, tmp_path / "copy.npz")
    assert sha256(tmp_path / "copy.npz") == datasets.get(named).digest


def test_what_is_not_there_is_said(registry, elsewhere, tmp_path) -> None:
    with pytest.raises(NotFound, match="no model 'absent'"):
        export(registry, tmp_path / "registry.zip", models=["absent"])
    assert not list(tmp_path.glob("*.zip")), "nothing half-written is left"
    export(registry, tmp_path / "registry.zip")
    with pytest.raises(NotFound, match="the archive has other, small"):
        take(elsewhere, tmp_path / "registry.zip", models=["absent"])
    registry.blobs.delete(registry.version("other", 1).artifact_key)
    with pytest.raises(Conflict, match="the content of other/1 is not in the store"):
        export(registry, tmp_path / "registry.zip")
    for name in ("a_file", "a_folder"):
        (tmp_path / "a_folder").mkdir(exist_ok=True)
        (tmp_path / "a_folder" / "theirs").touch()
        (tmp_path / "a_file").touch()
        with pytest.raises(Conflict, match=name):
            export(registry, tmp_path / name)


def test_an_export_that_was_killed_is_gone_on_with(
    registry, elsewhere, tmp_path
) -> None:
    folder = tmp_path / "folder"
    export(registry, folder)
    (folder / MANIFEST).rename(folder / f".{MANIFEST}.7.tmp")
    damaged, lost, *_ = sorted((folder / "artifacts").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    lost.rename(lost.with_name(f".{lost.name}.7.tmp"))
    record, *_ = (folder / "records").iterdir()
    record.write_bytes(b"{}")
    export(registry, folder)
    assert set(take(elsewhere, folder).values()) == {"added", "left"}
    for name in ("artifacts/theirs", ".theirs.7.tmp", "datasets"):
        other = tmp_path / f"not {name}".replace("/", " ")
        (other / "records").mkdir(parents=True)
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).touch()
        with pytest.raises(Conflict, match="a folder of other files"):
            export(registry, other)


def change(folder: Path, how) -> None:
    """Rewrite the manifest of an archive."""
    manifest = json.loads((folder / MANIFEST).read_text())
    how(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_an_import_that_failed_goes_on_where_it_was(
    registry, elsewhere, tmp_path
) -> None:
    """The second artifact cannot be stored: the first version is whole, alone."""
    target = tmp_path / "registry.zip"
    export(registry, target, models=["small"])
    store = Path(elsewhere.blobs.root or "") / "artifacts"
    store.mkdir(exist_ok=True)
    (store / registry.version("small", 2).digest).mkdir()
    with pytest.raises(Unavailable):
        take(elsewhere, target)
    assert [version.number for version in elsewhere.versions("small").items] == [1]
    (store / registry.version("small", 2).digest).rmdir()
    found = take(elsewhere, target)
    assert (found["small/1"], found["small/2"]) == ("there", "added")
