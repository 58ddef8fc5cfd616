"""Blocks of pages that the clients of others run, in environments of their own."""

from collections.abc import Mapping
from pathlib import Path

from tests.docs.blocks import ROOT, blocks_of
from tests.protocols.environments import run_client


def run_page_block(
    environment: str,
    page: str,
    by: str,
    changed: Mapping[str, str],
    *,
    folder: Path,
    before: str = "",
    after: str,
    **variables: str,
) -> str:
    """Run the block of a page that names a file of tests; what it printed.

    Args:
        environment: With the client's packages.
        page: Below ``docs``.
        by: The file of tests.
        changed: What stands on the page, and what for it here.
        folder: Where the program lies.
        before: What a reader has by then.
        after: Shows what came out.
        **variables: Of the process.
    """
    name = Path(by).relative_to(ROOT).as_posix()
    (block,) = (b for b in blocks_of(ROOT / "docs" / page) if b.run_by == name)
    code = block.code
    for old, new in changed.items():
        assert old in code, f"{block} no longer says {old!r}"
        code = code.replace(old, new)
    program = folder / "page.py"
    program.write_text("\n".join((before, code, after)))
    return run_client(environment, program, **variables)
