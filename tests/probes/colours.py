"""A toy of known classes for probes of sets: an encoder that sees three prototypes, a text tower that names them."""

from __future__ import annotations

import torch
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask

SHAPE, CLASSES, N = (1, 4, 4), ("blue", "green", "red"), 5


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


#: Orthonormal rows: what the encoder sees of an image.
ROWS = torch.linalg.qr(gaussian(16, N, seed=7)).Q.T.contiguous()


class Eye(nn.Module):
    """f(x) = g(W (x - 1/2)), W [5, 16] with orthonormal rows."""

    def __init__(self, g=lambda y: y):
        super().__init__()
        self.W = nn.Parameter(ROWS.clone())
        self.g = g

    def forward(self, x):
        return self.g((x.flatten(1) - 0.5) @ self.W.T)


def images(count, seed=0, noise=0.03):
    """``count`` images [count, *SHAPE] and their labels, class after class: 1/2 + 0.6 W^T e_class + noise."""
    index = torch.arange(count) % len(CLASSES)
    x = 0.5 + 0.6 * ROWS[index] + noise * gaussian(count, 16, seed=seed)
    return x.clamp(0, 1).reshape(-1, *SHAPE), [CLASSES[k] for k in index.tolist()]


def embed_text(prompts):
    """Words for the three axes; anything else lies along the fourth."""
    axes = torch.eye(N)
    return torch.stack([axes[next((k for k, word in enumerate(CLASSES) if word in prompt), 3)] for prompt in prompts])


def encoder_of(module=None, own=True, text=False, **loaded):
    loaded.setdefault("preprocessing", lambda raw: raw)
    loaded.setdefault("input_shape", SHAPE)
    if own:
        loaded |= {"classify": lambda z: 20 * z[:, :3], "class_names": CLASSES}
    if text:
        loaded["embed_text"] = embed_text
    return eqv.Encoder(eqv.LoadedModel(module or Eye(), **loaded), "colours")


def task_of(params, encoder=None, count=6, references=24, labelled=True, seed=0, precision="fp32"):
    x, labels = images(count)
    held, held_labels = images(references, seed=1)
    return ProbeTask(
        encoder or encoder_of(),
        list(x),
        params,
        seed=seed,
        precision=precision,
        sample_ids=[f"image-{k}" for k in range(count)],
        sample_digests=[f"image-{k}" for k in range(count)],
        labels=labels if labelled else [None] * count,
        references=held,
        reference_labels=held_labels if labelled else [None] * references,
        reference_digests=[f"reference-{k}" for k in range(references)],
    )
