"""The directive `api`: the Python reference of the names that it lists, from their sources.

```{api} equivengine.linalg
svd
Subspace
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import griffe
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from docs_site.docstrings import field, markdown
from docs_site.sources import Sources

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
#: Modules whose names are documented, the first that has a name before others that have it too.
MODULES = (
    "equivengine",
    "equivengine.linalg",
    "equivengine.matching",
    "equivengine.pictures",
    "equivengine.statistics",
    "equivengine.stopping",
    "equivengine.errors",
    "equivengine.testing",
    "equivengine.store",
)
FIELDS = {"parameters": "param", "raises": "raises", "returns": "returns", "yields": "yields"}


class Reference:
    """Writes what the sources say as Markdown with directives of Sphinx's Python domain.

    Args:
        sources: The package.
        listed: Public names on the pages, in their order.
    """

    def __init__(self, sources: Sources, listed: list[str]) -> None:
        self.sources = sources
        #: Path where a thing is defined -> path where it is documented.
        self.home: dict[str, str] = {}
        for name in listed:
            self.home.setdefault(sources.find(name).path, name)
        self.last = {name.rpartition(".")[2]: name for name in reversed(self.home.values())}
        self.known = {*self.home.values()}
        for name in self.home.values():
            self.known |= {f"{name}.{member}" for member in (*sources.members(name), *self.described(name))}

    def entry(self, name: str) -> Iterator[str]:
        """All about one name."""
        found = self.sources.find(name)
        home = self.home[found.path]
        if home != name:
            yield from (f"`{name}` is {{py:obj}}`{home}`.", "")
        elif found.is_class:
            yield from self._class(name, found)
        elif found.is_function:
            yield from self._function(name, found, "function")
        elif found.is_module:
            yield from self._object("module", name, found, {})
        else:
            yield from self._attribute(name, found, "", "data")

    def _class(self, name: str, found: Any) -> Iterator[str]:
        bases = self.sources.bases(name)
        public = [self.home[base] for base in bases if base in self.home]
        raised = public and any(self._is_error(base) for base in public)
        kind = "exception" if raised or self._is_error(name) else "class"
        signature = "" if raised else _parameters(found.parameters, self.typed)
        yield f"::::{{py:{kind}}} {name}{signature}"
        yield ""
        if public:
            yield from (f"Is a {', '.join(map(_link, public))}.", "")
        yield from self._text(name, found)
        described = self.described(name)
        members = self.sources.members(name)
        for member in dict.fromkeys((*described, *members)):
            value, text = members.get(member), described.get(member, "")
            if value is None or (value.is_attribute and "property" not in value.labels):
                yield from self._attribute(member, value, text, "attribute", owner=name)
            elif value.is_attribute:
                options = {"type": self.typed(value.annotation)} if value.annotation else {}
                yield from self._object("property", member, value, options, owner=name, instead=text)
            else:
                yield from self._function(member, value, "method", owner=name)
        yield from ("::::", "")

    def _is_error(self, name: str) -> bool:
        return self.sources.find(name).path.startswith("equivengine.errors.")

    def _function(self, name: str, found: Any, kind: str, owner: str = "") -> Iterator[str]:
        labels = [label for label in ("classmethod", "staticmethod") if label in found.labels]
        returns = f" -> {self.typed(found.returns)}" if found.returns else ""
        signature = _parameters(found.parameters, self.typed, method=bool(owner) and "staticmethod" not in labels)
        yield from self._object(kind, name, found, dict.fromkeys(labels, ""), signature + returns, owner)

    def _attribute(self, name: str, found: Any, text: str, kind: str, owner: str = "") -> Iterator[str]:
        options = {}
        if found is not None and found.annotation is not None:
            options["type"] = self.typed(found.annotation)
        value = "" if found is None or found.labels == {"instance-attribute"} else str(found.value or "")
        if value and not value.startswith("field("):
            options["value"] = value
        if found is not None and not text:
            text = self.sources.comment(found)
        yield from self._object(kind, name, found, options, owner=owner, instead=text)

    def _object(
        self,
        kind: str,
        name: str,
        found: Any,
        options: Mapping[str, str],
        signature: str = "",
        owner: str = "",
        instead: str = "",
    ) -> Iterator[str]:
        yield f":::{{py:{kind}}} {name}{signature}"
        yield from (f":{key}: {json.dumps(value) if value else ''}".rstrip() for key, value in options.items())
        yield ""
        if instead:
            yield markdown(instead, self._finder(owner or name))
        elif found is not None:
            yield from self._text(owner or name, found)
        yield from (":::", "")

    def _text(self, owner: str, found: Any) -> Iterator[str]:
        """A docstring, and its sections but for `Attributes`."""
        find = self._finder(owner)
        fields: list[str] = []
        for section in found.docstring.parsed if found.docstring else []:
            kind = section.kind.value
            if kind == "text":
                yield from (markdown(section.value, find), "")
            elif kind == "examples":
                yield from (line for _, text in section.value for line in ("```pycon", text, "```", ""))
            elif kind == "admonition":
                yield from (f"**{section.title}** {markdown(section.value.contents, find)}", "")
            for item in section.value if kind in FIELDS else []:
                error = str(item.annotation)
                named = {"parameters": getattr(item, "name", ""), "raises": self.last.get(error, error)}.get(kind, "")
                fields += field(f"{FIELDS[kind]} {named}".strip(), item.description, find)
        yield from (*fields, "")

    def described(self, name: str) -> dict[str, str]:
        """What the section `Attributes` of a class says, by name."""
        parts = (part.docstring for part in self.sources.parts(name))
        sections = [section for docstring in parts if docstring for section in docstring.parsed]
        return {item.name: item.description for s in sections if s.kind.value == "attributes" for item in s.value}

    def typed(self, annotation: str | griffe.Expr) -> str:
        """An annotation in which names that are documented are written out, so that they become links."""
        if isinstance(annotation, str):
            return annotation
        if isinstance(annotation, griffe.ExprName | griffe.ExprAttribute):
            return self.home.get(self.sources.origin(annotation.canonical_path), str(annotation))
        return "".join(map(self.typed, annotation.iterate(flat=False)))

    def _finder(self, owner: str) -> Any:
        module = owner.rpartition(".")[0]

        def find(code: str) -> str | None:
            name = code.removesuffix("()")
            tried = (f"{owner}.{name}", f"{module}.{name}", f"equivengine.{name}", name)
            return next((path for path in tried if path in self.known and path != owner), None)

        return find


def _link(name: str) -> str:
    return f"{{py:obj}}`{name.rpartition('.')[2]} <{name}>`"


def _parameters(parameters: Any, typed: Callable[[Any], str], method: bool = True) -> str:
    """A signature, as Python writes it, without self and cls."""
    written: list[str] = []
    previous = None
    for parameter in parameters:
        if method and parameter.name in ("self", "cls") and previous is None and not written:
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and previous not in (kind, griffe.ParameterKind.var_positional):
            written.append("*")
        star = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        annotation = f": {typed(parameter.annotation)}" if parameter.annotation else ""
        default = "" if parameter.default is None or star else f" = {parameter.default}"
        written.append(f"{star}{parameter.name}{annotation}{default if annotation else default.replace(' ', '')}")
        previous = kind
    return f"({', '.join(written)})"


def listed(root: Path) -> dict[str, list[str]]:
    """Public names that the pages document, by page, as the directives list them."""
    found: dict[str, list[str]] = {}
    for page in sorted((root / "docs").rglob("*.md")):
        lines = iter(page.read_text(encoding="utf-8").splitlines())
        for line in lines:
            if line.startswith("```{api} "):
                module = line.split()[1]
                names = iter(lambda lines=lines: next(lines), "```")
                found.setdefault(page.name, []).extend(f"{module}.{name}" for name in names)
    return found


@cache
def reference() -> Reference:
    """The reference of all names that the pages list."""
    names = [name for page in listed(ROOT).values() for name in page]
    order = {module: place for place, module in enumerate(MODULES)}
    return Reference(Sources(ROOT), sorted(names, key=lambda name: order[name.rpartition(".")[0]]))


class Api(SphinxDirective):
    """Documents the names in its body, of the module that is its argument."""

    required_arguments: ClassVar[int] = 1
    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """Parse the Markdown that `Reference` writes."""
        module, found = self.arguments[0], nodes.Element()
        for name in self.content:
            text = "\n".join(reference().entry(f"{module}.{name}"))
            self.state.nested_parse(StringList(text.splitlines(), source=name), self.content_offset, found)
        return found.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("api", Api)
    return {"version": "1", "parallel_read_safe": True}
