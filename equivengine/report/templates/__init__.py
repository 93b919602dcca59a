"""The pages, as Jinja templates. Whatever comes from plugins, files and users is escaped, without exception."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from equivengine.contracts.wording import between, number, printable

if TYPE_CHECKING:
    from jinja2 import Environment


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
    environment.filters |= {"number": number, "between": between}
    return environment


def _shown(value: Any) -> Any:
    """Control characters and marks that reverse the direction of text are written out."""
    return printable(value) if type(value) is str else value
