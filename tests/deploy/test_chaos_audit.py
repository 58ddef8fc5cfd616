"""The audit of a fault run: it finds each thing that can be wrong."""

import threading
from pathlib import Path

import jax
import pytest
import sqlalchemy as sa

from deploy.chaos import passing
from deploy.chaos.aliases import ALIAS, Moves
from deploy.chaos.audit import Audit, _asked, _ranking
from deploy.chaos.submissions import Submission
from deploy.chaos.tally import Tally
from deploy.chaos.uploads import Upload
from services.blobs import Blobs
from services.database import tables
from services.database.engine import Database
from services.database.migrate import upgrade
from services.database.tables import instant
from services.datasets import Datasets
from services.jobs import Jobs
from services.leases import Leases
from services.registry import Registry
from services.settings import Settings
from spnode_core import artifact
from spnode_core.dataset import save_dataset
from spnode_core.systems import generate
from tests.core.models import small_surrogate

jax.config.update("jax_enable_x64", True)


class World:
    """After a good run: a training, a dataset, two calibrations, two uploads."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(data_folder=folder / "data")
        self.database = Database(settings.database_url)
        upgrade(self.database)
        self.blobs = Blobs(settings.store_url)
        self.jobs, self.leases = Jobs(self.database), Leases(self.database)
        self.datasets = Datasets(self.database, self.blobs, settings)
        self.registry = Registry(self.database, self.blobs)
        self.folder, self.work = folder, settings.data_folder / "work"
        self.submissions: list[Submission] = []
        self.uploads: list[Upload] = []
        self.moves = Moves("m")
        self.training, self.dataset = self.train(), self._make_dataset()
        self.calibrations = [self._calibrate(), self._calibrate()]
        self.files = [folder / "dataset.npz", folder / "other.npz"]
        save_dataset(generate("robertson", 3, seed=2), self.files[1])
        for path in self.files:
            self.upload(path)
        cancelled = self._submit("dataset", {"kind": "dataset", "seed": 5})
        self.jobs.cancel(cancelled)
        self.submissions[-1].cancel = "asked"

    def findings(self) -> list[str]:
        audit = Audit(
            self.database,
            self.blobs,
            self.submissions,
            -1.0,
            [self.work],
            self.uploads,
            self.moves,
        )
        return [each["what"] for each in audit.findings()]

    def execute(self, statement) -> None:
        with self.database.transaction() as connection:
            connection.execute(statement)

    def change(self, id: str, **values) -> None:
        table = tables.jobs
        self.execute(sa.update(table).where(table.c.id == id).values(values))

    def upload(self, path: Path, key: str = "") -> str:
        """Keep a file and note it, under a new key or once more under an old one."""
        made = Upload.of(path, key or f"file-{len(self.uploads)}")
        record, replayed = self.datasets.upload(
            path, owner="me", name=made.key, idempotency_key=made.key
        )
        if not replayed:
            made.id = record.id
            self.uploads.append(made)
        return record.id

    def _submit(self, kind: str, request: dict) -> str:
        key = f"key-{len(self.submissions)}"
        job, _ = self.jobs.submit(kind, request, owner="me", idempotency_key=key)
        self.submissions.append(Submission(request, key, job.id))
        return job.id

    def _claim(self, id: str):
        claim = self.leases.claim(self.jobs.get(id).queue, "worker")
        assert claim is not None
        assert claim.job.id == id
        return claim

    def train(self) -> str:
        claim = self._claim(
            self._submit("training", {"kind": "training", "model": "m"})
        )
        path = self.folder / "artifact"
        surrogate = small_surrogate(normalisation=dict.fromkeys("abc", "linear"))
        artifact.save(surrogate, path, card={"job": claim.job.id})
        digest = self.blobs.put_content("artifacts", path)
        with self.database.transaction() as connection:
            number = self.registry.publish(
                connection,
                "m",
                owner="me",
                digest=digest,
                size_bytes=path.stat().st_size,
                signature=surrogate.signature.model_dump(mode="json"),
                spec=surrogate.spec.model_dump(mode="json"),
                card={},
                evaluation={},
                certificate={},
                job_id=claim.job.id,
            )
            result = {"model": "m", "version": number, "digest": digest}
            self.leases.succeed(connection, claim, result, "done")
        return claim.job.id

    def _make_dataset(self) -> str:
        claim = self._claim(self._submit("dataset", {"kind": "dataset", "seed": 1}))
        path = self.folder / "dataset.npz"
        save_dataset(generate("robertson", 2, seed=1), path)
        digest = self.blobs.put_content("datasets", path)
        with self.database.transaction() as connection:
            record = self.datasets.register(
                connection,
                digest=digest,
                size_bytes=path.stat().st_size,
                summary={},
                owner="me",
                job_id=claim.job.id,
            )
            self.leases.succeed(connection, claim, {"dataset": record.id}, "done")
        return claim.job.id

    def _calibrate(self) -> str:
        claim = self._claim(self._submit("calibration", {"kind": "calibration"}))
        with self.database.transaction() as connection:
            self.leases.succeed(connection, claim, {"estimates": [0.5]}, "done")
        return claim.job.id


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    assert made.findings() == []
    yield made
    made.database.close()


def test_the_audit_finds_an_end_that_was_told_twice(world) -> None:
    values = {"job_id": world.dataset, "kind": "status", "level": "info"}
    values |= {"message": "again", "data": {"state": "succeeded"}}
    world.execute(sa.insert(tables.events).values(created_at=instant(0.0), **values))
    assert set(world.findings()) == {
        "the end of a job was not told once",
        "the events of a job contradict",
    }


@pytest.mark.parametrize("prefix", ["artifacts", "datasets"])
@pytest.mark.parametrize("is_missing", [True, False], ids=["missing", "damaged"])
def test_the_audit_finds_a_content_that_is_gone_or_damaged(
    world, prefix, is_missing
) -> None:
    key, *_ = world.blobs.list(prefix)
    path = world.blobs.root / key
    path.unlink() if is_missing else path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "a content cannot be read" in world.findings()


def test_the_audit_finds_another_answer_to_the_same_request(world) -> None:
    world.change(world.calibrations[1], result={"estimates": [0.5000001]})
    assert world.findings() == ["the same request had another answer"]


def test_the_audit_finds_jobs_that_are_lost_doubled_or_stuck(world) -> None:
    world.submissions.append(Submission({}, "lost", f"job_{'0' * 26}"))
    world.jobs.submit("calibration", {"kind": "calibration"}, owner="me")
    assert sorted(world.findings()) == [
        "a job did not end rightly",
        "a job exists that nobody submitted",
        "an accepted job is lost",
    ]


def test_candidates_are_submitted_with_their_sweep_and_end_as_it_does(world) -> None:
    request = {"kind": "training", "model": "n"}
    ids = [f"job_{'0' * 25}{number}" for number in (1, 2)]
    sweep, _ = world.jobs.submit(
        "sweep", {"kind": "sweep"}, owner="me", candidates=dict.fromkeys(ids, request)
    )
    world.submissions.append(Submission({}, "sweep", sweep.id))
    assert sorted(world.findings()) == ["a job did not end rightly"] * 3
    world.jobs.cancel(sweep.id)
    world.submissions[-1].cancel = "asked"
    assert world.findings() == []
    world.submissions.pop()
    assert set(world.findings()) >= {"a job exists that nobody submitted"}


def test_the_audit_finds_a_cancelled_job_that_ended_well(world) -> None:
    world.submissions[2].cancel = "asked"
    assert world.findings() == ["a job did not end rightly"]


def test_a_job_that_was_retried_is_to_succeed_after_its_first_end(world) -> None:
    retried = world.submissions[-1]
    assert retried.cancel == "asked"
    world.jobs.retry(retried.id, owner="me", idempotency_key="again")
    retried.retry = "taken"
    assert world.findings() == ["a job did not end rightly"], "it is still queued"
    retried.retry = ""
    assert "the end of a job was not told once" in world.findings()
    world.jobs.cancel(retried.id)
    retried.retry = "taken"
    assert world.findings() == ["a job did not end rightly"], "cancelled once more"


def test_the_audit_finds_uploads_that_came_back_or_went_unasked(world) -> None:
    upload = world.uploads[0]
    upload.deletion = "asked"
    assert world.findings() == ["a deleted dataset is there"]
    world.datasets.delete(upload.id)
    assert world.findings() == []
    upload.deletion = ""
    assert world.findings() == ["an accepted upload is lost"]


def test_the_audit_finds_moves_of_an_alias_that_were_lost_or_doubled(world) -> None:
    def move(number: int) -> None:
        known = world.registry.model("m").aliases
        at = world.registry.aliases.get("m", ALIAS).etag if ALIAS in known else None
        world.registry.aliases.set("m", ALIAS, number, moved_by="me", if_match=at)

    world.train()
    for number in (1, 2, 1):
        move(number)
    world.moves.taken += [1, 2, 1]
    assert world.findings() == []
    world.moves.taken.append(2)
    assert world.findings() == ["a move of an alias is lost"]
    world.moves.taken = [1, 1]
    assert world.findings() == ["an alias was moved twice for one request"]
    world.moves.unanswered = 1
    assert world.findings() == []
    world.execute(sa.update(tables.aliases).values(number=2))
    assert world.findings() == ["an alias is not where it was moved last"]


def test_the_audit_finds_an_alias_whose_versions_are_gone(world) -> None:
    versions, aliases = tables.versions, tables.aliases
    with world.database.reading() as connection:
        row = dict(connection.execute(sa.select(versions)).mappings().one())
    models = tables.models
    with world.database.reading() as connection:
        model = dict(connection.execute(sa.select(models)).mappings().one())
    world.execute(sa.insert(models).values({**model, "name": passing.MODEL}))
    left = {"model": passing.MODEL, "number": 7, "job_id": None}
    world.execute(sa.insert(versions).values({**row, **left}))
    lost = ["an alias whose versions come and go points at none"]
    assert world.findings() == lost
    moved = {"alias": passing.ALIAS, "revision": 3, "updated_at": row["created_at"]}
    at = {"model": passing.MODEL, "number": 7, **moved}
    world.execute(sa.insert(aliases).values(at))
    assert world.findings() == []
    assert list(passing.contradictions([7], 6)) == lost


def test_the_audit_finds_a_second_version_and_a_gap(world) -> None:
    table = tables.versions
    with world.database.reading() as connection:
        row = dict(connection.execute(sa.select(table)).mappings().one())
    world.execute(sa.insert(table).values({**row, "number": 3, "job_id": "job_other"}))
    assert set(world.findings()) == {
        "something was made by no job",
        "a job names another version than it made",
        "numbers of versions are missing",
    }


def test_the_audit_finds_what_was_left_behind(world) -> None:
    world.blobs.put_content("artifacts", b"nobody's")
    world.blobs.put_content(f"checkpoints/{world.training}", b"of an ended job")
    half = world.blobs.root / "datasets" / "half#1"
    half.write_bytes(b"")
    (world.work / "body-host-1-abcd_123").mkdir(parents=True)
    assert world.findings() == [
        *["an orphan was not swept"] * 3,
        "a folder of a job or request was left",
    ]


def test_sweeps_are_the_same_whatever_their_candidates_are_called() -> None:
    """Ids and numbers differ from one to the next, what was found does not."""

    def request(id: str) -> dict:
        return {"seed": 1, "candidates": [{"job": id, "settings": {"seed": 0}}]}

    def result(version: int, error: float) -> dict:
        row = {"job": f"job_{version}", "version": version, "digest": f"{version}"}
        row |= {"settings": {"seed": 0}, "state": "succeeded"}
        return {"best": version, "ranking": [{**row, "validation": error}]}

    assert _asked(request("a")) == _asked(request("b"))
    assert _ranking(result(1, 0.5)) == _ranking(result(2, 0.5))
    assert _ranking(result(1, 0.5)) != _ranking(result(1, 0.6))


def test_what_was_done_without_our_knowing_is_counted_by_thread() -> None:
    tally = Tally()
    tally.doubt()
    found = []
    other = threading.Thread(target=lambda: found.append(tally.doubtful))
    other.start()
    other.join()
    assert (tally.doubtful, found) == (1, [0])
