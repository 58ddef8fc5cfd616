"""In what order two processes run all tests, and which files stay in one of them."""

from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parent.parent
TOGETHER = ("tests/api", "tests/endtoend")
"""Their files share servers that start once in a process that runs any of them."""
LAST = ("tests/services", "tests/core", "tests/deploy", "tests/client")
"""Many short files, which fill up whichever process is the first to have done the rest."""


class ByServers(LoadFileScheduling):
    """A file at a time, but whole folders where the files share servers."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((each for each in TOGETHER if file.startswith(f"{each}/")), file)


def position(path: Path) -> int:
    """Where a file comes among all: those that share servers first, short ones last."""
    folder = path.parent.relative_to(ROOT).as_posix()
    order = (*TOGETHER, "", *LAST)
    return order.index(folder if folder in order else "")
