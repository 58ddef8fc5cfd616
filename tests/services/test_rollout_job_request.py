"""Rollout jobs before they are queued: what is refused, how rows are cut."""

import json
import sqlite3
from pathlib import Path

import jax
import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from services.database import tables
from services.database.tables import instant
from services.errors import Invalid, Unavailable
from services.jobs import Jobs
from services.results import Results
from services.rollouts.job_request import PlannedRollout, RolloutJob
from services.rollouts.job_submit import RolloutJobs
from services.rollouts.served import Served
from services.settings import Settings
from spnode_core.errors import InvalidInput
from tests.core.models import small_surrogate

TIMES = [0.1, 1.0, 10.0, 100.0]
X0 = [0.5, 1e-5, 0.5]
DIGEST = "0" * 64


@pytest.fixture(scope="module")
def served() -> Served:
    with jax.enable_x64():
        surrogate = small_surrogate(parameters=1)
    return Served("m", 4, DIGEST, surrogate.signature, surrogate.spec)


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(
        data_folder=tmp_path / "data",
        max_job_rows=5000,
        max_result_bytes=300_000,
        result_chunk_bytes=80 * 1024,
    )


@pytest.fixture
def rollouts(database, blobs, settings, clock) -> RolloutJobs:
    from services.datasets import Datasets

    with database.transaction() as connection:
        now = instant(clock())
        made = {"owner": "me", "created_at": now}
        model = {"name": "m", "last_number": 4, "revision": 1, "updated_at": now}
        model |= {"description": "", "tags": {}}
        connection.execute(sa.insert(tables.models).values(made | model))
        parts = ("signature", "spec", "card", "evaluation", "certificate")
        version = {"model": "m", "number": 4, "digest": DIGEST, "size_bytes": 1}
        version |= {part: {} for part in parts}
        connection.execute(sa.insert(tables.versions).values(made | version))
    jobs = Jobs(database, clock=clock)
    datasets = Datasets(database, blobs, settings)
    results = Results(database, blobs, settings, clock=clock)
    return RolloutJobs(settings, datasets, jobs, results)


def asked(**fields) -> RolloutJob:
    given = {"model": "m", "x0": X0, "parameters": [1.0], "times": TIMES, **fields}
    return RolloutJob.model_validate({k: v for k, v in given.items() if v is not None})


def planned(rollouts, served, **fields) -> dict:
    return rollouts.submit(asked(**fields), served, owner="me", validate_only=True)[0]


def test_rows_are_cut_into_chunks_of_whole_tiles(rollouts, served) -> None:
    kept = planned(rollouts, served, x0=[X0] * 1300)
    # A row has 12 numbers and takes 4: 80 KiB hold 640.
    assert (kept["rows"], kept["chunk_rows"]) == (1300, 512)
    assert PlannedRollout.model_validate(kept).chunks == 3
    assert kept["arrays"] == {"times": [4], "x0": [1300, 3], "parameters": [1]}
    assert not {"x0", "parameters"} & set(kept)
    assert (kept["version"], kept["digest"]) == (4, DIGEST)
    large = planned(rollouts, served, times={"dt": 1.0, "steps": 70})
    assert large["chunk_rows"] == 32, "a multiple of the usual tile"
    assert large["times"] == {"dt": 1.0, "steps": 70}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"x0": [1.0, 2.0]}, "x0: found 2 numbers; expected 3 states"),
        ({"x0": [X0, [1.0, 2.0]]}, r"x0\[1\]: found 2 numbers; expected 3"),
        ({"x0": [X0] * 5001}, "x0: found 5001 rows; expected at most 5000"),
        ({"x0": [X0] * 4000}, "x0: found a result of 388000 bytes, 4000 rows of 97"),
        ({"x0": None}, "x0: found nothing; expected initial states, a dataset or"),
        ({"parameters": [[1.0]] * 3, "x0": [X0] * 4}, "parameters: found 3 rows"),
        ({"parameters": None}, "parameters: found nothing; expected 1 parameters"),
        ({"times": None}, "times: found nothing"),
        ({"times": {"dt": 1.0, "steps": 4000}}, "expected at most 10240"),
        ({"outputs": {"states": ["q"]}}, r"outputs.states\[0\]: found 'q'"),
        ({"dataset": "ds_1"}, "/dataset: found 'ds_1', which does not exist"),
        ({"sweep": {"x0": {"a": [1.0]}}, "dataset": "ds_1"}, "does not exist"),
    ],
)
def test_what_is_wrong_is_named(rollouts, served, fields, said) -> None:
    with pytest.raises((InvalidInput, Invalid), match=said):
        planned(rollouts, served, **fields)


def test_a_dataset_must_have_the_states_and_parameters(
    rollouts, served, small_file
) -> None:
    dataset = rollouts.datasets.add(small_file, owner="me").id
    with pytest.raises(InvalidInput, match="the states a, b; expected one that has c"):
        planned(rollouts, served, x0=None, dataset=dataset)
    with pytest.raises(InvalidInput, match="x0: found states beside a dataset"):
        planned(rollouts, served, dataset=dataset)
    sweep = {"x0": {"a": [1.0]}}
    with pytest.raises(InvalidInput, match="sweep: found it beside a dataset"):
        planned(rollouts, served, x0=None, dataset=dataset, sweep=sweep)


def test_what_was_submitted_lies_in_the_store_and_a_repetition_leaves_nothing(
    rollouts, served, blobs
) -> None:
    job, replayed = rollouts.submit(asked(), served, owner="me", idempotency_key="k")
    assert not replayed
    (key,) = blobs.list("results")
    assert key == f"results/{job.id}/inputs/{job.request['inputs']}"
    # The alias has moved meanwhile: the same submission still.
    moved = Served("m", 5, "1" * 64, served.signature, served.spec)
    again, replayed = rollouts.submit(asked(), moved, owner="me", idempotency_key="k")
    assert (again.id, replayed, again.request["version"]) == (job.id, True, 4)
    with pytest.raises(Invalid) as refused:
        rollouts.submit(
            asked(x0=[0.0, 0.0, 1.0]), served, owner="me", idempotency_key="k"
        )
    assert refused.value.code == "idempotency_key_reused"
    assert list(blobs.list("results")) == [key]


def test_numbers_stand_in_the_file_or_in_the_request(
    rollouts, served, tmp_path
) -> None:
    path = tmp_path / "sent.npz"
    np.savez(path, x0=[X0], parameters=[1.0], request=json.dumps({}))
    only = RolloutJob(model="m", times=TIMES)
    with pytest.raises(InvalidInput, match="times: found numbers in `request`"):
        rollouts.submit(only, served, path, owner="me")
    rule = RolloutJob.model_validate({"model": "m", "times": {"dt": 1.0, "steps": 2}})
    kept, _ = rollouts.submit(rule, served, path, owner="me", validate_only=True)
    assert kept["arrays"] == {"x0": [1, 3], "parameters": [1]}


def test_a_queued_job_keeps_its_inputs_when_its_sending_cannot_be_noted(
    rollouts, served
) -> None:
    """The row is committed: the job is accepted, whatever fails after that."""
    sender = Locking(rollouts.settings.data_folder / "spnode.db")
    rollouts.jobs._outbox.sender = sender
    with rollouts.jobs.database.reading() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    try:
        job, _ = rollouts.submit(asked(), served, owner="me")
    finally:
        sender.connection.close()
    assert rollouts.jobs.get(job.id).state == "queued"
    assert list(rollouts.results.blobs.list(f"results/{job.id}/inputs"))


def test_inputs_stay_when_the_answer_to_a_commit_is_lost(rollouts, served) -> None:
    """The job may be there: the caller tries again with its key and finds it whole."""
    engine = rollouts.jobs.database.engine
    sa.event.listen(engine, "commit", _lose_the_answer, once=True)
    with pytest.raises(Unavailable):
        rollouts.submit(asked(), served, owner="me", idempotency_key="key")
    again, replayed = rollouts.submit(
        asked(), served, owner="me", idempotency_key="key"
    )
    assert replayed
    inputs = list(rollouts.results.blobs.list("results"))
    assert inputs == [f"results/{again.id}/inputs/{again.request['inputs']}"]


class Locking:
    """A broker that takes a job; at that moment somebody locks the database."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False
        )

    def send_job(self, queue: str, id: str) -> bool:
        self.connection.execute("BEGIN IMMEDIATE")
        return True


def _lose_the_answer(connection: sa.Connection) -> None:
    assert connection.connection.dbapi_connection is not None
    connection.connection.dbapi_connection.commit()
    lost = sqlite3.OperationalError("the connection was lost")
    raise OperationalError("COMMIT", {}, lost)
