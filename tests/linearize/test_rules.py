"""Every rule in float64 against the dense Jacobian of torch.autograd, in both modes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from equivengine.linearize import ARITHMETICS, linearize


def constant(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _applied(g: Callable, positive: float | None = None) -> Callable:
    return g if positive is None else lambda x: g(x.square() + positive)


ACTIVATIONS = (
    *(
        "gelu",
        "relu",
        "relu6",
        "silu",
        "mish",
        "sigmoid",
        "tanh",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "elu",
        "celu",
    ),
    *("leaky_relu", "selu", "softplus", "softsign", "logsigmoid", "softshrink", "hardshrink", "tanhshrink"),
)
FUNCTIONS = (
    *("exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "square", "abs", "sin"),
    *("cos", "erf", "neg", "atan"),
)
A = constant(2, 3, 4)
PLANE = constant(4, 4, seed=9)
IMAGE = (2, 4, 5, 6)

#: On x [2, 3, 4].
VIEWS = {
    "identity": lambda x: x,
    "view": lambda x: x.view(6, 4),
    "reshape_to_scalar_and_back": lambda x: x[0, 0, 0].reshape(1),
    "flatten_unflatten": lambda x: x.flatten(1).unflatten(1, (2, 6)),
    "unsqueeze_squeeze": lambda x: x.unsqueeze(1).squeeze(),
    "permute": lambda x: x.permute(2, 0, 1),
    "permute_negative": lambda x: x.permute(-1, 0, -2),
    "transposes": lambda x: x.transpose(0, 2).mT.movedim(0, 1),
    "t": lambda x: x[0].t(),
    "adjoint_names": lambda x: x[0].T + x[1].T,
    "expand": lambda x: x.unsqueeze(1).expand(2, 5, 3, 4),
    "expand_new_dimension": lambda x: x.expand(3, 2, 3, 4),
    "repeat": lambda x: x.repeat(2, 1, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "select": lambda x: x[:, -1],
    "select_twice": lambda x: x[1, 2],
    "slice": lambda x: x[:, 1:, :-1],
    "slice_negative": lambda x: x[..., -2:],
    "slice_beyond": lambda x: x[:, 1:99],
    "slice_empty": lambda x: x[:, 3:],
    "slice_whole": lambda x: x[:, 0:3],
    "strided": lambda x: x[:, ::2, 1::2],
    "narrow": lambda x: x.narrow(2, 1, 2),
    "unbind": lambda x: x.unbind(1)[0] * x.unbind(1)[2],
    "unbind_all": lambda x: torch.stack(x.unbind(2)[::-1], 2),
    "split": lambda x: torch.cat(x.split(3, dim=2)[::-1], 2),
    "split_sizes": lambda x: torch.cat(x.split([1, 3], dim=-1), 1 - 2),
    "split_first": lambda x: x.split(2, dim=2)[0],
    "chunk": lambda x: x.chunk(3, dim=-1)[1],
    "tensor_split": lambda x: x.tensor_split(3, dim=-1)[0],
    "cat_constant": lambda x: torch.cat([A, x, A[:, :1]], 1),
    "cat_twice": lambda x: torch.cat([x, x.sin(), x], 0),
    "stack_constant": lambda x: torch.stack([A, x, x.sin()], 1),
    "class_token": lambda x: torch.cat([A[:, :1].expand(2, -1, -1), x], 1)[:, 0:2],
    "roll": lambda x: x.roll((1, -2), (0, 2)),
    "roll_flattened": lambda x: x.roll(2),
    "flip": lambda x: x.flip(0, -1),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3)),
    "pad_negative": lambda x: F.pad(x, (-1, 2)),
    "pad_circular": lambda x: F.pad(x, (1, 1), mode="circular"),
    "index": lambda x: x[:, torch.tensor([2, 0, 0])],
    "index_pair": lambda x: x[:, torch.tensor([2, 0, 0]), torch.tensor([1, 1, 1])],
    "index_apart": lambda x: x[torch.tensor([1, 0]), :, torch.tensor([1, 3])],
    "index_mask": lambda x: x[A > 0],
    "index_select": lambda x: x.index_select(-1, torch.tensor([3, 3, 0])),
    "gather": lambda x: x.gather(2, torch.tensor([[[0, 0]], [[3, 1]]])),
    "take_along": lambda x: torch.take_along_dim(x, x.argsort(-1), -1),
    "sort": lambda x: x.sort(-1).values,
    "topk": lambda x: x.topk(2, -1).values,
    "maximum_of_dimension": lambda x: x.max(1).values + x.amax(1),
    "diagonal": lambda x: x[:, :, :3].diagonal(dim1=1, dim2=2),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "as_strided": lambda x: x.as_strided((2, 4), (12, 1), 4),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, A),
    "double_and_back": lambda x: x.float().double() * 0 + x.to(torch.float64),
}

#: On x [2, 3, 4] too.
POINTWISE = {
    "add_constant": lambda x: x + A,
    "add_number": lambda x: 3 + x,
    "add_broadcast_constant": lambda x: x + constant(5, 1, 1, 1),
    "add_broadcast_x": lambda x: x[:1] + x[:, :1] + x,
    "add_alpha": lambda x: torch.add(x.sin(), x[:1], alpha=2),
    "add_alpha_constant": lambda x: torch.add(A, x, alpha=-3),
    "add_itself": lambda x: x + x,
    "sub": lambda x: x.sin() - x.flip(0),
    "sub_alpha": lambda x: torch.sub(x.flip(0), x, alpha=2),
    "sub_from_constant": lambda x: A - x,
    "rsub": lambda x: 1 - x,
    "rsub_tensor": lambda x: torch.rsub(x, A, alpha=2),
    "mul_constant": lambda x: x * A,
    "mul_scalar_tensor": lambda x: torch.tensor(2.5) * x,
    "mul_broadcast_constant": lambda x: x * constant(5, 1, 1, 4),
    "mul_broadcast_x": lambda x: x[:, :, :1] * x.flip(2),
    "mul_itself": lambda x: x * x,
    "gate": lambda x: x[..., :2] * x[..., 2:].sigmoid(),
    "div_number": lambda x: x / 3,
    "div_constant": lambda x: x / A,
    "div_by_x": lambda x: A / (x + 9),
    "div_both": lambda x: x.flip(0) / (x.square() + 1),
    "div_broadcast": lambda x: x / (x.square().sum(-1, keepdim=True) + 1),
    "where": lambda x: torch.where(A > 0, x, x.flip(0)),
    "where_constant": lambda x: torch.where(A > 0, x, A) + torch.where(A > 1, 2.0, x),
    "where_of_x": lambda x: torch.where(x > 0, x, 0.1 * x.exp()),
    "masked_fill": lambda x: x.masked_fill(A > 0, -1.0),
    "maximum": lambda x: torch.maximum(x, A) + torch.minimum(x.flip(0), x),
    "addcmul": lambda x: torch.addcmul(x, A, x.flip(0), value=2),
    "addcdiv": lambda x: torch.addcdiv(A, x, A),
    "lerp": lambda x: torch.lerp(x, A, 0.3),
    "constant_output": lambda x: A * 2,
    "floor": lambda x: x.floor() + x,
    "sum": lambda x: x.sum(1),
    "sum_all": lambda x: x.sum(),
    "sum_several": lambda x: x.sum((0, -1), keepdim=True),
    "mean": lambda x: x.mean(-2),
    "mean_all": lambda x: x.mean(),
    "norm": lambda x: x.norm(dim=-1),
    "norm_all": lambda x: torch.linalg.vector_norm(x),
    "normalize": lambda x: F.normalize(x, dim=1),
    "standard_deviation": lambda x: x.std(-1) + x.var(-1),
    "cumsum": lambda x: x.cumsum(1),
    "cumsum_of_expanded": lambda x: x[:, :1].sin().expand(2, 3, 4).cumsum(1),
    "logsumexp": lambda x: x.logsumexp(-1) + x.log_softmax(1).sum(-1),
    "prod": lambda x: x.prod(1),
    **{name: _applied(getattr(F, name)) for name in ACTIVATIONS},
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "threshold": lambda x: F.threshold(x, 0.2, 5.0),
    **{name: _applied(getattr(torch, name), 0.5) for name in FUNCTIONS},
    "powers": lambda x: x**2 + x.square() ** 1.5 + 2.0**x,
    "power_of_tensor": lambda x: x.square().pow(A) + A.square().pow(x),
    "clamps": lambda x: x.clamp(-0.5, 0.5) + x.clamp_min(0.1) + x.clamp(max=0.3),
    "clamp_tensor": lambda x: x.clamp(min=A),
}

#: On x [2, 3, 4] too.
PRODUCTS = {
    "linear": lambda x: F.linear(x, constant(5, 4), constant(5)),
    "linear_vector": lambda x: F.linear(x[0, 0], constant(5, 4)),
    "linear_weight_of_x": lambda x: F.linear(A, x[0], x[1, :, 0]),
    "addmm": lambda x: torch.addmm(constant(6), x.view(6, 4), constant(4, 6)),
    "addmm_tracked": lambda x: torch.addmm(x[0], x[1, :, :3], A[0], beta=2, alpha=3),
    "mm_constant_left": lambda x: A[0].t() @ x[1],
    "mm_both": lambda x: x[0] @ x[1].t(),
    "matmul_constant": lambda x: x @ constant(4, 5),
    "matmul_batched_constant": lambda x: x @ constant(2, 4, 5),
    "matmul_constant_left": lambda x: constant(2, 5, 3) @ x,
    "matmul_both": lambda x: x @ x.mT,
    "matmul_broadcast": lambda x: x.unsqueeze(1) @ constant(3, 4, 2),
    "matmul_vector": lambda x: x @ constant(4) + (constant(3) @ x).sum(-1, keepdim=True),
    "bmm": lambda x: torch.bmm(x, x.mT),
    "baddbmm": lambda x: torch.baddbmm(constant(2, 3, 3), x, x.mT, alpha=0.5),
    "skip": lambda x: x + F.linear(F.linear(x, PLANE).relu(), PLANE),
    "skip_reversed": lambda x: F.linear(x, PLANE) + x,
    "skip_transposed": lambda x: F.linear(x[:, :, :3], constant(3, 3)).mT + x[:, :, :3],
    "plus_its_transpose": lambda x: (lambda y: y.mT + y)(F.linear(x[:, :, :3], constant(3, 3))).sin(),
    "plus_its_first_row": lambda x: (lambda y: y[:, :1] + y)(F.linear(x, PLANE)),
    "added_twice": lambda x: (lambda y: (y + y[:, :1].sin()) + y)(F.linear(x, PLANE)),
    "two_branches": lambda x: F.linear(x, PLANE) + F.linear(x.sin(), PLANE),
    "linear_used_twice": lambda x: (lambda y: y + x + y * y)(F.linear(x, PLANE)),
    "some_features": lambda x: F.linear(x, constant(6, 4))[..., 1:3],
    "one_feature": lambda x: F.linear(x, constant(6, 4))[..., 2],
    "swiglu": lambda x: (lambda a, b: F.silu(a) * b)(*F.linear(x, constant(6, 4)).chunk(2, -1)),
}

#: On images [2, 4, 5, 6].
IMAGES = {
    "patches": lambda x: F.conv2d(x, constant(3, 4, 2, 3), constant(3), stride=(2, 3)),
    "patches_all": lambda x: F.conv2d(x, constant(3, 4, 5, 6), stride=(5, 6)),
    "patches_1x1": lambda x: F.conv2d(x, constant(3, 4, 1, 1)),
    "patches_1d": lambda x: F.conv1d(x[:, :, 0], constant(3, 4, 4), stride=4),
    "patches_3d": lambda x: F.conv3d(x.unsqueeze(2), constant(2, 4, 1, 2, 2), stride=(1, 2, 2)),
    "unbatched": lambda x: F.conv2d(x[0], constant(3, 4, 2, 2), stride=2),
    "convolution": lambda x: F.conv2d(x, constant(3, 4, 3, 3), padding=1, stride=2),
    "convolution_same": lambda x: F.conv2d(x, constant(3, 4, 3, 3), padding="same"),
    "depthwise": lambda x: F.conv2d(x, constant(4, 1, 3, 3), padding=1, groups=4),
    "dilated": lambda x: F.conv2d(x, constant(3, 4, 2, 2), dilation=2),
    "transposed": lambda x: F.conv_transpose2d(x, constant(4, 3, 2, 2), stride=2, output_padding=1),
    "weight_of_x": lambda x: F.conv2d(constant(1, 4, 7, 7), x[:, :, :3, :3]),
    "channels_last": lambda x: F.conv2d(x, constant(3, 4, 3, 3), padding=1).flatten(2).transpose(1, 2),
    "average_pool": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
    "adaptive_pool": lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    "global_pool": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "max_pool": lambda x: F.max_pool2d(x, 2, stride=1),
    "max_pool_unbatched": lambda x: F.max_pool2d(x[0], 3, stride=2, padding=1),
    "resize": lambda x: F.interpolate(x, (7, 4), mode="bicubic", antialias=True) + F.interpolate(x, (7, 4)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "im2col": lambda x: F.unfold(x, 3, padding=1),
    "reflect": lambda x: F.pad(x, (1, 2, 1, 0), mode="reflect"),
    "batch_norm": lambda x: F.batch_norm(x, constant(4), constant(4).square() + 1, constant(4), constant(4)),
    "batch_norm_plain": lambda x: F.batch_norm(x, constant(4), constant(4).square() + 1),
    "batch_norm_tokens": lambda x: F.batch_norm(x.flatten(2), constant(4), constant(4).square() + 1, constant(4)),
    "group_norm": lambda x: F.group_norm(x, 2, constant(4), constant(4)) + F.group_norm(x, 1),
    "instance_norm": lambda x: F.instance_norm(x),
    "channel_softmax": lambda x: x.softmax(1),
    "squeeze_excite": lambda x: x * F.conv2d(x.mean((2, 3), keepdim=True), constant(4, 4, 1, 1)).sigmoid(),
    "gated": lambda x: F.glu(x, 1),
}

#: On x [2, 3, 4].
NORMS = {
    "layer_norm": lambda x: F.layer_norm(x, (4,), constant(4), constant(4)),
    "layer_norm_plain": lambda x: F.layer_norm(x, (4,)),
    "layer_norm_two_dimensions": lambda x: F.layer_norm(x, (3, 4), constant(3, 4), constant(3, 4)),
    "layer_norm_everything": lambda x: F.layer_norm(x, (2, 3, 4)),
    "layer_norm_weight_of_x": lambda x: F.layer_norm(A, (4,), x[0, 0], x[0, 1]),
    "layer_norm_permuted": lambda x: F.layer_norm(x.permute(2, 0, 1), (3,), constant(3)),
    "layer_norm_skip": lambda x: x + F.linear(F.layer_norm(x, (4,), constant(4)), PLANE),
    "rms_norm": lambda x: F.rms_norm(x, (4,), constant(4), 1e-6),
    "rms_norm_plain": lambda x: F.rms_norm(x, (3, 4)),
    "rms_norm_written_out": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * constant(4),
    "softmax": lambda x: x.softmax(-1),
    "softmax_first": lambda x: x.softmax(0) + F.softmin(x, 1),
}

CASES = {**VIEWS, **POINTWISE, **PRODUCTS, **NORMS}


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str, check: Callable) -> None:
    check(CASES[name], constant(2, 3, 4, seed=3))


@pytest.mark.parametrize("name", IMAGES)
def test_rule_of_images(name: str, check: Callable) -> None:
    check(IMAGES[name], constant(*IMAGE, seed=3))


@pytest.mark.parametrize("name", ["layer_norm", "skip", "gate", "unbind_all", "cat_twice"])
def test_rule_between_others(name: str, check: Callable) -> None:
    check(lambda x: CASES[name](F.linear(x, PLANE)).sin() * 2, constant(2, 3, 4, seed=3))


def nodes_of(f: Callable, *shape: int) -> list[str]:
    return [type(node).__name__ for node in linearize(f, constant(*shape)).nodes]


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: x * x,
        lambda x: x + x.relu(),
        lambda x: (x - 1).exp().sin() / 3,
    ],
    ids=["quick_gelu", "square", "skip", "chain"],
)
def test_functions_of_one_element_become_one_factor(f: Callable, check: Callable) -> None:
    check(f, constant(2, 3))
    assert nodes_of(f, 2, 3) == ["Scale"]


def test_operations_without_rule_are_left_to_torch(check: Callable) -> None:
    program = check(lambda x: x.cumsum(1).sin(), constant(2, 3))
    assert program.coverage(ARITHMETICS["fp64"]) == {"cumsum": {"torch": 1}, "sin": {"shared": 1}}


def test_zero_dimensional_and_empty_inputs(check: Callable) -> None:
    check(lambda x: x.exp() * 2, constant())
    check(lambda x: x.exp().sum(), constant(3, 0))
    check(lambda x: torch.cat([x, x], 1).relu(), constant(3, 0))


def test_a_kink_has_the_derivative_that_autograd_takes(check: Callable) -> None:
    x = torch.zeros(3, dtype=torch.float64)
    for f in (torch.relu, torch.abs, lambda t: t.clamp_min(0), lambda t: t.norm(), lambda t: torch.maximum(t, t * 2)):
        check(f, x)
