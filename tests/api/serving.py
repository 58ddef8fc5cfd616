"""The gateway on a thread of the test's own process: a real server, started quickly."""

import contextlib
import threading
import time

import uvicorn

from api.app import create_app
from api.server import server_config


@contextlib.contextmanager
def serving(settings, app=None):
    """Serve until the block ends; gives the address."""
    app = app or create_app(settings)
    server = uvicorn.Server(server_config(app, "127.0.0.1", 0))
    thread = threading.Thread(target=server.run, name="gateway")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the gateway did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
