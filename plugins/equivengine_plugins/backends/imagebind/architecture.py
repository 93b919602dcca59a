"""The vision and the text tower of ImageBind, in plain PyTorch.

Written from the architecture as published (Girdhar et al., arXiv 2305.05665: both towers are those of OpenCLIP's
ViT-H/14) and from what independent ports of the published checkpoint agree on. Taken from there are:

* sizes (`VISION_HUGE`, `TEXT_HUGE`), 16 heads in each tower, and the names in the checkpoint (`layout`);
* vision: a still image is two equal frames, which a 3-D convolution of kernel and stride 2 x 14 x 14 without bias turns
  into one layer of patches; a class token before them; learned positions; a layer norm before the blocks; the class
  token's last state through layer norm and projection;
* text: token embeddings and learned positions, 77 of them; causal blocks; the state at the end token (the largest id of
  a prompt) through layer norm and projection; a learned temperature whose factor is cut at 100;
* pre-norm blocks of attention with biases, and of an MLP with the exact GELU; every layer norm with eps 1e-6, where
  OpenCLIP has 1e-5; no dropout, no bias tokens in the attention of these two towers; projections without bias;
* both embeddings divided by their length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tower = TypeVar("Tower", "VisionTower", "TextTower")

LAYER_NORM_EPS = 1e-6
#: What the factor of text embeddings is cut at, and where its training began.
LARGEST_LOGIT_SCALE = 100.0
INITIAL_LOGIT_SCALE = 1 / 0.07


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a `VisionTower`.

    Attributes:
        width: Length of a token; `heads` divides it.
        depth: Number of blocks.
        heads: Attention heads.
        hidden: Hidden width of the MLP.
        patch_size: Side of a square patch, pixels.
        grid: Patches along each side of the image.
        frames: Equal frames that an image is shown as.
        embedding_dim: Length of the embedding.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    patch_size: int
    grid: int
    frames: int
    embedding_dim: int

    @property
    def image_size(self) -> int:
        """Height and width of the input, pixels."""
        return self.patch_size * self.grid


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a `TextTower`.

    Attributes:
        width: Length of a token; `heads` divides it.
        depth: Number of blocks.
        heads: Attention heads.
        hidden: Hidden width of the MLP.
        context: Tokens of a prompt, padding included.
        vocabulary: Number of different tokens.
        embedding_dim: Length of the embedding.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    context: int
    vocabulary: int
    embedding_dim: int


#: imagebind_huge, the only size that was published.
VISION_HUGE = VisionConfig(1280, 32, 16, 5120, patch_size=14, grid=16, frames=2, embedding_dim=1024)
TEXT_HUGE = TextConfig(1024, 24, 16, 4096, context=77, vocabulary=49408, embedding_dim=1024)
#: Small enough for a laptop to try every probe on.
VISION_TINY = VisionConfig(64, 2, 4, 256, patch_size=14, grid=4, frames=2, embedding_dim=32)
TEXT_TINY = TextConfig(32, 2, 4, 128, context=77, vocabulary=49408, embedding_dim=32)


class Attention(nn.Module):
    """Multi-head self-attention through the fused kernel: [B, T, D] -> [B, T, D].

    Its parameters have the names that ``nn.MultiheadAttention`` gives them.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens of x: [B, T, D] -> [B, T, D]; each with those before it alone where ``causal``."""
        batch, tokens, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, T, D / heads]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class MLP(nn.Module):
    """Two linear layers with a GELU between them: [..., D] -> [..., D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to x: [..., D] -> [..., D]."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a skip connection: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: VisionConfig | TextConfig, causal: bool) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.attn = Attention(config.width, config.heads, causal)
        self.norm_2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x: [B, T, D] -> [B, T, D]."""
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Stem(nn.Module):
    """Patches of an image: [B, 3, H, W] -> [B, patches, D].

    The published stem convolves `frames` copies of the image over time. All copies being equal, that is a 2-D
    convolution with the kernel's sum over time. The published kernel is what is kept, and summed in the dtype of the
    call, so that a float64 copy is the published map and not one whose kernel was rounded to float32.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        side = config.patch_size
        self.weight = nn.Parameter(torch.empty(config.width, 3, config.frames, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """Cut and project x: [B, 3, H, W] -> [B, patches, D], row by row."""
        return F.conv2d(x, self.weight.sum(2), stride=self.weight.shape[-1]).flatten(2).transpose(1, 2)


class VisionTower(nn.Module):
    """Normalized images [B, 3, S, S] -> embeddings [B, n], of unit length where ``normalize``."""

    def __init__(self, config: VisionConfig, *, normalize: bool = True) -> None:
        super().__init__()
        self.config = config
        self.normalize = normalize
        self.stem = Stem(config)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.positions = nn.Parameter(torch.empty(1, 1 + config.grid**2, config.width))
        self.norm_in = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.blocks = nn.ModuleList(Block(config, causal=False) for _ in range(config.depth))
        self.norm_out = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.projection = nn.Linear(config.width, config.embedding_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalized images: x [B, 3, S, S] -> [B, n]."""
        first = self.class_token.expand(x.shape[0], -1, -1)
        tokens = self.norm_in(torch.cat([first, self.stem(x)], dim=1) + self.positions)
        for block in self.blocks:
            tokens = block(tokens)
        embedding = self.projection(self.norm_out(tokens[:, 0]))
        return F.normalize(embedding, dim=-1) if self.normalize else embedding


class TextTower(nn.Module):
    """Token ids [P, context] -> embeddings [P, n], of unit length where ``normalize``."""

    def __init__(self, config: TextConfig, *, normalize: bool = True) -> None:
        super().__init__()
        self.config = config
        self.normalize = normalize
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(1, config.context, config.width))
        self.blocks = nn.ModuleList(Block(config, causal=True) for _ in range(config.depth))
        self.norm_out = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.projection = nn.Linear(config.width, config.embedding_dim, bias=False)
        self.log_logit_scale = nn.Parameter(torch.empty(()))

    @property
    def logit_scale(self) -> float:
        """What the published model multiplies text embeddings of unit length by: at most 100."""
        return min(float(self.log_logit_scale.detach().exp()), LARGEST_LOGIT_SCALE)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed tokenized prompts: ids [P, context] -> [P, n], without the factor `logit_scale`."""
        states = self.tokens(ids) + self.positions
        for block in self.blocks:
            states = block(states)
        last = states[torch.arange(len(ids), device=ids.device), ids.argmax(1)]  # the end token has the largest id
        embedding = self.projection(self.norm_out(last))
        return F.normalize(embedding, dim=-1) if self.normalize else embedding


@torch.no_grad()
def drawn(build: Callable[[], Tower]) -> Tower:
    """What ``build`` builds, on the CPU, its weights drawn from torch's global generator.

    Matrices and kernels keep the variance of what goes through them, tables have a deviation of 0.02, biases are zero.
    """
    with torch.device("meta"):  # the layers' own drawing would be overwritten
        tower = build()
    tower.to_empty(device="cpu")
    for name, parameter in tower.named_parameters():
        if name == "log_logit_scale":
            parameter.copy_(torch.tensor(INITIAL_LOGIT_SCALE).log())
        elif name in ("class_token", "positions", "tokens.weight"):
            nn.init.normal_(parameter, std=0.02)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
    return tower
