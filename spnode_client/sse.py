"""Server-sent events, read line by line."""

import json
import math
import time

from spnode_client.records import ENDED, Event, Record


class EventReader:
    """Collects the lines of an event stream into events.

    Attributes:
        last_id: Id of the newest whole event, to resume from after a lost connection.
        is_over: Whether the newest event of this connection ended the job. A stream may
            end without it, when a gateway is restarted.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self.begin()

    def begin(self) -> None:
        """Begin with a connection: of an event that was cut off nothing is kept."""
        self.is_over = False
        self._id = self.last_id
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """Take one line without its end; give the event that it completes."""
        if not line:
            return self._finish()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        return None

    def is_through(self, record: Record, before: str | None) -> bool:
        """Whether a stream that has ended needs not be resumed.

        Args:
            record: The job's, as it is since.
            before: ``last_id`` when that stream began.
        """
        # Of an ended job the next stream has what this one lacked, or nothing.
        return record.get("state") in ENDED and self.last_id == before

    def _finish(self) -> Event | None:
        name, lines = self._name, self._data
        self._name, self._data = "", []
        self.last_id = self._id
        if not lines:
            return None
        data = json.loads("\n".join(lines))
        if not isinstance(data, dict):
            data = {"value": data}
        if name == "status":
            self.is_over = (data.get("data") or {}).get("state") in ENDED
        return Event(id=self.last_id or "", kind=name or "message", data=data)


class PastEvents:
    """Events until now, from a stream that may go on.

    Args:
        quiet_s: How long nothing comes before that was all.
    """

    def __init__(self, quiet_s: float) -> None:
        self.events: list[Event] = []
        self._reader, self._quiet_s, self._end = EventReader(), quiet_s, math.inf

    def are_all_after(self, line: str) -> bool:
        """Take a line; whether no more are waited for after it."""
        if (event := self._reader.feed(line)) is not None:
            if event.kind == "progress":
                return True
            self.events.append(event)
            # A job that goes on may never be quiet.
            self._end = min(self._end, time.monotonic() + 5 * self._quiet_s)
        return time.monotonic() > self._end
