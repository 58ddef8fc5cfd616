"""One gateway: bring the database up to date, then serve until told to stop."""

import signal
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.heads import BoundedHeads
from services import heap, traces
from services.database.engine import Database
from services.database.migrate import upgrade
from services.logs import configure
from services.settings import settings_or_exit

_STOP_SECONDS = 8
# Longer than balancers (60 s) and clients (httpx: 5 s) keep a connection that is idle,
# so that none sends a request into one that is being closed.
_KEEP_ALIVE_SECONDS = 75


def main() -> None:
    """Serve on the host and port of the settings."""
    settings = settings_or_exit()
    settings.data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    configure(settings)
    if settings.executor == "queue":
        heap.for_waiting()
    traces.configure(settings, "spnode-gateway")
    database = Database(settings.database_url)
    upgrade(database)
    database.close()
    # uvicorn raises the signal again when it has stopped in good order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    _Server(server_config(create_app(settings), settings.host, settings.port)).run()


def server_config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """How every gateway serves; port 0 lets the system choose."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=BoundedHeads,
        ws="none",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )


class _Server(uvicorn.Server):
    """A server whose event streams and long polls end when it is told to stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        app = self.config.app
        gateway = (
            getattr(app.state, "gateway", None) if isinstance(app, FastAPI) else None
        )
        if gateway is not None:
            gateway.stop_waiting()
