"""A fleet on three URLs: a worker is cut off, and all are restarted under load."""

import pytest

from deploy.chaos.links import Links
from deploy.chaos.processes import Process
from services.lifecycle import Job
from tests.faults.callers import Callers
from tests.faults.fleet import DATASET, TRAINING, Running, running

# Half a minute of two cores each; far more where others use them too.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FAR = 500
"""Iterations after which a training has checkpoints, and much still to do."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running(tmp_path_factory.mktemp("fleet") / "run") as it:
        yield it


@pytest.fixture(scope="module")
def dataset(fleet: Running) -> str:
    return fleet.done(fleet.submit(DATASET)).result["dataset"]


@pytest.fixture(scope="module")
def undisturbed(fleet: Running, dataset: str) -> str:
    """A training that nothing befalls; it has begun, and compiled all that it needs."""
    id = fleet.submit({**TRAINING, "dataset": dataset})
    fleet.wait(id, lambda now: now.is_terminal or iteration(now) > 0)
    return id


def iteration(job: Job) -> int:
    return (job.progress or {}).get("iteration", 0)


class Proxies:
    """The links of a worker: what crosses them waits, and nobody is told."""

    def __init__(self, fleet: Running, worker: str) -> None:
        self._links: Links = fleet.it.links
        self._its = [each for each in self._links.all if each.name.startswith(worker)]
        assert len(self._its) == 3

    def cut(self) -> None:
        for link in self._its:
            self._links.change(link, "held")

    def mend(self) -> None:
        for link in self._its:
            self._links.change(link, "open")


def cable(fleet: Running, worker: str):
    """The pair of devices that a worker in a namespace of its own hangs on."""
    if not fleet.cables:
        pytest.skip(fleet.refused)
    return fleet.cables[worker]


@pytest.mark.parametrize("by", [Proxies, cable], ids=["proxies", "namespace"])
def test_a_worker_cut_off_in_mid_training_loses_its_job_and_writes_nothing(
    fleet, dataset, undisturbed, by
) -> None:
    if by is cable:
        cable(fleet, "worker-1")
    id = fleet.submit({**TRAINING, "dataset": dataset})
    held = fleet.wait(id, lambda now: iteration(now) > FAR)
    process = fleet.process_of(held.worker)
    way = by(fleet, process.name)
    way.cut()
    try:
        taken = fleet.wait(id, lambda now: now.attempt == 2 and now.state == "running")
    finally:
        way.mend()
    assert taken.worker != held.worker
    refused = (
        f"{held.worker} gives up attempt 1: job '{id}' is no longer this worker's: "
    )
    refused += "a write with fencing token 1 was refused"
    fleet.wait(id, lambda _: refused in process.log.read_text())
    ended = fleet.done(id)
    assert ended.attempt == 2
    told = [event.data for event in fleet.jobs.events(id) if event.kind == "status"]
    claims = [each["worker"] for each in told if each["state"] == "running"]
    assert claims == [held.worker, taken.worker]
    assert process.is_up
    fleet.done(undisturbed)
    # One version each with the same parameters, events that end once, nothing left.
    assert fleet.findings() == []


@pytest.mark.filterwarnings("ignore::spnode_client.errors.DomainWarning")
def test_a_rolling_restart_under_load_fails_no_request_and_costs_no_attempt(
    fleet, dataset, undisturbed
) -> None:
    it = fleet.it
    version = fleet.done(undisturbed).result["version"]
    it.wait_until_ready()
    front = it.links.add("all to gateways", *fleet.gateways)
    url = f"http://127.0.0.1:{front.port}"
    callers = Callers(url, it.key, f"fleet/{version}")
    try:
        # Only now: it must still be at work when its worker is stopped.
        training = fleet.submit({**TRAINING, "dataset": dataset})
        busy = fleet.wait(training, lambda now: iteration(now) > 0)
        for group in _groups(fleet, fleet.process_of(busy.worker)):
            before = callers.tally.seen["rollouts"]
            for process in group:
                process.terminate()
            ends = {process.name: process.ended() for process in group}
            assert set(ends.values()) == {0}, ends
            for process in group:
                process.start()
            it.wait_until_ready()
            served = callers.tally.seen["rollouts"] - before
            assert served > 0, f"nothing was served without {list(ends)}"
    finally:
        callers.stop()
    assert callers.failed == [], callers.tally.seen
    assert callers.tally.wrong == []
    assert callers.jobs
    assert {job["attempt"] for job in callers.jobs} == {1}, "none was lost"
    moved = fleet.done(training)
    assert moved.attempt == 1
    reasons = [event.message for event in fleet.jobs.events(training)]
    assert "the worker stopped; the job is queued again" in reasons
    fleet.submissions += callers.submissions
    assert fleet.findings() == []


def _groups(fleet: Running, busy: Process) -> list[list[Process]]:
    """One of each kind, first the worker that has work; then the others."""
    kinds = [fleet.it.named(kind) for kind in ("gateway", "worker", "rollouts")]
    kinds[1].sort(key=lambda each: each is not busy)
    firsts = [kind[0] for kind in kinds]
    return [firsts, [each for kind in kinds for each in kind[1:]]]
