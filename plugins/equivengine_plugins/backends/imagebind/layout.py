"""The published names of the checkpoint: which tensor is which of ours, and what sizes the shapes amount to.

``imagebind_huge.pth`` is a flat state dict of six modalities. Names begin with ``modality_preprocessors.``,
``modality_trunks.``, ``modality_heads.`` or ``modality_postprocessors.``, then comes the modality. Of text and vision
every name has to fit; the other modalities are passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.imagebind.architecture import (
    TEXT_HUGE,
    TextConfig,
    TextTower,
    VisionConfig,
    VisionTower,
)

Tower = TypeVar("Tower", VisionTower, TextTower)

PARTS = ("preprocessors", "trunks", "heads", "postprocessors")
OTHER_MODALITIES = ("audio", "depth", "thermal", "imu")
PUBLISHED_HEADS = 16
_TOWERS = {"heads": "vision", "text_heads": "text"}

#: (beginning of the published name, beginning of ours); the ends are the same.
_VISION = (
    ("modality_preprocessors.vision.cls_token", "class_token"),
    ("modality_preprocessors.vision.pos_embedding_helper.pos_embed", "positions"),
    ("modality_preprocessors.vision.rgbt_stem.proj.1.", "stem."),
    ("modality_trunks.vision.pre_transformer_layer.0.", "norm_in."),
    ("modality_trunks.vision.blocks.", "blocks."),
    ("modality_heads.vision.0.", "norm_out."),
    ("modality_heads.vision.2.", "projection."),
)
_TEXT = (
    ("modality_preprocessors.text.token_embedding.", "tokens."),
    ("modality_preprocessors.text.pos_embed", "positions"),
    ("modality_trunks.text.blocks.", "blocks."),
    ("modality_heads.text.proj.0.", "norm_out."),
    ("modality_heads.text.proj.1.", "projection."),
    ("modality_postprocessors.text.1.", ""),
)
_MASK = "modality_preprocessors.text.mask"
#: A mask is added to scores: from here on it leaves nothing of an exponential.
_MASKED = -1e4


def published_name(tower: VisionTower | TextTower, own: str) -> str:
    """The published name of a parameter of ours."""
    table = _VISION if isinstance(tower, VisionTower) else _TEXT
    theirs, ours = next(pair for pair in table if own.startswith(pair[1]))
    return theirs + own.removeprefix(ours)


def published_shapes(tower: VisionTower | TextTower) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of all parameters of a tower."""
    return {published_name(tower, own): tuple(value.shape) for own, value in tower.state_dict().items()}


@dataclass
class Contents:
    """The tensors of a checkpoint, by modality.

    Attributes:
        path: Where they came from, for messages.
        vision: Those of the vision tower, by published name.
        text: Those of the text tower; empty where the file has none.
        passed_over: How many there are of each other modality.
    """

    path: Path
    vision: dict[str, Tensor]
    text: dict[str, Tensor]
    passed_over: dict[str, int]


def sort(state: Mapping[str, Tensor], path: Path) -> Contents:
    """Sort a state dict by modality.

    Raises:
        WeightsError: If a name belongs to none, or there is no vision tower.
    """
    found: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}}
    others: Counter[str] = Counter()
    strangers = []
    for name, value in state.items():
        head, _, rest = name.partition(".")
        modality = rest.partition(".")[0] if head in {f"modality_{part}" for part in PARTS} else ""
        if modality in found:
            found[modality][name] = value
        elif modality in OTHER_MODALITIES:
            others[modality] += 1
        else:
            strangers.append(name)
    if strangers or not found["vision"]:
        raise _unfit(
            path,
            f"{len(strangers)} of another kind: {weights.some(strangers, 3)}" if strangers else "no vision tower",
            expected="names of the published state dict, such as modality_preprocessors.vision.cls_token",
        )
    return Contents(path, found["vision"], found["text"], dict(sorted(others.items())))


# -- sizes ----------------------------------------------------------------------------------------------------------


def vision_config(state: Mapping[str, Tensor], path: Path, heads: int) -> VisionConfig:
    """The sizes that the shapes of a vision tower amount to; the number of heads leaves no trace in them.

    Raises:
        WeightsError: If a tensor that says a size is missing or has no such shape.
        UsageError: If the heads do not divide the width.
    """
    shape = _Shapes(state, path, "vision")
    width, _, frames, side, _ = shape("modality_preprocessors.vision.rgbt_stem.proj.1.weight", "D 3 T P P")
    _, tokens, _ = shape("modality_preprocessors.vision.pos_embedding_helper.pos_embed", "1 N D")
    grid = isqrt(tokens - 1)
    if grid < 1 or grid * grid != tokens - 1:
        raise _unfit(
            path,
            f"modality_preprocessors.vision.pos_embedding_helper.pos_embed has {tokens} positions",
            expected="one of the class token and a square number of patches",
        )
    return VisionConfig(
        width=width,
        depth=shape.depth(),
        heads=dividing(heads, width, "heads"),
        hidden=shape("modality_trunks.vision.blocks.0.mlp.fc1.weight", "H D")[0],
        patch_size=side,
        grid=grid,
        frames=frames,
        embedding_dim=shape("modality_heads.vision.2.weight", "N D")[0],
    )


def text_config(state: Mapping[str, Tensor], path: Path, heads: int) -> TextConfig:
    """The sizes that the shapes of a text tower amount to.

    Raises:
        WeightsError: If a tensor that says a size is missing or has no such shape.
        UsageError: If the heads do not divide the width.
    """
    shape = _Shapes(state, path, "text")
    # A prompt is split by CLIP's byte-pair encoding, whatever the tower's other sizes.
    vocabulary, width = shape("modality_preprocessors.text.token_embedding.weight", f"{TEXT_HUGE.vocabulary} D")
    return TextConfig(
        width=width,
        depth=shape.depth(),
        heads=dividing(heads, width, "text_heads"),
        hidden=shape("modality_trunks.text.blocks.0.mlp.fc1.weight", "H D")[0],
        context=shape("modality_preprocessors.text.pos_embed", "1 T D")[1],
        vocabulary=vocabulary,
        embedding_dim=shape("modality_heads.text.proj.1.weight", "N D")[0],
    )


@dataclass
class _Shapes:
    """Looks up the shapes that say sizes, and complains of those that do not."""

    state: Mapping[str, Tensor]
    path: Path
    modality: str

    def __call__(self, name: str, form: str) -> tuple[int, ...]:
        """The shape of a tensor. Letters of its form stand for any length, the same for the same letter."""
        if name not in self.state:
            raise _unfit(self.path, f"missing: {name}", expected=f"the names of the published {self.modality} tower")
        shape = tuple(self.state[name].shape)
        known: dict[str, int] = {}
        letters = form.split()
        fits = len(shape) == len(letters) and all(
            length == (int(letter) if letter.isdigit() else known.setdefault(letter, length)) and length > 0
            for letter, length in zip(letters, shape, strict=True)
        )
        if not fits:
            raise _unfit(self.path, f"{name} is {list(shape)}", expected=f"[{', '.join(letters)}]")
        return shape

    def depth(self) -> int:
        """One more than the largest number of a block."""
        start = f"modality_trunks.{self.modality}.blocks."
        numbers = {name.removeprefix(start).partition(".")[0] for name in self.state if name.startswith(start)}
        # A number that is out of all proportion is one name too many, not that many blocks.
        known = set(map(str, range(len(self.state))))
        return 1 + max(map(int, numbers & known), default=0)


def dividing(heads: int, width: int, option: str) -> int:
    """The number of heads, which must divide the width of a tower; ``option`` is how an address gives it.

    Raises:
        UsageError: If it does not.
    """
    if width % heads:
        raise eqv.UsageError(
            f"{heads} attention heads do not divide the width {width} of the {_TOWERS[option]} tower",
            expected=f"a divisor of {width}",
            got=heads,
            hint=f"shapes do not tell the number of heads: say it, ?{option}=N (published: {PUBLISHED_HEADS})",
        )
    return heads


# -- filling --------------------------------------------------------------------------------------------------------


def fill(tower: Tower, state: MutableMapping[str, Tensor], path: Path) -> Tower:
    """Give a tower on the meta device the tensors of a checkpoint, as float32 copies; ``state`` is emptied meanwhile.

    A mapped file is thereby read once, and nothing of it is held afterwards.

    Raises:
        WeightsError: If a tensor is missing, unexpected, of a wrong shape, or holds no floating-point numbers.
    """
    mask = state.pop(_MASK, None) if isinstance(tower, TextTower) else None
    check(published_shapes(tower), state, path)
    _check_values({**state, **({} if mask is None else {_MASK: mask})}, path)
    if mask is not None:
        _check_mask(mask, state["modality_preprocessors.text.pos_embed"].shape[1], path)
    values = {}
    for own in tower.state_dict():
        value = state.pop(published_name(tower, own))
        values[own] = value.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    tower.load_state_dict(values, assign=True)
    return tower


def check(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], path: Path) -> None:
    """Hold names and shapes against what is expected.

    Raises:
        WeightsError: With the first names of each kind.
    """
    problem = weights.differences(expected, {name: tuple(value.shape) for name, value in state.items()})
    if problem is not None:
        modality = next(iter(expected)).split(".")[1]
        raise _unfit(path, problem, expected=f"the {len(expected)} tensors of a {modality} tower, and no others")


def _check_values(state: Mapping[str, Tensor], path: Path) -> None:
    """Tensors must be dense, of floating-point numbers, and hold as many of them as their shape says."""
    faults = []
    for name, value in state.items():
        if value.layout != torch.strided or value.device.type != "cpu" or not value.is_floating_point():
            layout = str(value.layout).removeprefix("torch.")
            faults.append(f"{name} holds {value.dtype}, {layout}, on {value.device}")
        elif value.untyped_storage().nbytes() < value.numel() * value.element_size():
            # Strides of zero let a small file declare a tensor that fills the memory.
            faults.append(f"{name} holds fewer numbers than its shape says")
    if faults:
        raise _unfit(path, weights.some(faults, 3), expected="dense tensors of floating-point numbers")


def check_joint(vision: VisionTower, text: TextTower, path: Path) -> None:
    """Both towers must embed into one space.

    Raises:
        WeightsError: If their embeddings differ in length.
    """
    lengths = vision.config.embedding_dim, text.config.embedding_dim
    if lengths[0] != lengths[1]:
        raise _unfit(
            path,
            f"image embeddings of length {lengths[0]}, text embeddings of length {lengths[1]}",
            expected="one length for both",
        )


def _check_mask(mask: Tensor, context: int, path: Path) -> None:
    """A mask in the file (a buffer, no weights) must be the causal one, since that is what is computed."""
    shape = list(mask.shape)
    causal = shape == [context, context]
    if causal:
        after = torch.ones(context, context, dtype=torch.bool).triu(1)
        causal = bool((mask[~after] == 0).all()) and bool((mask[after] <= _MASKED).all())
    if not causal:
        raise _unfit(
            path,
            f"{_MASK} is {shape}, or lets tokens see others than those before them",
            expected=f"the causal mask [{context}, {context}], or none",
        )


def _unfit(path: Path, problem: str, *, expected: str) -> eqv.WeightsError:
    return eqv.WeightsError(
        f"{str(path)!r} is no checkpoint of ImageBind",
        expected=expected,
        got=problem,
        hint="take the file that was published, imagebind_huge.pth, or one of the same names",
    )
