from dataclasses import dataclass

import httpx
import jax
import pytest

from tests.api.deployment import (
    Deployment,
    deployed,
    ensemble,
    opened,
    publish,
    unsure,
)
from tests.api.differentiable import surrogate
from tests.api.serving import serving
from tests.core.models import MASS, small_surrogate

LINEAR = dict.fromkeys(("a", "b", "c", "p0", "p1", "u0", "u1"), "linear")


@dataclass(frozen=True)
class Service:
    """A gateway with three models without champions, so that nothing is compiled unasked."""

    url: str
    key: str
    surrogates: dict
    deployment: Deployment

    @property
    def signed(self) -> str:
        """Its address with the key as a password: all that some clients can send."""
        return self.url.replace("://", f"://key:{self.key}@")


def models():
    """Mildly stiff, in float64: plain, with two parameters, with controls as well."""
    return {
        "plain": small_surrogate(conserved=MASS, normalisation=LINEAR),
        "kinetics": small_surrogate(parameters=2, seed=3, normalisation=LINEAR),
        "forced": surrogate("etd1"),
    }


@pytest.fixture(scope="session")
def service():
    # Tests compile far more than they compute.
    jax.config.update("jax_disable_most_optimizations", True)
    with deployed() as deployment:
        made = models()
        with opened(deployment.settings) as (database, blobs):
            for name, each in made.items():
                publish(database, blobs, name, each, certificate={})
        with serving(deployment.settings) as url:
            yield Service(url, deployment.key, made, deployment)


@pytest.fixture(scope="session")
def unsure_models(service):
    """One with prediction intervals, and an ensemble."""
    with opened(service.deployment.settings) as (database, blobs):
        publish(database, blobs, "unsure", unsure(models()["plain"]), certificate={})
        publish(database, blobs, "many", ensemble(), certificate={})


@pytest.fixture(scope="session")
def client(service):
    """Plain HTTP with a key, and time for what compiles."""
    headers = {"authorization": f"Bearer {service.key}", "request-timeout": "280"}
    with httpx.Client(
        base_url=service.url, headers=headers, timeout=280, trust_env=False
    ) as made:
        yield made
