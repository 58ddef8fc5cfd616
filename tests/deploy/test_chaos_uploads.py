"""The audit of the fault command holds uploads against the rows of datasets."""

from tests.deploy.test_chaos_audit import world

__all__ = ["world"]


def test_the_audit_finds_an_upload_that_was_kept_twice(world) -> None:
    first = world.uploads[0]
    assert world.upload(first.path, first.key) == first.id
    assert world.findings() == [], "asked twice, kept once"
    world.datasets.add(first.path, owner="me", name=first.key)
    assert world.findings() == ["a dataset exists that nobody uploaded"]


def test_the_audit_finds_an_upload_that_is_lost_or_without_an_answer(world) -> None:
    lost, unanswered = world.uploads
    world.datasets.delete(lost.id)
    assert world.findings() == ["an accepted upload is lost"]
    unanswered.id = None
    assert set(world.findings()) == {
        "an accepted upload is lost",
        "an upload never got an answer",
        "a dataset exists that nobody uploaded",
    }


def test_the_audit_finds_uploads_that_were_taken_for_one_another(world) -> None:
    first, second = world.uploads
    first.id, second.id = second.id, first.id
    assert world.findings() == ["an upload has another content"] * 2
    first.id = second.id
    assert sorted(world.findings()) == [
        "a dataset exists that nobody uploaded",
        "an upload has another content",
        *["two uploads are one dataset"] * 2,
    ]
