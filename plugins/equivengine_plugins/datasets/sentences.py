"""``sentences``: a dozen plain English sentences that come with the package, in pairs that say nearly the same."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import texts

EQUIVENGINE_API = (1, 0)

#: Written for this package. Fifteen words and a full stop each at least, so that any vocabulary of words and parts of
#: words makes 16 tokens of them; the second of each pair says something else in nearly the same words.
SENTENCES = (
    "The old ferry leaves the harbour at seven every morning and comes back long before noon.",
    "The old ferry leaves the harbour at seven every evening and comes back long after midnight.",
    "A grey cat was sleeping on the warm stones beside the door of the small bakery.",
    "A grey dog was sleeping on the warm stones beside the door of the small bakery.",
    "Nobody in the village could remember a winter with as much snow as the last one.",
    "Everybody in the village could remember a winter with as much snow as the last one.",
    "She measured the length of the table twice and wrote both numbers down on the wall.",
    "He measured the width of the window twice and wrote both numbers down on the wall.",
    "The train to the coast was late again because a tree had fallen across the line.",
    "The train to the coast was early today although a tree had fallen across the line.",
    "Two musicians played the same quiet song on the bridge until the rain began to fall.",
    "Two musicians played the same noisy song on the bridge until the rain began to stop.",
)


class Sentences(eqv.Dataset):
    """`SENTENCES`, in order; a sample loads as a `str`."""

    name = "sentences"
    summary = "bundled English sentences"
    examples = ("sentences",)

    def __init__(self, uri: eqv.URI) -> None:
        """Check the address.

        Raises:
            UsageError: If it has a path or an option.
        """
        uri.refuse_path()
        uri.allow_options(())

    def __len__(self) -> int:
        return len(SENTENCES)

    def __getitem__(self, index: Any) -> Any:
        """The `Sample` at ``index``.

        Raises:
            IndexError: If ``index`` is past either end.
        """
        place = range(len(SENTENCES))[operator.index(index)]
        text = SENTENCES[place]
        digest = texts.text_digest(text)
        return eqv.Sample(f"sentence-{place:02d}", digest, partial(str, text), details=texts.details(text))


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `Sentences`."""
    return [Sentences]
