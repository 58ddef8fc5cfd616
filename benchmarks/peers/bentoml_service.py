"""The surrogate as a BentoML service, batchable: ``bentoml serve`` finds this file."""

import bentoml
import numpy as np

from benchmarks.peers.served import MAX_BATCH_ROWS, Served


@bentoml.service(traffic={"timeout": 60}, metrics={"enabled": False})
class Rollout:
    """Takes ``{"x0": [[3 numbers]]}``."""

    def __init__(self) -> None:
        self._served = Served()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_ROWS, max_latency_ms=1000)
    def rollout(self, x0: np.ndarray) -> np.ndarray:
        """Answer a batch."""
        return self._served.rollout(x0)
