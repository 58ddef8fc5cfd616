"""What glibc keeps: skipped where another library allocates."""

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc"
)


def said_by(code: str) -> int:
    usual = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=usual,
    )
    return int(found.stdout)


def test_what_lies_free_goes_back_to_the_system():
    # Each block is too small for a mapping of its own; the last holds up the others.
    freed = said_by(
        "import psutil; from services.heap import give_back\n"
        "resident = lambda: psutil.Process().memory_info().rss\n"
        "blocks = [bytearray(60_000) for _ in range(2000)]\n"
        "del blocks[:-1]; before = resident(); give_back()\n"
        "print(before - resident())"
    )
    assert freed > 80e6


def test_what_computes_keeps_its_large_blocks():
    code = (
        "import resource; from services.heap import for_computing\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "{}\n"
        "def use():\n"
        "    one, other = bytearray(20 << 20), bytearray(10 << 20)\n"
        "use(); before = faults()\n"
        "for _ in range(5): use()\n"
        "print(faults() - before)"
    )
    assert said_by(code.format("for_computing()")) < 500 < said_by(code.format(""))


def test_threads_share_two_arenas():
    code = (
        "import psutil, threading; from services.heap import for_waiting\n"
        "reserved = lambda: psutil.Process().memory_info().vms\n"
        "{}\n"
        "threading.stack_size(2**16 * 4); end = threading.Event(); before = reserved()\n"
        "def work(): block = bytearray(60_000); end.wait()\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "[each.start() for each in threads]; print(reserved() - before); end.set()"
    )
    # Each arena reserves 64 MiB of addresses.
    assert said_by(code.format("for_waiting()")) < 3 * 2**26 < said_by(code.format(""))
