"""What the fork server may and may not do before a child starts."""

import subprocess
import sys
from pathlib import Path

from worker.child import PRELOAD

ROOT = Path(__file__).parent.parent.parent


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_the_fork_server_imports_starts_no_backend() -> None:
    # A process that forks after JAX has started a backend hangs for ever.
    code = f"""
import importlib, threading
for name in {PRELOAD!r}:
    importlib.import_module(name)
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized(), threading.active_count())
"""
    assert run(code) == "False 1"


def test_the_worker_itself_loads_no_jax() -> None:
    code = "import worker.start, worker.jobs, sys; print('jax' in sys.modules)"
    assert run(code) == "False"


def test_the_main_module_does_nothing_when_a_child_imports_it() -> None:
    code = """
import runpy, sys
before = set(sys.modules)
runpy.run_module("worker.__main__", run_name="__mp_main__")
print(sorted(m for m in set(sys.modules) - before if m.split(".")[0] != "worker"))
"""
    assert run(code) == "[]"


def test_a_misspelt_queue_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "--queues", "trainin"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "trainin is no queue of jobs" in done.stderr


def test_what_computes_tells_what_its_devices_hold() -> None:
    # Nothing is asked of a backend that may not have been started.
    code = """
import json, multiprocessing
from worker import child
child.bytes_in_use = lambda: 7
ours, theirs = multiprocessing.Pipe()
channel = child.Channel(theirs)

def until(kind):
    while (told := json.loads(ours.recv_bytes()))["type"] != kind:
        pass
    return told

for kind, loss in (("log", {}), ("progress", {"loss": 0.5})):
    channel.send({"type": kind, **loss})
    until(kind)
    print(until(child.ALIVE)["device_bytes"])
"""
    assert run(code).split() == ["0", "7"]
