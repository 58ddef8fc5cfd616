"""The audit after the faults: what was lost, doubled, wrong or left behind.

It reads database and store by itself, without any link, and believes the rows only
where the contents agree.
"""

import itertools
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from deploy.chaos import passing
from deploy.chaos.aliases import ALIAS, Moves
from deploy.chaos.orphans import orphans
from deploy.chaos.submissions import CANCELLED, Submission
from deploy.chaos.uploads import Upload
from services.blobs import Blobs, Damaged
from services.database import tables
from services.database.engine import Database
from services.errors import NotFound
from services.identity import sha256
from services.lifecycle import TERMINAL, TRANSITIONS
from services.results import Chunk
from spnode_core.artifact import load
from spnode_core.artifact_file import CARD, MEMBERS, read_members
from spnode_core.dataset import load_dataset
from spnode_core.errors import SpnodeError

Finding = dict[str, Any]
Rows = list[Mapping[str, Any]]


class Audit:
    """Everything that database and store hold after a run.

    Args:
        database: Reached without a link.
        blobs: Likewise.
        submissions: What the callers asked for.
        orphan_s: From which age on nothing may lie in the store without a reference.
        work_folders: Where the folders of jobs and requests were.
        uploads: What the callers sent.
        moves: Where the callers moved an alias.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        submissions: Sequence[Submission],
        orphan_s: float,
        work_folders: Sequence[Path] = (),
        uploads: Sequence[Upload] = (),
        moves: Moves | None = None,
    ) -> None:
        self.blobs = blobs
        self.submissions = submissions
        self.orphan_s = orphan_s
        self.work_folders = work_folders
        self.uploads = uploads
        self.moves = moves
        self._repeated: set[str] = set()
        with database.reading() as connection:
            self.jobs = {row["id"]: row for row in _all(connection, tables.jobs)}
            self.versions = _all(connection, tables.versions)
            self.datasets = _all(connection, tables.datasets)
            self.chunks = _all(connection, tables.chunks)
            self.aliases = _all(connection, tables.aliases)
            self.alias_moves = _all(connection, tables.alias_moves)
            self.events: dict[str, Rows] = defaultdict(list)
            for row in _all(connection, tables.events):
                if row["kind"] == "status":
                    self.events[row["job_id"]].append(row)

    def findings(self) -> list[Finding]:
        """All that is wrong; empty after a good run."""
        checks = (
            self.submitted,
            self.uploaded,
            self.ended,
            self.told,
            self.published,
            self.moved,
            self.passed,
            self.contents,
            self.answers,
            self.left_behind,
        )
        return [finding for check in checks for finding in check()]

    def submitted(self) -> Iterator[Finding]:
        """Each submission is one job, and there are none but candidates of those."""
        ids = [each.id for each in self.submissions]
        candidates = {
            id
            for id, row in self.jobs.items()
            if row["parent_id"] is not None and row["parent_id"] in ids
        }
        for each in self.submissions:
            if each.id is None:
                yield _finding("a submission never got an answer", each.key)
            elif each.id not in self.jobs:
                yield _finding("an accepted job is lost", each.id)
            if each.id is not None and ids.count(each.id) > 1:
                yield _finding("two submissions are one job", each.id)
        for id in self.jobs.keys() - set(ids) - candidates:
            yield _finding("a job exists that nobody submitted", id)

    def uploaded(self) -> Iterator[Finding]:
        """Each upload is one dataset of its content, and no others have no job."""
        kept = {row["id"]: row for row in self.datasets if row["job_id"] is None}
        ids = [each.id for each in self.uploads]
        for each in self.uploads:
            if each.id is None:
                yield _finding("an upload never got an answer", each.key)
            elif each.id not in kept:
                if not each.deletion:
                    yield _finding("an accepted upload is lost", each.id)
            elif each.deletion == "asked":
                yield _finding("a deleted dataset is there", each.id)
            elif (found := kept[each.id]["digest"]) != each.digest:
                yield _finding(
                    "an upload has another content",
                    each.id,
                    found=found,
                    expected=each.digest,
                )
            if each.id is not None and ids.count(each.id) > 1:
                yield _finding("two uploads are one dataset", each.id)
        for id in kept.keys() - set(ids):
            yield _finding(
                "a dataset exists that nobody uploaded", id, name=kept[id]["name"]
            )

    def ended(self) -> Iterator[Finding]:
        """Each job ended, and as it should."""
        asked = {each.id: each for each in self.submissions}
        for id, row in self.jobs.items():
            mine, state = asked.get(id), row["state"]
            sweep = asked.get(row["parent_id"])
            expected = {"succeeded"} if mine is None else mine.ends
            if mine is None and sweep is not None:
                # Of a cancelled sweep those that had succeeded before stay so.
                expected = sweep.ends | {"succeeded"}
            if state not in expected:
                yield _finding(
                    "a job did not end rightly",
                    id,
                    kind=row["kind"],
                    found=state,
                    expected=sorted(expected),
                    error=row["error"],
                    attempt=row["attempt"],
                )

    def told(self) -> Iterator[Finding]:
        """The events of a job are a walk through its states that ends once.

        Where it was retried, it was cancelled before.
        """
        retried = {each.id for each in self.submissions if each.retry == "taken"}
        for id, row in self.jobs.items():
            data = [each["data"] or {} for each in self.events[id]]
            states = [each["state"] for each in data if "state" in each]
            steps = itertools.pairwise(states)
            wrong = [f"{a} to {b}" for a, b in steps if b not in TRANSITIONS[a]]
            if row["token"] != states.count("running"):
                yield _finding(
                    "a claim was not told",
                    id,
                    found=states.count("running"),
                    expected=row["token"],
                )
            ends = [state for state in states if state in TERMINAL]
            if states[:1] != ["queued"] or wrong:
                yield _finding("the events of a job contradict", id, found=states)
            expected = [row["state"]] if row["state"] in TERMINAL else []
            if {id, row["parent_id"]} & retried and ends[:1] == [CANCELLED]:
                expected = [CANCELLED, *expected]
            if ends != expected:
                yield _finding(
                    "the end of a job was not told once",
                    id,
                    found=ends,
                    expected=expected,
                )

    def published(self) -> Iterator[Finding]:
        """A succeeded job made one thing, any other none; numbers have no gaps."""
        versions = [row for row in self.versions if row["model"] != passing.MODEL]
        yield from self._made(
            versions,
            lambda row: row["kind"] == "training" or "ensemble" in row["request"],
        )
        # Those without a job were uploaded: another check.
        made = [row for row in self.datasets if row["job_id"] is not None]
        yield from self._made(made, lambda row: row["kind"] == "dataset")
        numbers = defaultdict(list)
        for row in versions:
            numbers[row["model"]].append(row["number"])
            job = self.jobs.get(row["job_id"])
            named = (job["result"] or {}) if job else {}
            # What a sweep made is its ensemble, whatever is best of it.
            named = named.get("ensemble") or named
            if (named.get("version"), named.get("digest")) != (
                row["number"],
                row["digest"],
            ):
                yield _finding(
                    "a job names another version than it made",
                    row["job_id"],
                    found=named,
                    expected=f"{row['model']}/{row['number']}",
                )
        for model, found in numbers.items():
            if sorted(found) != list(range(1, len(found) + 1)):
                yield _finding("numbers of versions are missing", model, found=found)

    def moved(self) -> Iterator[Finding]:
        """An alias went where the answers said, in their order."""
        if self.moves is None:
            return
        mine = [
            [each for each in rows if each["alias"] == ALIAS]
            for rows in (self.alias_moves, self.aliases)
        ]
        history, now = ([each["number"] for each in rows] for rows in mine)
        for what in self.moves.contradictions(history, now[0] if now else None):
            yield _finding(what, ALIAS, found=history, expected=self.moves.taken)

    def passed(self) -> Iterator[Finding]:
        """The alias whose versions callers registered and deleted has one."""
        versions, aliases = (
            [row for row in rows if row["model"] == passing.MODEL]
            for rows in (self.versions, self.aliases)
        )
        numbers = [row["number"] for row in versions]
        places = {row["alias"]: row["number"] for row in aliases}
        now = places.get(passing.ALIAS)
        if versions or aliases:
            for what in passing.contradictions(numbers, now):
                yield _finding(what, passing.MODEL, found=numbers, expected=now)

    def contents(self) -> Iterator[Finding]:
        """Everything that a row refers to is there, whole, and can be read."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "content"
            for key, read in self._referenced():
                try:
                    self.blobs.download(key, path)
                    if read is not None:
                        read(path)
                except (NotFound, Damaged, SpnodeError) as error:
                    yield _finding("a content cannot be read", key, found=str(error))

    def answers(self) -> Iterator[Finding]:
        """What was asked twice was answered alike."""
        first: dict[str, tuple[str, str]] = {}
        for id, row in sorted(self.jobs.items()):
            if row["state"] != "succeeded":
                continue
            try:
                print_ = self._fingerprint(row)
            except (NotFound, Damaged, StopIteration):
                continue  # told by another check
            asked = json.dumps(_asked(row["request"]), sort_keys=True)
            earlier, expected = first.setdefault(asked, (id, print_))
            if print_ != expected:
                yield _finding(
                    "the same request had another answer",
                    id,
                    kind=row["kind"],
                    expected=f"that of {earlier}",
                )

    def left_behind(self) -> Iterator[Finding]:
        """Nothing lies in the store for long that nobody refers to."""
        for key, age_s in orphans(
            self.blobs, self.jobs, self.versions, self.datasets, self.orphan_s
        ):
            yield _finding("an orphan was not swept", key, age_s=round(age_s))
        for folder in self.work_folders:
            for path in folder.glob("*"):
                yield _finding("a folder of a job or request was left", path.name)

    def _made(
        self, things: Rows, makes_one: Callable[[Mapping[str, Any]], bool]
    ) -> Iterator[Finding]:
        counts: dict[str, int] = defaultdict(int)
        for each in things:
            counts[each["job_id"]] += 1
        for id, row in self.jobs.items():
            expected = int(makes_one(row) and row["state"] == "succeeded")
            if counts.pop(id, 0) != expected:
                yield _finding(
                    f"a {row['kind']} job made the wrong number of things",
                    id,
                    expected=expected,
                )
        for id in counts:
            yield _finding("something was made by no job", id)

    def _referenced(self) -> Iterator[tuple[str, Any]]:
        for row in self.versions:
            yield f"artifacts/{row['digest']}", self._load
        for row in self.datasets:
            yield f"datasets/{row['digest']}", load_dataset
        for chunk in self.chunks:
            yield _chunk(chunk).key(chunk["job_id"]), None
        for id, row in self.jobs.items():
            if row["kind"] == "rollout" and row["state"] == "succeeded":
                yield f"results/{id}/index/{row['result']['digest']}", None

    def _load(self, path: Path) -> None:
        """Load an artifact; the probe of equal members is repeated once for all."""
        members = _members(path)
        load(path, verify=members not in self._repeated)
        self._repeated.add(members)

    def _fingerprint(self, row: Mapping[str, Any]) -> str:
        """What must be the same for the same request: no times, no ids."""
        id, kind = row["id"], row["kind"]
        if kind == "rollout":
            mine = (each for each in self.chunks if each["job_id"] == id)
            return ",".join(
                each["digest"] for each in sorted(mine, key=lambda c: c["number"])
            )
        if kind == "dataset":
            return next(e["digest"] for e in self.datasets if e["job_id"] == id)
        if kind == "training":
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "artifact"
                self.blobs.download(f"artifacts/{row['result']['digest']}", path)
                return _members(path)
        if kind == "sweep":
            return json.dumps(_ranking(row["result"]), sort_keys=True)
        return json.dumps(row["result"], sort_keys=True)


def _asked(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request without the ids that a sweep's candidates were given."""
    if "candidates" not in request:
        return request
    settings = [each["settings"] for each in request["candidates"]]
    return {**request, "candidates": settings}


def _ranking(result: Mapping[str, Any]) -> list[Any]:
    """What a sweep found, without numbers and ids of versions, and without times."""
    same = ("settings", "state", "validation", "test")
    rows = [*result["ranking"], result.get("ensemble") or {}]
    return [{name: row.get(name) for name in same} for row in rows]


def _all(connection: sa.Connection, table: sa.Table) -> Rows:
    keys = list(table.primary_key.columns)
    found = connection.execute(sa.select(table).order_by(*keys)).mappings().all()
    return [dict(row) for row in found]


def _members(path: Path) -> str:
    """What an artifact is, but for its card, which names its job and its times."""
    found = read_members(path, tuple(name for name in MEMBERS if name != CARD))
    return json.dumps({name: sha256(found[name]) for name in sorted(found)})


def _chunk(row: Mapping[str, Any]) -> Chunk:
    return Chunk(**{name: row[name] for name in Chunk.__dataclass_fields__})


def _finding(what: str, id: str, **details: Any) -> Finding:
    return {"what": what, "id": id, **details}
