"""The documentation site: `make docs` builds it from the pages of the repository, without a network.

The folder of the sources is the repository's root, so that links between pages are the same relative links in the site as on the forge.
docs/index.md is the navigation: each of its headings is a group, each page that it links to below is an entry.
"""

from __future__ import annotations

import inspect
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import compresslab
from compresslab.records import Record

ROOT = Path(__file__).resolve().parents[1]

project = "compresslab"
version = release = compresslab.__version__
root_doc = "docs/index"
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
html_title = project
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Only pages: a walk through the rest of the repository would read environments and stores.
PAGES = {"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs", "experiments", "reports"}
exclude_patterns = [
    *sorted(path.name for path in ROOT.iterdir() if path.name not in PAGES),
    "reports/*/**",
]

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # recipe.md has headings of the third level that stand below the first

default_role = "literal"  # in docstrings, where a name stands between single backquotes
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
# A reference that leads nowhere is an error, but for types of other packages and those that are not public.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(collections|numpy|pandas|pathlib|pd|transformers|typing)\..*|Path|PreTrained\w+|Annotated|Any|Literal"),
    ("py:.*", r"compresslab(\.\w+){2,}|Anchor|AnswerDifference|Backend|Count|Estimator|Quantity|Ranks|RecipeError|Verdict"),
]

GROUP = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.M | re.S)
PAGE = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)\.(?:md|ipynb)\)")
FIELD = re.compile(r"(?<=[.;]) (\w+): ")


def notebook_page(notebook: dict[str, Any]) -> str:
    """The cells of a notebook as Markdown; of an output its HTML, where it has some."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"````python\n{source}\n````")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if html := "".join(data.get("text/html", [])):
                parts.append(f'````{{raw}} html\n<div class="output">{html}</div>\n````')
            elif text := "".join(output.get("text", data.get("text/plain", []))):
                parts.append(f"````text\n{text}\n````")
    return "\n\n".join(parts)


def change_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Read a notebook as a page, and put a hidden table of contents for each group behind the text of the index."""
    if app.env.doc2path(docname).suffix == ".ipynb":
        source[0] = notebook_page(json.loads(source[0]))
    if docname == root_doc:
        for caption, entries in groups(source[0]).items():
            source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```", ""])


def groups(text: str) -> dict[str, list[str]]:
    """The pages that each second-level heading of the index links to, as entries of a table of contents with the link's words."""
    return {caption: [entry(*found) for found in PAGE.findall(body)] for caption, body in GROUP.findall(text)}


def entry(words: str, page: str) -> str:
    """A page, named from the index's folder, with the words of the link to it."""
    return f"{words[0].upper()}{words[1:]} </{posixpath.normpath(posixpath.join(posixpath.dirname(root_doc), page))}>"


def split_fields(_app: Sphinx, _what: str, _name: str, item: object, _options: object, lines: list[str]) -> None:
    """Give each field that a docstring describes a line of its own; where they are short, several stand in one line there.

    The fields of a record are its parameters, so they are shown as such.
    """
    if not callable(item):
        return
    fields = {*inspect.signature(item).parameters, *getattr(item, "model_fields", ())}
    split = [FIELD.sub(lambda found: f"\n    {found[1]}: " if found[1] in fields else found[0], line) for line in lines]
    lines[:] = ["Args:" if line == "Attributes:" else line for line in "\n".join(split).split("\n")]


def show_fields(
    _app: Sphinx, _what: str, _name: str, item: object, _options: object, _signature: str, _returns: str
) -> tuple[str, str] | None:
    """Write the fields of a record as its class does; its signature holds factories and validators, which nobody can read."""
    if not (isinstance(item, type) and issubclass(item, BaseModel)):
        return None
    types = {name: kind for part in reversed(item.__mro__) for name, kind in inspect.get_annotations(part).items()}
    fields = [f"{name}: {types[name]}{_default(field)}" for name, field in item.model_fields.items()]
    return (f"(*, {', '.join(fields)})", "") if issubclass(item, Record) and inspect.get_annotations(item) else ("", "")


def _default(field: FieldInfo) -> str:
    return "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"


def find_public(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.reference | None:
    """Lead from a name in its own module, as in a signature, to the public name that is documented."""
    name = node.get("reftarget", "").rpartition(".")[2]
    python = env.domains.python_domain
    for public in (f"compresslab.{name}", f"compresslab.records.{name}"):
        if public in python.objects:
            found = python.objects[public]
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, text, public)
    return None


def add_entrance(app: Sphinx, exception: Exception | None) -> None:
    """The site's root leads to the index, whose address has the folder of the sources in it."""
    if exception is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html">\n')


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", change_source)
    app.connect("autodoc-process-docstring", split_fields, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", show_fields)
    app.connect("missing-reference", find_public)
    app.connect("build-finished", add_entrance)
