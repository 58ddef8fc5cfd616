"""Lists that are longer than one answer: on from a cursor, or to the end."""

from collections.abc import Callable
from typing import Annotated

import typer

from spnode_client.calls import Operation
from spnode_client.connection import connection
from spnode_client.records import Record
from spnode_client.terminal import err

After = Annotated[
    str | None,
    typer.Option(help="Go on from here: what the list before said at its end."),
]
Everything = Annotated[bool, typer.Option("--all", help="To the end of the list.")]
MOST = 100
"""So many items has a page at most."""


def listed(
    page: Callable[[Record, int], Operation[Record]],
    query: Record,
    *,
    limit: int,
    after: str | None = None,
    everything: bool = False,
) -> list[Record]:
    """One page of a list, or all from there on; says where the next one begins.

    Args:
        page: The operation that asks for one.
        query: What narrows the list.
        limit: How many items at most, unless all are wanted.
        after: Cursor of the page.
        everything: Whether to go on to the end.
    """
    found: list[Record] = []
    client = connection.client()
    limit = MOST if everything else limit
    while True:
        asked = {"limit": limit, **query} | ({"after": after} if after else {})
        got = client.run(page(asked, client.retries))
        found += got["data"]
        after = got.get("next")
        if not after or not everything:
            break
    if after:
        err.print(f"there are more: --after {after}, or --all", markup=False)
    return found
