"""The pages, as Jinja templates. Whatever comes from plugins, files and users is escaped, without exception."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from equivengine.contracts.wording import between, number, printable
from equivengine.report.summary import by_group

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

#: An interval within a sentence, as `Scalar.__str__` writes it.
_INTERVAL = re.compile(r"\([^()\s]+ \.\. [^()\s]+\)")


def render(template: str, **context: Any) -> str:
    """A page as text.

    Args:
        template: File name within this package.
        context: What it shows.
    """
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "number": number,
        "between": between,
        "softened": softened,
        "by_group": by_group,
        "shortened": shortened,
        "trusted": _trusted,
    }
    return environment


def _shown(value: Any) -> Any:
    """Control characters and marks that reverse the direction of text are written out."""
    return printable(value) if type(value) is str else value


def _trusted(script: str) -> Markup:
    """A program that comes with this package: not escaped, or its digest would be another one."""
    from markupsafe import Markup

    return Markup(script)


def shortened(text: str, most: int = 120) -> str:
    """The start of a text that is too long: the samples of a set."""
    return text if len(text) <= most else f"{text[:most]}…"


def softened(sentence: str) -> Markup:
    """A sentence with its intervals set apart, so that it reads without them."""
    from markupsafe import Markup, escape

    safe = str(escape(printable(sentence)))
    return Markup(_INTERVAL.sub(lambda found: f'<span class="interval">{found[0]}</span>', safe))
