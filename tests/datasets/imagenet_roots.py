"""Roots of ImageNet in miniature, and how they are opened."""

from __future__ import annotations

import miniatures as mini
import pytest
from miniatures import CRANE, CRANE_BIRD, GOLDFISH, KIT_FOX, TENCH

import equivengine as eqv
from equivengine_plugins.datasets.imagenet import ImageNet

#: Classes of the validation images 1 to 5.
TRUTH = [KIT_FOX, TENCH, CRANE, CRANE_BIRD, TENCH]


#: The development kit's index of each, as its own files count.
DEVKIT = {KIT_FOX: 1, CRANE: 2, GOLDFISH: 3, TENCH: 4, CRANE_BIRD: 5}


CLSLOC = "".join(
    f"{synset} {index} {mini.WORDS[synset].partition(',')[0].replace(' ', '_')}\n" for synset, index in DEVKIT.items()
)


def opened(root, options: str = "") -> ImageNet:
    return ImageNet(eqv.URI.parse(f"imagenet:{root}{options}"))


def write_meta(path, **changed):
    """As MATLAB wrote it: a column of structures, those with children being no classes."""
    import numpy as np
    from scipy.io import savemat

    columns = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    entries = [
        (index, synset, mini.WORDS[synset], "a gloss", 0, np.zeros(0), 0, 1300) for synset, index in DEVKIT.items()
    ]
    entries.append((1001, "n00001740", "entity", "a gloss", 2, np.array([1, 2]), 9, 0))
    table = np.empty((len(entries), 1), dtype=[(column, object) for column in columns])
    for row, entry in enumerate(entries):
        table[row, 0] = tuple(changed.get(column, value) for column, value in zip(columns, entry, strict=True))
    savemat(path, {"synsets": table})


def refusal(root, options: str = "") -> eqv.DataError:
    with pytest.raises(eqv.DataError) as caught:
        opened(root, options)
    assert caught.value.expected
    assert caught.value.got
    assert caught.value.hint
    return caught.value
