"""The surrogate under mosec, batched: ``python -m … --address HOST --port PORT``."""

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.served import MAX_BATCH_ROWS, MAX_WAIT_MS, Served


class Rollout(Worker):
    """Takes a list of requests, ``{"x0": [3 numbers]}`` each."""

    def __init__(self) -> None:
        super().__init__()
        self._served = Served()

    def forward(self, data: list[Any]) -> list[Any]:
        """Answer a batch."""
        x = self._served.rollout([each["x0"] for each in data])
        return [{"x": each} for each in x.tolist()]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Rollout, num=1, max_batch_size=MAX_BATCH_ROWS, max_wait_time=MAX_WAIT_MS
    )
    server.run()
