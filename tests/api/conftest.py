from dataclasses import replace

import jax
import pytest

from benchmarks.peers.ports import free_port
from spnode_client import Client
from tests.api.deployment import deployed, opened, publish
from tests.api.differentiable import INTEGRATORS, surrogate
from tests.api.serving import serving


@pytest.fixture(scope="session")
def data():
    """A data folder with three models, and Valkey."""
    with deployed(models=("small", "mixed", "forced")) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def deployment(data):
    """A gateway with the inline executor."""
    return data.start_gateway()


@pytest.fixture(scope="session")
def queue_deployment(deployment):
    """A gateway with the queue executor on the same data, and one rollout worker."""
    # After the inline gateway, whose compilations it finds in the cache.
    port = free_port()
    deployment.start("worker", "worker", "--rollouts", metrics_port=port)
    started = deployment.start_gateway("queue-gateway", executor="queue")
    return replace(started, metrics_port=port)


@pytest.fixture(scope="session")
def client(deployment):
    with deployment.client() as client:
        yield client


@pytest.fixture(scope="session", params=["inline", "queue"])
def served(request):
    """Each kind of deployment."""
    name = "deployment" if request.param == "inline" else "queue_deployment"
    return request.getfixturevalue(name)


@pytest.fixture
def caller(served):
    with served.client() as client:
        yield client


@pytest.fixture(scope="session")
def exact():
    """A client of a gateway in this process that has the models of ``INTEGRATORS``."""
    # Tests compile far more than they compute.
    jax.config.update("jax_disable_most_optimizations", True)
    with deployed() as deployment:
        # Without a certificate none becomes champion, so none is compiled unasked.
        with opened(deployment.settings) as (database, blobs):
            for name in INTEGRATORS:
                publish(database, blobs, name, surrogate(name), certificate={})
        with (
            serving(deployment.settings) as url,
            Client(url, deployment.key, retries=0, timeout_s=600) as client,
        ):
            # A compilation may take long where the machine is busy.
            client.transport.http.headers["request-timeout"] = "600"
            yield client
