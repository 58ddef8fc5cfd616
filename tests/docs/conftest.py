"""One live deployment for all pages, with the models that they name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import jax
import pytest

import spnode_core
from spnode_client import Client
from tests.api.deployment import ROOT, deployed, ensemble, opened, publish
from tests.api.serving import serving
from tests.core.models import small_surrogate

STATES = ("y1", "y2", "y3")
RATES = ("k1", "k2", "k3")
LINEAR = dict.fromkeys((*STATES, *RATES), "linear")


@dataclass(frozen=True)
class Service:
    """Where the pages' client asks, and what is at hand in this process."""

    url: str
    key: str
    surrogates: dict

    @cached_property
    def client(self) -> Client:
        return Client(self.url, self.key, timeout_s=280)

    @cached_property
    def data(self) -> spnode_core.Dataset:
        return spnode_core.generate("robertson", 10, seed=0)

    @cached_property
    def run(self) -> Callable[[int], spnode_core.Run]:
        """Fits with a seed, once each."""
        return cache(self._fit)

    def _fit(self, seed: int) -> spnode_core.Run:
        """A real fit, as short as it can be."""
        small = {
            "latent": 3,
            "nonlinear": {"kind": "relaxation", "width": 8, "depth": 1},
            "autoencoder": {"kind": "none"},
        }
        return spnode_core.fit(
            self.data,
            surrogate=spnode_core.SurrogateSpec.model_validate(small),
            training=spnode_core.TrainingSpec(iterations=2, polish="none"),
            split=spnode_core.SplitSpec(seed=7),
            seed=seed,
        )


def models():
    """Untrained: none needs to be right here."""
    plain = small_surrogate(states=STATES, normalisation=LINEAR)
    kinetics = small_surrogate(
        parameters=3, states=STATES, named=RATES, normalisation=LINEAR
    )
    enzyme = spnode_core.load(ROOT / "docs" / "notebooks" / "enzyme.spnode")
    tutorial = {"enzyme": enzyme, "bounded": enzyme}
    return {
        "mine": plain,
        "robertson": plain,
        "reaction": kinetics,
        "ensemble": ensemble(),
        **tutorial,
    }


@pytest.fixture(scope="session")
def service():
    jax.config.update("jax_enable_x64", True)
    # Pages compile far more than they compute.
    jax.config.update("jax_disable_most_optimizations", True)
    with deployed() as deployment:
        made = models()
        with opened(deployment.settings) as (database, blobs):
            for name, each in made.items():
                for _ in range(3 if name == "mine" else 1):
                    publish(database, blobs, name, each)
        deployment.start("worker", "worker")
        with serving(deployment.settings) as url:
            service = Service(url, deployment.key, made)
            yield service
            service.client.close()
