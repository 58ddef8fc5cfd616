"""What a worker tells whoever watches it, on the port of its metrics.

::

    /live      200 while the process answers
    /ready     200 once what it keeps ready is compiled, 503 before
    else       the metrics, in Prometheus' text format
"""

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app

from worker.context import Context

LIVE, READY = "/live", "/ready"


def watched(context: Context) -> None:
    """Answer on a thread of its own, for as long as the process lives.

    Raises:
        OSError: The port is taken.
    """
    settings = context.settings
    server = make_server(
        settings.host,
        settings.metrics_port,
        _application(context.warm.is_set),
        _server_class(settings.host),
        _Silent,
    )
    threading.Thread(target=server.serve_forever, name="watched", daemon=True).start()


def _application(
    is_warm: Callable[[], bool],
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    metrics = make_wsgi_app()

    def application(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path not in (LIVE, READY):
            return metrics(environ, start_response)
        good = path == LIVE or is_warm()
        status = "200 OK" if good else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [b"ok\n" if good else b"warming\n"]

    return application


def _server_class(host: str) -> type[WSGIServer]:
    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: Prometheus asks every few seconds."""
