"""The site as Sphinx sees it: pages in Markdown, the Python reference from docstrings.

Nothing in a built page is asked of another machine: fonts are the system's, formulas
are MathML, and the search has its index beside it.
"""

from deploy.site import mathml

project = "spnode"
author = "the spnode authors"
html_title = "spnode"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# A comment in JSON or an ellipsis in a shell is no mistake of a page.
suppress_warnings = ["misc.highlighting_failure"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

# Every page carries the table of contents: a method each would make it long and slow.
toc_object_entries = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
maximum_signature_line_length = 88

html_theme = "furo"
html_math_renderer = "mathml"
html_use_index = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}


def setup(app):  # noqa: ANN001, ANN201, D103
    mathml.register(app)
