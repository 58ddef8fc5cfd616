"""Which service the command line talks to.

In this order: ``--url`` and ``--key``, the environment's ``SPNODE_URL`` and
``SPNODE_KEY``, the embedded stack where there is one, the default address. A key that
belongs to the embedded stack is never sent to another address.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from spnode_client.client import DEFAULT_URL, Client
from spnode_client.waiting import WaitingClient


@dataclass
class Connection:
    """The choice made on the command line.

    Attributes:
        url: ``--url``, or None.
        key: ``--key``, or None.
        embedded: Finds the address and key of an embedded stack, where there is one.
        timeout_s: ``--timeout``: how long an answer may take to begin.
        says: Told the address where an answer is long in coming.
        program: What the command line is called, so that its hints can be pasted.
    """

    url: str | None = None
    key: str | None = None
    embedded: Callable[[], tuple[str, str | None] | None] | None = None
    timeout_s: float = 60.0
    says: Callable[[str], None] = lambda url: None
    program: str = "spnode"

    def client(self) -> Client:
        """A client of the chosen service."""
        url = self.url or os.environ.get("SPNODE_URL")
        key = self.key or os.environ.get("SPNODE_KEY")
        if url is None and self.embedded is not None:
            found = self.embedded()
            if found is not None:
                url = found[0]
                key = key or found[1]
        chosen = url or DEFAULT_URL
        return WaitingClient(chosen, key, timeout_s=self.timeout_s, says=self.says)


connection = Connection()
"""The one connection of this process."""
