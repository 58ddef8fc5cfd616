from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import pytest
import sqlalchemy as sa

from services.blobs import Blobs
from services.database.engine import Database
from services.database.registry_rows import number_of
from services.errors import (
    Conflict,
    Invalid,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Unavailable,
)
from services.jobs import Jobs
from services.projects import Access
from services.registry import Registry
from services.versions import check_alias, check_name, read_reference

GOOD = {"test": {"scaled_mse": 1e-7}, "validation": {"scaled_mse": 2e-7}}
BOX = {"holds": True, "statement": "Each latent variable stays within its bound."}
UNSTABLE = {"holds": False, "statement": "A has an eigenvalue with real part 0.1."}


@pytest.fixture
def registry(any_database: Database, blobs: Blobs, clock) -> Registry:
    return Registry(any_database, blobs, clock=clock)


def publish(
    registry: Registry,
    name: str = "robertson",
    *,
    content: bytes = b"artifact",
    evaluation: dict = GOOD,
    certificate: dict | None = None,
    **options,
) -> int:
    digest = registry.blobs.put_content("artifacts", content)
    with registry.database.transaction() as connection:
        return registry.publish(
            connection,
            name,
            owner="me",
            digest=digest,
            size_bytes=len(content),
            signature={"states": ["a"]},
            spec={},
            card={},
            evaluation=evaluation,
            certificate={"invariant_box": BOX} if certificate is None else certificate,
            **options,
        )


def test_versions_are_numbered_and_the_first_good_one_is_champion(registry) -> None:
    bad = publish(registry, evaluation={"test": {"scaled_mse": None}})
    with pytest.raises(NotFound, match="no version has become champion"):
        registry.resolve("robertson")
    good, later = publish(registry), publish(registry)
    assert (bad, good, later) == (1, 2, 3)
    assert registry.resolve("robertson").number == 2
    assert registry.resolve("robertson@champion").number == 2
    assert registry.resolve("robertson@latest").number == 3
    assert registry.resolve("robertson/1").number == 1
    model = registry.model("robertson")
    assert (model.latest, model.aliases) == (3, {"champion": 2})


@pytest.mark.parametrize("any_database", ["postgresql"], indirect=True)
def test_a_reference_is_read_from_one_moment(registry, blobs, monkeypatch) -> None:
    publish(registry, content=b"first")
    publish(registry, content=b"second")
    other = Registry(registry.database, blobs, clock=registry.clock)

    def overtaken(*args):
        number = number_of(*args)
        etag = other.aliases.get("robertson", "champion").etag
        other.aliases.set("robertson", "champion", 2, moved_by="me", if_match=etag)
        other.delete_version("robertson", number)
        return number

    monkeypatch.setattr("services.registry.number_of", overtaken)
    assert registry.resolve("robertson").number == 1, "as it was when it was asked for"
    monkeypatch.undo()
    assert registry.resolve("robertson").number == 2


def test_a_job_publishes_one_version(registry) -> None:
    publish(registry, job_id="job_1")
    with pytest.raises(sa.exc.IntegrityError):
        publish(registry, job_id="job_1")
    assert [v.number for v in registry.versions("robertson").items] == [1]


def test_concurrent_publications_get_different_numbers(registry) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = [threads.submit(publish, registry, "new") for _ in range(16)]
    numbers = sorted(each.result() for each in made)
    assert numbers == list(range(1, 17))
    assert len(registry.aliases.history("new", "champion")) == 1


def test_a_requested_alias_points_at_the_new_version(registry) -> None:
    publish(registry)
    publish(registry, alias="challenger")
    assert registry.resolve("robertson@challenger").number == 2
    assert registry.resolve("robertson").number == 1
    publish(registry, alias="champion", evaluation={})
    assert registry.resolve("robertson").number == 1
    publish(registry, alias="champion")
    assert registry.resolve("robertson").number == 4


def test_an_alias_moves_only_under_the_etag_that_was_seen(registry) -> None:
    for _ in range(3):
        publish(registry)
    made = registry.aliases.set("robertson", "challenger", 1, moved_by="me")
    with pytest.raises(PreconditionRequired, match="If-Match"):
        registry.aliases.set("robertson", "challenger", 2, moved_by="me")
    moved = registry.aliases.set(
        "robertson", "challenger", 2, moved_by="me", if_match=made.etag
    )
    with pytest.raises(PreconditionFailed, match=f"is at {moved.etag}"):
        registry.aliases.set(
            "robertson", "challenger", 3, moved_by="me", if_match=made.etag
        )
    registry.aliases.set("robertson", "challenger", 3, moved_by="me", if_match="*")
    history = registry.aliases.history("robertson", "challenger")
    assert [(m.previous, m.number) for m in history] == [(2, 3), (1, 2), (None, 1)]


def test_of_two_concurrent_moves_under_one_etag_one_wins(registry) -> None:
    for _ in range(9):
        publish(registry)
    etag = registry.aliases.set("robertson", "best", 1, moved_by="me").etag

    def move(number: int) -> bool:
        try:
            registry.aliases.set(
                "robertson", "best", number, moved_by="me", if_match=etag
            )
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(move, range(2, 10)))
    assert won.count(True) == 1
    assert len(registry.aliases.history("robertson", "best")) == 2


def test_an_etag_never_comes_back_after_a_deletion(registry) -> None:
    publish(registry)
    made = registry.aliases.set("robertson", "best", 1, moved_by="me")
    registry.aliases.delete("robertson", "best", moved_by="me", if_match=made.etag)
    again = registry.aliases.set("robertson", "best", 1, moved_by="me")
    assert again.etag != made.etag
    numbers = [m.number for m in registry.aliases.history("robertson", "best")]
    assert numbers == [1, None, 1]


def test_champion_refuses_a_version_that_fails_its_gates(registry) -> None:
    publish(registry)
    publish(registry, evaluation={})
    with pytest.raises(Conflict, match="no evaluation on held-out") as refused:
        registry.aliases.set("robertson", "champion", 2, moved_by="me", if_match="*")
    assert refused.value.code == "gate_failed"
    registry.aliases.set(
        "robertson", "champion", 2, moved_by="me", if_match="*", override="we must"
    )
    assert registry.aliases.history("robertson", "champion")[0].reason == "we must"


def test_a_certificate_that_does_not_hold_is_a_warning(registry) -> None:
    publish(registry, certificate={"spectral_abscissa": UNSTABLE})
    assert registry.aliases.get("robertson", "champion").warnings == (
        UNSTABLE["statement"],
    )
    publish(registry, certificate={})
    with pytest.raises(Conflict, match="has no certificate"):
        registry.aliases.set("robertson", "champion", 2, moved_by="me", if_match="*")


def test_what_fails_usually_is_no_warning(registry) -> None:
    fails = {"holds": False, "statement": "It is not proved."}
    usual = dict.fromkeys(
        ("contraction", "fixed_point", "lipschitz", "log_norm"), fails
    )
    publish(registry, certificate={"invariant_box": BOX, **usual})
    assert registry.aliases.get("robertson", "champion").warnings == ()


@pytest.mark.parametrize(
    ("is_bounded", "warnings"), [(True, ()), (False, ("No box.",))]
)
def test_a_ball_does_instead_of_a_box(registry, is_bounded, warnings) -> None:
    certificate = {
        "invariant_box": {"holds": False, "statement": "No box."},
        "invariant_ball": {"holds": is_bounded, "statement": "A ball."},
    }
    publish(registry, certificate=certificate)
    assert registry.aliases.get("robertson", "champion").warnings == warnings


def test_a_version_is_not_deleted_while_an_alias_points_at_it(registry) -> None:
    publish(registry)
    publish(registry, content=b"other")
    with pytest.raises(Conflict, match="robertson@champion points at version 1"):
        registry.delete_version("robertson", 1)
    digest = registry.version("robertson", 2).digest
    registry.delete_version("robertson", 2)
    assert not registry.blobs.exists(f"artifacts/{digest}")
    with pytest.raises(NotFound, match="robertson/2"):
        registry.version("robertson", 2)
    assert publish(registry) == 3, "a number is never given again"


@pytest.mark.parametrize("kind", ["rollout", "calibration", "evaluation", "training"])
def test_a_version_is_not_deleted_while_a_job_needs_it(registry, clock, kind) -> None:
    publish(registry)
    publish(registry, content=b"other")
    digest = registry.version("robertson", 2).digest
    request = {
        "rollout": {"digest": digest},
        "calibration": {"digest": digest},
        "evaluation": {"versions": [{"version": "robertson/2", "digest": digest}]},
        "training": {"parent": {"version": "robertson/2", "digest": digest}},
    }[kind]
    jobs = Jobs(registry.database, clock=clock)
    job, _ = jobs.submit(kind, request, owner="me")
    with pytest.raises(Conflict, match=f"job '{job.id}' needs version 2"):
        registry.delete_version("robertson", 2)
    jobs.cancel(job.id)
    registry.delete_version("robertson", 2)


@pytest.mark.parametrize("kind", ["rollout", "evaluation", "training"])
def test_nothing_is_queued_for_a_version_that_was_deleted(registry, kind) -> None:
    publish(registry)
    publish(registry, content=b"other")
    digest = registry.version("robertson", 2).digest
    registry.delete_version("robertson", 2)
    request = {
        "rollout": {"digest": digest},
        "evaluation": {"versions": [{"version": "robertson/2", "digest": digest}]},
        "training": {"parent": {"version": "robertson/2", "digest": digest}},
    }[kind]
    jobs = Jobs(registry.database)
    with pytest.raises(Conflict, match="has been deleted"):
        jobs.submit(kind, request, owner="me")
    assert jobs.list().items == ()


def test_of_a_deletion_and_a_submission_at_once_one_is_refused(registry) -> None:
    for number in range(1, 21):
        publish(registry, content=b"x" * number)
    jobs, deleted, queued = Jobs(registry.database), [], []

    def delete(number: int, digest: str) -> None:
        with suppress(Conflict):
            registry.delete_version("robertson", number)
            deleted.append(number)

    def submit(number: int, digest: str) -> None:
        with suppress(Conflict):
            jobs.submit("rollout", {"digest": digest}, owner="me")
            queued.append(number)

    with ThreadPoolExecutor(2) as threads:
        for number in range(2, 21):
            digest = registry.version("robertson", number).digest
            wait([threads.submit(each, number, digest) for each in (submit, delete)])
    assert sorted(deleted + queued) == list(range(2, 21))


def test_a_job_of_another_project_keeps_no_version(registry) -> None:
    """It has the same artifact; nobody here may know of the job."""
    publish(registry)
    publish(registry, content=b"other")
    digest = registry.version("robertson", 2).digest
    jobs = Jobs(registry.database, access=Access("theirs"))
    jobs.submit("rollout", {"digest": digest}, owner="them")
    registry.delete_version("robertson", 2)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda digest: {
            "model": "mine",
            "parent": {"model": "robertson", "version": 2, "digest": digest},
        },
        lambda digest: {"model": "robertson/2", "digest": digest},
        lambda digest: {"model": "robertson@passing", "digest": digest},
    ],
)
def test_a_job_of_an_administrator_s_project_keeps_a_version(
    registry, request_of
) -> None:
    publish(registry)
    publish(registry, content=b"other")
    digest = registry.version("robertson", 2).digest
    jobs = Jobs(registry.database, access=Access("theirs", sees_all=True))
    jobs.submit("rollout", request_of(digest), owner="them")
    with pytest.raises(Conflict, match="job of an administrator needs version 2"):
        registry.delete_version("robertson", 2)


def test_a_shared_artifact_goes_with_its_last_version(registry) -> None:
    publish(registry)
    publish(registry)
    digest = registry.version("robertson", 2).digest
    registry.delete_version("robertson", 2)
    assert registry.blobs.exists(f"artifacts/{digest}")


def test_a_version_without_its_artifact_is_not_published(registry) -> None:
    with (
        pytest.raises(Unavailable, match="deleted meanwhile"),
        registry.database.transaction() as connection,
    ):
        registry.publish(
            connection,
            "robertson",
            owner="me",
            digest="0" * 64,
            size_bytes=1,
            signature={},
            spec={},
            card={},
            evaluation=GOOD,
            certificate={},
        )
    assert registry.models().items == ()


def test_description_and_tags_change_under_if_match(registry) -> None:
    publish(registry)
    seen = registry.model("robertson")
    changed = registry.patch("robertson", description="Stiff.", if_match=seen.etag)
    assert (changed.description, changed.tags) == ("Stiff.", {})
    with pytest.raises(PreconditionFailed, match="has changed"):
        registry.patch("robertson", tags={"a": "b"}, if_match=seen.etag)
    assert registry.patch("robertson", tags={"a": "b"}).description == "Stiff."


def test_pages_hold_every_model_and_version_once(registry, clock) -> None:
    for number in range(5):
        publish(registry, f"model-{number}")
        publish(registry, "many")
        clock.advance(number % 2)
    for ask in (registry.models, lambda **page: registry.versions("many", **page)):
        found, after = [], None
        while True:
            page = ask(limit=2, after=after)
            found += page.items
            after = page.next
            if after is None:
                break
        names = [getattr(each, "name", getattr(each, "number", None)) for each in found]
        assert len(names) == len(set(names)) == (6 if ask == registry.models else 5)


@pytest.mark.parametrize(
    "text", ["", "Robertson", "a@", "a/", "a/x", "a@b/3", "a/3@b", "../x", "a" * 65]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="name@alias"):
        read_reference(text)


@pytest.mark.parametrize("alias", ["latest", "3", "v3", "v12", "Best", "-x"])
def test_an_alias_is_not_latest_nor_like_a_number(alias: str) -> None:
    with pytest.raises(Invalid, match="/alias"):
        check_alias(alias)


def test_names_are_short_and_plain() -> None:
    assert check_name("a-1_b") == "a-1_b"
    for name in ("", "A", "a b", "-a", "a/b", "é", "a" * 65, "a\n"):
        with pytest.raises(Invalid):
            check_name(name)
