"""Environments with the clients of others, unmodified, as their own packages have them.

They call the service over HTTP from processes of their own, so their packages need not
agree with ours. ``<name>.in`` says what is wanted, ``<name>.lock`` holds the versions::

    uv pip compile --generate-hashes --no-header --no-annotate --python-version 3.11 \
        tests/protocols/clients.in -o tests/protocols/clients.lock

torch comes in builds of very different size. Where pip is told of a folder with the one
for processors alone, it is taken, and what the other needs is left out. To its lock the
hash of that build is added by hand, the first of torch.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
PRIVATE = ROOT / ".uv"
_PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"


def client_python(name: str) -> Path:
    """The interpreter of an environment, which is made where it is missing."""
    wanted = (FOLDER / f"{name}.lock").read_bytes()
    environment = PRIVATE / "clients" / name
    python, stamp = environment / "bin" / "python", environment / "spnode.lock"
    environment.parent.mkdir(parents=True, exist_ok=True)
    with (environment.parent / f".{name}").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_bytes() == wanted:
            return python
        shutil.rmtree(environment, ignore_errors=True)
        uv = shutil.which("uv") or os.fspath(PRIVATE / "venv" / "bin" / "uv")
        _run(uv, "venv", "--quiet", "--python", sys.executable, environment)
        lock, into = FOLDER / f"{name}.lock", ("--quiet", "--python", python)
        if name == "torch":
            wanted_in = ("--requirements", FOLDER / f"{name}.in")
            _run(uv, "pip", "install", *into, *wanted_in, "--constraints", lock)
        else:
            _run(uv, "pip", "sync", *into, "--require-hashes", lock)
        stamp.write_bytes(wanted)
    return python


def is_small_torch_at_hand() -> bool:
    """Whether pip is told of a folder with a build of torch for processors alone."""
    return any(
        any(Path(folder).glob(f"torch-*+cpu-{_PYTHON}-*.whl")) for folder in _told()
    )


def run_client(name: str, program: Path, *arguments: object, **environment: str) -> str:
    """Run a program with the packages of an environment; what it printed.

    Args:
        name: Of the environment.
        program: Its file.
        arguments: Of the program.
        environment: Variables beside the usual ones.
    """
    # The light client and its own packages are there too.
    usual = usual_environment() | {"PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(
        [client_python(name), program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        env=usual | environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout


def usual_environment() -> dict[str, str]:
    """The variables of a program with packages of its own."""
    usual = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return usual | {"JAX_PLATFORMS": "cpu"}


def _told() -> list[str]:
    return os.environ.get("PIP_FIND_LINKS", "").split()


def _run(*command: object) -> None:
    # What pip was told about in the environment serves uv too.
    index, folders = os.environ.get("PIP_INDEX_URL"), ",".join(_told())
    told = {"UV_DEFAULT_INDEX": index, "UV_FIND_LINKS": folders}
    given = {name: value for name, value in told.items() if value}
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=given | os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
