"""A network namespace for one process, as a machine of its own at the end of a cable.

A pair of devices is the cable: one end here, with an address of the range for benchmarks
(RFC 2544), the other in the namespace. Nothing else of the machine is touched. A process
that does nothing holds the namespace, and ends with ours however that ends: so nothing is
ever left.
"""

import contextlib
import os
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from deploy.folder import ROOT


class NotAllowed(Exception):
    """There can be no network namespaces here; the message says why."""


class Namespace:
    """A namespace, its cable, and the address at our end.

    Args:
        number: Among those of this process, from 0 to 62.
    """

    def __init__(self, number: int) -> None:
        network = f"198.18.{os.getpid() % 256}"
        # Names of devices have 15 characters at most.
        mark = f"{os.getpid():x}-{number}"
        self.device, self._inner = f"spn{mark}", f"spi{mark}"
        """Our end's device, and the other."""
        self.host = f"{network}.{4 * number + 1}"
        """This end's address."""
        self._inside = f"{network}.{4 * number + 2}"
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Make both.

        Raises:
            NotAllowed: Only root may, the kernel cannot, or a tool is not installed.
        """
        try:
            self._hold()
            self._lay_cable()
        except (OSError, subprocess.CalledProcessError) as error:
            self._remove()
            said = getattr(error, "stderr", None) or str(error)
            raise NotAllowed(f"no network namespaces here: {said.strip()}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove both; the processes in it have ended."""
        self._remove()

    @property
    def command(self) -> tuple[str, ...]:
        """What becomes the command that follows, in the namespace."""
        assert self._holder is not None
        return ("nsenter", f"--net=/proc/{self._holder.pid}/ns/net")

    def cut(self) -> None:
        """Let nothing pass from now on; nobody is told."""
        _do("ip", "link", "set", self.device, "down")

    def mend(self) -> None:
        """Let everything pass again."""
        _do("ip", "link", "set", self.device, "up")

    def _hold(self) -> None:
        _do("unshare", "--net", "true")
        words = ("-P", "-m", "deploy.process", "unshare", "--net", "sleep", "infinity")
        self._holder = subprocess.Popen([sys.executable, *words], cwd=ROOT)
        ours, end = os.readlink("/proc/self/ns/net"), time.monotonic() + 30
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == ours:
            if time.monotonic() > end:
                raise OSError("unshare made none within 30 s")
            time.sleep(0.02)

    def _lay_cable(self) -> None:
        assert self._holder is not None
        peer = ("peer", "name", self._inner, "netns", str(self._holder.pid))
        _do("ip", "link", "add", self.device, "type", "veth", *peer)
        _do("ip", "addr", "add", f"{self.host}/30", "dev", self.device)
        _do("ip", "link", "set", self.device, "up")
        there = (*self.command, "ip")
        _do(*there, "addr", "add", f"{self._inside}/30", "dev", self._inner)
        _do(*there, "link", "set", self._inner, "up")
        _do(*there, "link", "set", "lo", "up")

    def _remove(self) -> None:
        """Without us devices go with the namespace, and that with its last process."""
        if self._holder is not None:
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                _do("ip", "link", "del", self.device)
            self._holder.kill()
            self._holder.wait()


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
