"""The fenced blocks of every page, and what their first line says of them.

```python                     run, in the order of the page, with its variables
```sh                         commands and options of ours exist, and run where a service suffices
```json                       parses
```text, csv                  what is shown
```LANGUAGE not-run: why      not run here
```LANGUAGE run-by: a test    run as it stands by that file of tests
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^ *```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One block of one page."""

    page: str
    line: int
    language: str
    not_run: str
    run_by: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    return blocks_in(page.relative_to(ROOT).as_posix(), page.read_text())


def blocks_in(name: str, text: str) -> list[Block]:
    """The blocks of a text, which may be a page of the site that is no file."""
    found = []
    for fence in _FENCE.finditer(text):
        language, _, mark = fence[2].partition(" ")
        kind, _, said = mark.partition(": ")
        assert kind in ("", "not-run", "run-by"), f"{name}: {fence[2]!r}"
        found.append(
            Block(
                name,
                text.count("\n", 0, fence.start()) + 1,
                language,
                said if kind == "not-run" else "",
                said if kind == "run-by" else "",
                fence[3],
            )
        )
    return found


def without_blocks(text: str) -> str:
    return _FENCE.sub("", text)


TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
ALL = [block for name, text in TEXTS.items() for block in blocks_in(name, text)]
