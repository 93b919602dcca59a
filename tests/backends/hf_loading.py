"""Vision models of transformers, loaded as `--model hf:PATH` loads them."""

from __future__ import annotations

import equivengine as eqv
from equivengine_plugins.backends import hf as plugin


def load(text):
    return plugin.HfBackend().load(eqv.URI.parse(text))


def encode(text):
    return eqv.Encoder(load(text), uri=text)
