"""Docstrings (plain English, `code`, Google sections) as the Markdown that MyST reads."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator

#: Code: between backticks, single or double. Identifiers in it may be links.
CODE = re.compile(r"``(?P<double>.+?)``|`(?P<single>[^`\n]+)`", re.DOTALL)
#: Characters that would mean something in Markdown, where a docstring means themselves.
SPECIAL = re.compile(r"([\\*_\[\]<>#~$|])")

Find = Callable[[str], str | None]


def markdown(text: str, find: Find) -> str:
    """The text of a docstring, without sections.

    Args:
        text: As written, without common indentation.
        find: Takes what stands between backticks, and returns the public name that it means, if any.
    """
    return "\n\n".join(_paragraph(part, find) for part in re.split(r"\n\s*\n", text.strip("\n")))


def _paragraph(text: str, find: Find) -> str:
    if all(line.startswith("    ") for line in text.splitlines()):  # a formula or code
        return "```text\n" + textwrap.dedent(text) + "\n```"
    if text.startswith(">>> "):
        return f"```pycon\n{text}\n```"
    items = re.split(r"^- ", text, flags=re.MULTILINE)
    head, rest = items[0].strip().removesuffix("::"), items[1:]
    lines = [_inline(head, find)] if head else []
    if rest:
        lines += ["", *(f"- {_inline(item, find)}" for item in rest)]
    return "\n".join(lines)


def _inline(text: str, find: Find) -> str:
    flat = re.sub(r"\s*\n\s*", " ", text.strip())
    parts, end = [], 0
    for match in CODE.finditer(flat):
        code = match["double"] or match["single"]
        target = None if match["double"] else find(code)
        parts.append(SPECIAL.sub(r"\\\1", flat[end : match.start()]))
        parts.append(f"{{py:obj}}`{code} <{target}>`" if target else f"`{code}`")
        end = match.end()
    return "".join(parts) + SPECIAL.sub(r"\\\1", flat[end:])


def field(role: str, text: str, find: Find) -> Iterator[str]:
    """A field of a field list, such as ``:param x: ...``, as lines."""
    first, *more = markdown(text, find).splitlines() or [""]
    yield f":{role}: {first}"
    yield from (f"    {line}" if line else "" for line in more)
