"""Models of timm with known weights, as timm itself makes and saves them."""

import timm as timm_library
import torch

import equivengine as eqv
from equivengine_plugins.backends import timm as plugin


def load(text):
    return plugin.TimmBackend().load(eqv.URI.parse(text))


def own(name, seed, **arguments):
    """The library's model with weights drawn from ``seed``, nothing of ours in between."""
    torch.manual_seed(seed)
    return timm_library.create_model(name, **arguments).eval()
