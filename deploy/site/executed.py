"""Pages whose Python blocks are run, with what they print and draw put below them."""

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.M | re.S)


def run_page(path: Path) -> None:
    """Run a page's Python blocks in order, and write the page anew with what they gave.

    Figures go beside the page as SVG, in the order in which they were drawn.

    Args:
        path: The page, in Markdown.
    """
    import matplotlib as mpl

    mpl.use("agg")
    # The same figure has the same bytes, so that a rebuilt site shows what changed.
    mpl.rcParams["svg.hashsalt"] = path.name
    names: dict[str, Any] = {"__name__": path.stem}
    count = 0

    def answered(block: re.Match[str]) -> str:
        nonlocal count
        line = block.string.count("\n", 0, block.start(1))
        said = run_block("\n" * line + block[1], names, str(path))
        parts = [block[0]]
        if said:
            parts.append(f"```text\n{said.rstrip()}\n```\n")
        for figure in _drawn():
            count += 1
            name = f"{path.stem}-{count}.svg"
            figure.savefig(path.parent / name, metadata={"Date": None})
            parts.append(f"![What the code above draws]({name})\n")
        return "\n".join(parts)

    path.write_text(_BLOCK.sub(answered, path.read_text()))


def run_block(code: str, names: dict[str, Any], origin: str) -> str:
    """Run one block; give what it prints, and its last expression as a shell would.

    Args:
        code: The block.
        names: The variables of the page, which it reads and changes.
        origin: What a traceback calls it.

    Returns:
        The text.
    """
    tree = ast.parse(code, origin)
    last = None
    if tree.body and isinstance(end := tree.body[-1], ast.Expr):
        del tree.body[-1]
        last = ast.Expression(end.value)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(tree, origin, "exec"), names)
        value = eval(compile(last, origin, "eval"), names) if last else None
        if value is not None:
            print(repr(value))  # noqa: T201
    return said.getvalue()


def _drawn() -> list[Any]:
    import matplotlib.pyplot as plt

    figures = [plt.figure(number) for number in plt.get_fignums()]
    plt.close("all")
    return figures
