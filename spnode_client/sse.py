"""Server-sent events, read line by line."""

import json

from spnode_client.records import Event


class EventReader:
    """Collects the lines of an event stream into events.

    Attributes:
        last_id: Id of the newest event, to resume from after a lost connection.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """Take one line without its end; give the event that it completes."""
        if not line:
            return self._finish()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self.last_id = value
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        return None

    def _finish(self) -> Event | None:
        name, lines = self._name, self._data
        self._name, self._data = "", []
        if not lines:
            return None
        data = json.loads("\n".join(lines))
        if not isinstance(data, dict):
            data = {"value": data}
        return Event(id=self.last_id or "", kind=name or "message", data=data)
