"""Lists that may be longer than one answer."""

from collections.abc import Callable

from spnode_client.calls import Operation
from spnode_client.records import Record

Pages = Callable[[Record, int], Operation[Record]]
"""Asks for one page of a list."""
MOST = 100
"""So many items has a page at most."""


def listed(
    page: Pages, query: Record, limit: int | None, retries: int
) -> Operation[tuple[list[Record], str | None]]:
    """The items of one page, or all from there on, and where the next one begins.

    Args:
        page: Asks for one page.
        query: What narrows the list; ``after``, the cursor of the first page.
        limit: How many items at most; None for all.
        retries: Further tries of each request.
    """
    found: list[Record] = []
    after = query.get("after")
    narrowed = {name: query[name] for name in query if name != "after"}
    while True:
        asked = {"limit": MOST if limit is None else limit, **narrowed}
        got = yield from page(asked | ({"after": after} if after else {}), retries)
        found += got["data"]
        after = got.get("next")
        if limit is not None or not after:
            return found, after


def items(
    page: Pages, query: Record, limit: int | None, retries: int
) -> Operation[list[Record]]:
    """The items alone."""
    found, _ = yield from listed(page, query, limit, retries)
    return found
