"""Versions that come and go behind an alias: whoever asks for it always finds one."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax

from spnode_client.client import Client
from spnode_client.errors import NotFound
from spnode_core.artifact import load, save

MODEL, ALIAS = "chaos-passing", "now"
_FILES = 3


class Passing:
    """One surrogate in files of different content, each a version for a while.

    Args:
        artifact: The surrogate.
        folder: Where the files are made.
    """

    def __init__(self, artifact: Path, folder: Path) -> None:
        with jax.enable_x64():
            surrogate = load(artifact)
            files = [folder / f"passing-{number}.spnode" for number in range(_FILES)]
            for number, path in enumerate(files):
                save(surrogate, path, card={"passing": number})
        self._files: Iterator[Path] = itertools.cycle(files)

    def step(self, client: Client) -> None:
        """Register the next file, point the alias at it and delete all other versions.

        Where an answer is lost the rest is left to the next step.

        Raises:
            ClientError: There was no answer, or a refusal.
        """
        number = client.models.register(next(self._files), MODEL).number
        client.models.set_alias(MODEL, ALIAS, number)
        for each in list(client.models.versions(MODEL, limit=None)):
            if each.number != number:
                _delete(client, f"{MODEL}/{each.number}")


def _delete(client: Client, version: str) -> None:
    try:
        client.models.delete_version(version)
    except NotFound:
        """An earlier try did it, in this step or another."""


def contradictions(numbers: Iterable[int], now: int | None) -> Iterator[str]:
    """Yield what is wrong with what is left.

    Args:
        numbers: Of the versions.
        now: Where the alias points; None without one.
    """
    if now is None or now not in set(numbers):
        yield "an alias whose versions come and go points at none"
