"""Sphinx configuration: `make docs` builds the pages with warnings as errors."""

import re

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

from dualview_plugin.version import __version__

project = "dualview_plugin"
author = "The developers of dualview_plugin"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"dualview_plugin {version}"
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

lexers["mermaid"] = TextLexer()  # drawn by code hosts; shown as text here


_PARAGRAPH = re.compile(r"(Source|Differs|Cost|Note): (.*)")
_LITERAL = re.compile(r"(``[^`]*``|:\w+:`[^`]*`)")


def as_rst(app, what, name, obj, options, lines):  # noqa: ARG001
    """Docstrings are plain text with formulas: stars and bars are no markup, and some paragraphs begin with a word."""
    if lines and lines[0].startswith(f"{name.rsplit('.', 1)[-1]}("):  # made by the dataclass
        lines.clear()
    found, indent = [], None
    for line in lines:
        start = _PARAGRAPH.match(line)
        if start:
            found += ["", f"**{start[1]}:** {_escaped(start[2])}"]
            indent = True
            continue
        indent = indent and bool(line.strip()) and not line.rstrip().endswith(":")
        text = line.strip() if indent else line
        found.append(text if text.lstrip().startswith(">>>") else _escaped(text))
    lines[:] = found


def with_trailing_underscores(app, what, name, obj, options, lines):  # noqa: ARG001
    """``:ivar weight_:`` is a reference to "weight" unless its underscore is escaped."""
    lines[:] = [re.sub(r"^(:(?:ivar|vartype) \w+)_:", r"\1\_:", line) for line in lines]


def _escaped(text):
    parts = _LITERAL.split(text)
    return "".join(part if number % 2 else re.sub(r"([*|])", r"\\\1", part) for number, part in enumerate(parts))


def setup(app):  # noqa: D103
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", with_trailing_underscores, priority=900)  # behind it
