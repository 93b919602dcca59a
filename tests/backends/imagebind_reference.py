"""ImageBind as its publication describes it, by functional calls on a state dict: nothing here knows of the backend.

`names` writes the published layout down; `state_dict` fills it with random numbers; `embed_images` and `embed_tokens`
compute in the dtype of the state dict that they are given.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

EPS = 1e-6


@dataclass(frozen=True)
class Sizes:
    width: int = 48
    depth: int = 2
    heads: int = 4
    hidden: int = 96
    patch: int = 8
    grid: int = 3
    frames: int = 2
    text_width: int = 32
    text_depth: int = 2
    text_heads: int = 2
    text_hidden: int = 64
    context: int = 77
    vocabulary: int = 49408
    embedding: int = 20

    @property
    def image(self):
        return self.patch * self.grid


#: imagebind_huge: arXiv 2305.05665, Sec. 4 (ViT-H; text encoder of OpenCLIP), and what the published layout adds.
HUGE = Sizes(1280, 32, 16, 5120, 14, 16, 2, 1024, 24, 16, 4096, 77, 49408, 1024)


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _blocks(modality, width, hidden, depth):
    shapes = {}
    for number in range(depth):
        start = f"modality_trunks.{modality}.blocks.{number}"
        shapes |= {f"{start}.attn.in_proj_weight": (3 * width, width), f"{start}.attn.in_proj_bias": (3 * width,)}
        shapes |= {f"{start}.attn.out_proj.weight": (width, width), f"{start}.attn.out_proj.bias": (width,)}
        shapes |= _norm(f"{start}.norm_1", width)
        shapes |= {f"{start}.mlp.fc1.weight": (hidden, width), f"{start}.mlp.fc1.bias": (hidden,)}
        shapes |= {f"{start}.mlp.fc2.weight": (width, hidden), f"{start}.mlp.fc2.bias": (width,)}
        shapes |= _norm(f"{start}.norm_2", width)
    return shapes


def vision_names(sizes):
    before = "modality_preprocessors.vision"
    return {
        f"{before}.cls_token": (1, 1, sizes.width),
        f"{before}.rgbt_stem.proj.1.weight": (sizes.width, 3, sizes.frames, sizes.patch, sizes.patch),
        f"{before}.pos_embedding_helper.pos_embed": (1, 1 + sizes.grid**2, sizes.width),
        **_norm("modality_trunks.vision.pre_transformer_layer.0", sizes.width),
        **_blocks("vision", sizes.width, sizes.hidden, sizes.depth),
        **_norm("modality_heads.vision.0", sizes.width),
        "modality_heads.vision.2.weight": (sizes.embedding, sizes.width),
    }


def text_names(sizes):
    before = "modality_preprocessors.text"
    return {
        f"{before}.pos_embed": (1, sizes.context, sizes.text_width),
        f"{before}.mask": (sizes.context, sizes.context),
        f"{before}.token_embedding.weight": (sizes.vocabulary, sizes.text_width),
        **_blocks("text", sizes.text_width, sizes.text_hidden, sizes.text_depth),
        **_norm("modality_heads.text.proj.0", sizes.text_width),
        "modality_heads.text.proj.1.weight": (sizes.embedding, sizes.text_width),
        "modality_postprocessors.text.1.log_logit_scale": (),
    }


#: A few of the names that the other modalities have.
OTHERS = {
    "modality_preprocessors.audio.rgbt_stem.proj.weight": (6, 1, 16, 16),
    "modality_trunks.audio.blocks.0.attn.bias_k": (1, 1, 6),
    "modality_postprocessors.audio.1.log_logit_scale": (),
    "modality_preprocessors.depth.depth_stem.proj.weight": (6, 1, 16, 16),
    "modality_preprocessors.thermal.cls_token": (1, 1, 6),
    "modality_heads.imu.3.weight": (8, 6),
    "modality_preprocessors.imu.pos_embed": (1, 5, 6),
}


def state_dict(sizes, seed=0, text=True, others=True):
    """Random float32 tensors under the published names; no two of one kind are alike, nothing is zero or one."""
    shapes = {**vision_names(sizes), **(text_names(sizes) if text else {}), **(OTHERS if others else {})}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(".mask"):
            state[name] = torch.full(shape, float("-inf")).triu(1)
        elif name.endswith("log_logit_scale"):
            state[name] = torch.tensor(3.0)
        elif len(shape) == 1:
            norm = name.endswith("weight")
            state[name] = (1 + 0.2 * noise) if norm else 0.2 * noise
        elif "token" in name or "pos_embed" in name:
            state[name] = 0.5 * noise
        else:
            state[name] = noise * (1.5 / noise[0].numel() ** 0.5)
    return state


def double(state):
    return {name: value.double() for name, value in state.items()}


def _layer_norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], EPS)


def _trunk(state, modality, depth, heads, x, mask=None):
    """Blocks on tokens [T, B, D], with PyTorch's own functional attention."""
    for number in range(depth):
        name = f"modality_trunks.{modality}.blocks.{number}"
        y = _layer_norm(state, f"{name}.norm_1", x)
        y, _ = F.multi_head_attention_forward(
            y,
            y,
            y,
            x.shape[-1],
            heads,
            state[f"{name}.attn.in_proj_weight"],
            state[f"{name}.attn.in_proj_bias"],
            None,
            None,
            False,
            0.0,
            state[f"{name}.attn.out_proj.weight"],
            state[f"{name}.attn.out_proj.bias"],
            training=False,
            need_weights=True,
            attn_mask=mask,
        )
        x = x + y
        y = _layer_norm(state, f"{name}.norm_2", x)
        y = F.linear(y, state[f"{name}.mlp.fc1.weight"], state[f"{name}.mlp.fc1.bias"])
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        x = x + F.linear(y, state[f"{name}.mlp.fc2.weight"], state[f"{name}.mlp.fc2.bias"])
    return x


def _unit(y):
    return y / (y * y).sum(-1, keepdim=True).sqrt()


def embed_images(state, sizes, x, normalize=True):
    """Normalized images [B, 3, S, S] -> [B, n], shown as frames through the 3-D stem."""
    before = "modality_preprocessors.vision"
    video = torch.stack([x] * sizes.frames, dim=2)  # [B, 3, T, S, S]
    stride = (sizes.frames, sizes.patch, sizes.patch)
    patches = F.conv3d(video, state[f"{before}.rgbt_stem.proj.1.weight"], stride=stride).flatten(2).transpose(1, 2)
    tokens = torch.cat([state[f"{before}.cls_token"].expand(len(x), 1, -1), patches], dim=1)
    tokens = tokens + state[f"{before}.pos_embedding_helper.pos_embed"]
    tokens = _layer_norm(state, "modality_trunks.vision.pre_transformer_layer.0", tokens)
    tokens = _trunk(state, "vision", sizes.depth, sizes.heads, tokens.transpose(0, 1)).transpose(0, 1)
    first = _layer_norm(state, "modality_heads.vision.0", tokens)[:, 0]
    embedding = F.linear(first, state["modality_heads.vision.2.weight"])
    return _unit(embedding) if normalize else embedding


def embed_tokens(state, sizes, ids, normalize=True):
    """Token ids [P, context] -> [P, n], without the logit scale."""
    states = F.embedding(ids, state["modality_preprocessors.text.token_embedding.weight"])
    states = states + state["modality_preprocessors.text.pos_embed"]
    mask = state["modality_preprocessors.text.mask"]
    states = _trunk(state, "text", sizes.text_depth, sizes.text_heads, states.transpose(0, 1), mask).transpose(0, 1)
    ends = [row.tolist().index(49407) for row in ids]
    last = torch.stack([states[prompt, end] for prompt, end in enumerate(ends)])
    last = _layer_norm(state, "modality_heads.text.proj.0", last)
    embedding = F.linear(last, state["modality_heads.text.proj.1.weight"])
    return _unit(embedding) if normalize else embedding
