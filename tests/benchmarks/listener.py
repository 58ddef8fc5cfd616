"""A server on a port of its own, a thread for each connection."""

import socket
import threading
from contextlib import suppress


class Listener:
    """Accepts connections; what it answers is up to ``serve``."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def serve(self, connection):
        """Answer a connection until it ends."""
        raise NotImplementedError

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection):
        # A load that has what it came for resets what is still on its way.
        with connection, suppress(ConnectionError):
            self.serve(connection)
