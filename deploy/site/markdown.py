"""Pieces of Markdown that generated pages share."""

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are in Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(text: str) -> str:
    """A text that fits into one cell of a table."""
    return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|")


def sentence(text: str) -> str:
    """A docstring's paragraph as one line of Markdown."""
    return " ".join(text.split())
