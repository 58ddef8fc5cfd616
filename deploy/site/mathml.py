"""Formulas of docstrings as MathML, which browsers draw without any program."""

from collections.abc import Callable
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def register(app: Any) -> None:
    """Offer the renderer to Sphinx under the name ``mathml``."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(_writer("inline"), None),
        block_renderers=(_writer("block"), None),
    )


def _writer(display: str) -> Callable[[Any, nodes.Element], None]:
    def write(translator: Any, node: nodes.Element) -> None:
        translator.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode

    return write
