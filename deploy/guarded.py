"""Commands whose own errors become a sentence, not a traceback."""

from collections.abc import Callable
from typing import TypeVar

import typer

from spnode_client.terminal import report

T = TypeVar("T")


def guarded(action: Callable[[], T]) -> T:
    """Run it; a ``RuntimeError``, as the stack's are, is told and gives exit code 1."""
    try:
        return action()
    except RuntimeError as error:
        report(error)
        raise typer.Exit(1) from error
