"""Work of children for tests: what a job's process does, and does not."""

import time

from worker.child import Channel


def nothing(connection, *_) -> None:
    """Live, and neither tell nor compute anything."""
    Channel(connection)
    time.sleep(60)


def much(connection, *_) -> None:
    """Compute for a while, tell nothing, and end well."""
    channel = Channel(connection)
    end = time.process_time() + 3.0
    while time.process_time() < end:
        pass
    channel.send({"type": "done", "outcome": {}})
