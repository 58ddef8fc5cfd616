"""Two gateways and three workers that share three URLs, to be hurt by the tests.

Each reaches PostgreSQL, Valkey and the store by links of its own; where the machine lets
us, each worker lives in a network namespace and its links at the near end of its cable.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from deploy.chaos.audit import Audit
from deploy.chaos.deployment import TIMES
from deploy.chaos.links import HOST
from deploy.chaos.network import GATEWAYS, WORKERS, Fleet, fleet
from deploy.chaos.processes import Process
from deploy.chaos.submissions import Submission
from services.blobs import Blobs
from services.database.engine import Database
from services.jobs import Jobs
from services.lifecycle import Job
from spnode_client.client import Client
from tests.faults.namespaces import Namespace, NotAllowed

jax.config.update("jax_enable_x64", True)

SOON = {
    **TIMES,
    "lease_seconds": 4.0,
    "heartbeat_seconds": 0.5,
    "resend_seconds": 2.0,
    "checkpoint_seconds": 0.5,
    "rollout_workers": 2,
}
DATASET = {"kind": "dataset", "system": "robertson", "trajectories": 6, "seed": 1}
TRAINING = {
    "kind": "training",
    "model": "fleet",
    "surrogate": {
        "latent": 4,
        "nonlinear": {"kind": "relaxation", "width": 8, "depth": 1},
        "autoencoder": {"kind": "residual", "width": 8, "depth": 1},
    },
    "training": {"iterations": 5_000, "batch": 8, "polish": "none", "refine": 1},
}
NEVER_S = 3600.0


class Running:
    """The fleet, and what was asked of it.

    Args:
        fleet: Its servers and processes.
        cables: Of the workers by name, where there are namespaces.
        refused: Why there are none, otherwise.
    """

    def __init__(
        self, fleet: Fleet, cables: dict[str, Namespace], refused: str
    ) -> None:
        self.fleet, self.it = fleet, fleet.deployment
        self.cables, self.refused = cables, refused
        self.database = Database(self.it.settings.database_url)
        self.jobs = Jobs(self.database)
        self.clients = [Client(url, self.it.key) for url in self.it.urls]
        self.submissions: list[Submission] = []

    def submit(self, request: dict) -> str:
        """Ask one gateway, then the other, for a job."""
        number = len(self.submissions)
        job = self.clients[number % len(self.clients)].jobs.submit(request)
        self.submissions.append(Submission(request, f"job {number}", job.id))
        return job.id

    def wait(
        self, id: str, is_reached: Callable[[Job], bool], seconds: float = 200
    ) -> Job:
        """Wait until a job is as wanted."""
        end = time.monotonic() + seconds
        while not is_reached(job := self.jobs.get(id)):
            assert time.monotonic() < end, f"{job}; logs: {self.it.logs}"
            time.sleep(0.05)
        return job

    def done(self, id: str) -> Job:
        """Wait until a job has ended, as it should."""
        job = self.wait(id, lambda now: now.is_terminal)
        assert job.state == "succeeded", job.error
        return job

    def process_of(self, worker: str) -> Process:
        """The process that calls itself so: ``host:pid:mark``."""
        pid = int(worker.split(":")[1])
        found = (p for p in self.it.named("worker") if p.family()[0].pid == pid)
        return next(found)

    @property
    def gateways(self) -> list[tuple[str, int]]:
        """Where they listen."""
        return [(HOST, int(url.rsplit(":", 1)[1])) for url in self.it.urls]

    def findings(self) -> list[dict]:
        """What the audit of the fault command finds."""
        folders = sorted(self.it.folder.glob("*/work"))
        blobs = Blobs(self.it.settings.store_url)
        audit = Audit(self.database, blobs, self.submissions, NEVER_S, folders)
        return audit.findings()

    def close(self) -> None:
        """Close our own connections."""
        for each in self.clients:
            each.close()
        self.database.close()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Start it all; it has ended with the block."""
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(tempfile.TemporaryDirectory(prefix="spnode-"))
        workers = [f"worker-{n + 1}" for n in range(WORKERS)]
        cables, refused = _cables(stack, workers)
        servers = stack.enter_context(
            fleet(folder, Path(compiled), SOON, durable=False)
        )
        for number in range(GATEWAYS):
            servers.add(f"gateway-{number + 1}")
        for name in workers:
            cable = cables.get(name)
            where = (cable.host, cable.command) if cable else ()
            servers.add(name, *where)
        # A gateway is ready when one of them has been warm.
        for name in ("rollouts-1", "rollouts-2"):
            servers.add(name)
        servers.deployment.wait_until_ready()
        it = Running(servers, cables, refused)
        stack.callback(it.close)
        yield it


def _cables(
    stack: contextlib.ExitStack, names: list[str]
) -> tuple[dict[str, Namespace], str]:
    with contextlib.ExitStack() as made:
        try:
            cables = {
                name: made.enter_context(Namespace(number))
                for number, name in enumerate(names)
            }
        except NotAllowed as error:
            return {}, str(error)
        stack.push(made.pop_all())
    return cables, ""
