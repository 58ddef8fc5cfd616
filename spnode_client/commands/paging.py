"""Lists that are longer than one answer: on from a cursor, or to the end."""

from typing import Annotated

import typer

from spnode_client.connection import connection
from spnode_client.operations import pages
from spnode_client.records import Record
from spnode_client.terminal import UsageError, err

After = Annotated[
    str | None,
    typer.Option(help="Go on from here: what the list before said at its end."),
]
Limit = Annotated[
    int, typer.Option(min=1, max=100, help="How many at most; --all for all.")
]
Watched = Annotated[
    bool, typer.Option("--watch", "-w", help="Show how it goes on, until Ctrl-C.")
]
Everything = Annotated[bool, typer.Option("--all", help="To the end of the list.")]


def check_watched_alone(others: Record) -> None:
    """Refuse options that make no sense of what is drawn again and again.

    Args:
        others: What was given, by the name of the option.

    Raises:
        UsageError: There is one.
    """
    for name, given in others.items():
        if given:
            raise UsageError(f"--watch: found --{name} too; expected one of them")


def listed(
    page: pages.Pages,
    query: Record,
    *,
    limit: int,
    after: str | None = None,
    everything: bool = False,
    quiet: bool = False,
) -> list[Record]:
    """One page of a list, or all from there on; says where the next one begins.

    Args:
        page: The operation that asks for one.
        query: What narrows the list.
        limit: How many items at most, unless all are wanted.
        after: Cursor of the page.
        everything: Whether to go on to the end.
        quiet: Whether nothing is said of what follows.
    """
    client = connection.client()
    asked, most = {**query, "after": after}, None if everything else limit
    found, next_one = client.run(pages.listed(page, asked, most, client.retries))
    if next_one and not quiet:
        err.print(f"there are more: --after {next_one}, or --all", markup=False)
    return found
