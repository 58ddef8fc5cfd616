"""The rows that are done: one JSON file for each example, rewritten after each row."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.paper.rows import Bar, Record, Records, Row
from spnode_core.atomic import replacing
from spnode_core.spec import SurrogateSpec, TrainingSpec


class Store:
    """Stored rows of one example.

    Args:
        path: The JSON file; missing or unreadable means none is stored.
        commit: Rows of another commit are measured anew.
        keep: Take rows of other commits as well.
    """

    def __init__(self, path: Path, commit: str, *, keep: bool = False) -> None:
        self.path, self.commit, self.keep = path, commit, keep
        self.records: Records = {}
        for content in _read(path).get("rows", []):
            record = Record(**content)
            self.records[record.name] = record

    def find(self, row: Row) -> Record | None:
        """The stored record of this row, if it may stand for it."""
        record = self.records.get(row.name)
        if record is None or self.stale([row]):
            return None
        return record if self.keep or record.commit == self.commit else None

    def stale(self, rows: Sequence[Row]) -> set[str]:
        """Names of those rows that are stored with other settings.

        A setting that came later, and that a stored row so lacks, was at its default:
        a specification that says nothing of it means the same as before.
        """
        known = [row for row in rows if row.name in self.records]
        return {
            row.name
            for row in known
            if _with_defaults(self.records[row.name].settings)
            != json.loads(json.dumps(row.settings))
        }

    def add(self, record: Record) -> None:
        """Store a record, before anything else happens."""
        self.records[record.name] = record
        self.write()

    def arrange(self, names: list[str]) -> None:
        """Put records into the order of their example; others follow."""
        known = {name: self.records[name] for name in names if name in self.records}
        self.records = {**known, **self.records}

    def write(self, bars: Sequence[Any] | None = None) -> None:
        """Rewrite the file; a crash leaves the old one or the new one."""
        content = {
            "rows": [asdict(record) for record in self.records.values()],
            "bars": [asdict(bar) for bar in bars or []],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())


def stored_bars(path: Path) -> list[Bar]:
    """The bars in a file, none where there is none."""
    return [Bar(**content) for content in _read(path).get("bars", [])]


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with what their specifications leave out; a strange one as it is."""
    filled = dict(settings)
    for name, kind in (("surrogate", SurrogateSpec), ("training", TrainingSpec)):
        with contextlib.suppress(KeyError, ValidationError):
            filled[name] = kind.model_validate(settings[name]).model_dump(mode="json")
    return filled


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
