"""The surrogate under LitServe, batched: ``python -m … PORT``."""

import sys
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.peers.served import MAX_BATCH_ROWS, MAX_WAIT_MS, Served


class Rollout(litserve.LitAPI):
    """Takes ``{"x0": [3 numbers]}``."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self._served = Served()

    def decode_request(self, request: Request, **_: Any) -> Any:
        """The initial state of a request, of which JSON is handed over.

        Its type becomes that of the endpoint's argument, where any other one is taken
        for a part of the query.
        """
        return np.asarray(request["x0"])

    def predict(self, x: Any, **_: Any) -> Any:
        """Answer a batch."""
        return self._served.rollout(x)

    def encode_response(self, output: Any, **_: Any) -> Any:
        """JSON of one trajectory."""
        return {"x": output.tolist()}


if __name__ == "__main__":
    api = Rollout(max_batch_size=MAX_BATCH_ROWS, batch_timeout=MAX_WAIT_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
    )
