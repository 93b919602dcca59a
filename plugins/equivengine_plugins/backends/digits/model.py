"""A small vision transformer for 8x8 handwritten digits shown at 32x32.

Plain PyTorch and nothing else: it is the model on which everything here can be checked against dense float64
derivatives within seconds. Pre-norm blocks after Dosovitskiy et al., arXiv 2010.11929; every activation is smooth, so
the Jacobian exists everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DigitsViTConfig:
    """The shape of a `DigitsViT`.

    Attributes:
        image_size: Height and width of the input, in pixels.
        patch_size: Side of a square patch; divides `image_size`.
        channels: Input channels.
        width: Length of a token and of the embedding.
        depth: Number of blocks.
        heads: Attention heads; divides `width`.
        mlp_ratio: Hidden width of the MLP over `width`.
        classes: Number of classes of the linear classifier.
        pool: Which token is the embedding: "class" (a learned one) or "mean" (the average over the patches).
    """

    image_size: int = 32
    patch_size: int = 8
    channels: int = 1
    width: int = 96
    depth: int = 6
    heads: int = 3
    mlp_ratio: int = 4
    classes: int = 10
    pool: str = "class"

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        if self.pool not in ("class", "mean"):
            raise ValueError(f"pool must be 'class' or 'mean', got {self.pool!r}")

    @property
    def patches(self) -> int:
        """Number of patch tokens."""
        return (self.image_size // self.patch_size) ** 2


class Attention(nn.Module):
    """Multi-head self-attention through the fused kernel: [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens of x: [B, T, D] -> [B, T, D]."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, T, D / heads]
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a skip connection: [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x: [B, T, D] -> [B, T, D]."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class DigitsViT(nn.Module):
    """Image [B, channels, image_size, image_size], already normalized -> embedding [B, width].

    The embedding is not L2-normalized. `classify` is the linear head on top of it.
    """

    def __init__(self, config: DigitsViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(config.channels, config.width, config.patch_size, config.patch_size)
        tokens = config.patches + (config.pool == "class")
        self.positions = nn.Parameter(torch.empty(tokens, config.width))
        self.class_token = nn.Parameter(torch.empty(config.width)) if config.pool == "class" else None
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights: normal of standard deviation 0.02 cut at two deviations, zero biases, unit norms."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 or name == "class_token":
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.ones_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalized images: x [B, channels, image_size, image_size] -> [B, width]."""
        tokens = self.patch_embedding(x).flatten(2).transpose(1, 2)  # [B, patches, width]
        if self.class_token is not None:
            first = self.class_token.expand(tokens.shape[0], 1, -1)
            tokens = torch.cat([first, tokens], dim=1)
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens[:, 0] if self.class_token is not None else tokens.mean(1)

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits of the digits 0 to 9: embedding [B, width] -> [B, classes]."""
        return self.head(embedding)
