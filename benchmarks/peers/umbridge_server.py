"""The surrogate under UM-Bridge's reference server: ``python -m … PORT``."""

import sys
from functools import partial
from typing import Any

import umbridge
from aiohttp import web

from benchmarks.peers.served import Served

STATES = 3


class Robertson(umbridge.Model):
    """One initial state in, its trajectory as one flat vector out."""

    def __init__(self) -> None:
        super().__init__("robertson")
        self._served = Served()
        self._outputs = self._served.rollout([[1.0, 0.0, 0.0]]).size

    def get_input_sizes(self, config: Any) -> list[int]:
        """One vector of three."""
        return [STATES]

    def get_output_sizes(self, config: Any) -> list[int]:
        """One vector of all states at all times."""
        return [self._outputs]

    def __call__(self, parameters: Any, config: Any) -> list[list[float]]:
        """Evaluate."""
        return [self._served.rollout(parameters).ravel().tolist()]

    def gradient(
        self, out_wrt: int, in_wrt: int, parameters: Any, sens: Any, config: Any
    ) -> list[float]:
        """The gradient of the weighted trajectory."""
        return self._served.gradient(parameters[0], sens).tolist()

    def supports_evaluate(self) -> bool:
        """Yes."""
        return True

    def supports_gradient(self) -> bool:
        """Yes."""
        return True


if __name__ == "__main__":
    # It listens on every address and takes no other: the loopback is enough here.
    web.run_app = partial(web.run_app, host="127.0.0.1")
    umbridge.serve_models([Robertson()], int(sys.argv[1]))
