"""Code that names something of the reference becomes a link to it: `Probe.findings`, `equivengine run x.toml`."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.addnodes import pending_xref

from docs_site.api import ROOT, reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx

COMMANDS = "reference/cli"


def named(code: str) -> str | None:
    """The public name that code means, if it is nothing but one; of bare words only classes are taken for names."""
    name = re.sub(r"\(.*\)$", "", code)
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        return None
    name = re.sub(r"^eqv\.", "equivengine.", name)
    bare = name[:1].isupper() and not name.isupper()
    tried = [name, f"equivengine.{name}", reference().last.get(name, "")] if bare else [name]
    return next((path for path in tried if path in reference().known), None)


@cache
def commands() -> dict[str, str]:
    """Commands that have a section, longest first, and its anchor."""
    text = (ROOT / "docs" / f"{COMMANDS}.md").read_text(encoding="utf-8")
    found = re.findall(r"^#+ (equivengine .*)$", text, re.MULTILINE)
    return {command: command.replace(" ", "-") for command in sorted(found, key=len, reverse=True)}


def _literals(tree: nodes.document) -> list[nodes.literal]:
    return [
        node
        for node in tree.findall(nodes.literal)
        if not isinstance(node.parent, nodes.reference | pending_xref | nodes.title)
    ]


def _to_names(app: Sphinx, tree: nodes.document) -> None:
    for node in _literals(tree):
        target = named(node.astext())
        if target is not None:
            link = pending_xref("", refdomain="py", reftype="obj", reftarget=target, refexplicit=True)
            link["refdoc"] = app.env.current_document.docname
            node.replace_self(link)
            link += node


def _to_commands(app: Sphinx, tree: nodes.document, page: str) -> None:
    for node in _literals(tree) if page != COMMANDS else []:
        text = node.astext()
        command = next((name for name in commands() if text == name or text.startswith(f"{name} ")), None)
        if command is not None:
            address = f"{app.builder.get_relative_uri(page, COMMANDS)}#{commands()[command]}"
            link = nodes.reference("", "", internal=True, refuri=address)
            node.replace_self(link)
            link += node


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", _to_names)
    app.connect("doctree-resolved", _to_commands)
    return {"version": "1", "parallel_read_safe": True}
