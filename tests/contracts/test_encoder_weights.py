"""Precision and digest of the weights of an encoder."""

import pytest
import torch
from encoder_cases import SHAPE, Small, batch, wrap
from torch import nn

import equivengine as eqv
from equivengine.contracts.encoder import weights_digest

# -- precision ------------------------------------------------------------------------------------------------------


def test_float64_copy_has_the_same_weights_and_leaves_the_original_alone():
    encoder = wrap(Small(), preprocessing=eqv.Preprocessing(size=SHAPE[1:], mean=(0.3,) * 3, std=(0.2,) * 3))
    state = {key: value.clone() for key, value in encoder.module.state_dict().items()}
    x = batch()
    single = encoder(x)
    double = encoder.at_precision("fp64")
    assert double is not encoder
    assert encoder.at_precision("fp64") is double
    assert double.at_precision("fp64") is double
    assert encoder.at_precision("fp32") is encoder
    for key, value in double.module.state_dict().items():
        assert value.dtype == (torch.float64 if state[key].is_floating_point() else state[key].dtype)
        assert torch.equal(value.to(state[key].dtype), state[key])
        assert torch.equal(encoder.module.state_dict()[key], state[key])
        assert encoder.module.state_dict()[key].dtype == state[key].dtype
    assert torch.equal(encoder(x), single)
    precise = double(x.double())
    assert precise.dtype == torch.float64
    assert 0 < float((precise - single).abs().max()) < 1e-5
    assert double.spec == encoder.spec


def test_float64_copy_is_no_submodule_and_cannot_go_back():
    encoder = wrap(Small())
    names = [name for name, _ in encoder.named_modules()]
    double = encoder.at_precision("fp64")
    assert [name for name, _ in encoder.named_modules()] == names
    with pytest.raises(eqv.UsageError, match="keep the float32 encoder"):
        double.at_precision("fp32")
    with pytest.raises(eqv.UsageError, match="unknown precision"):
        encoder.at_precision("fp16")


# -- digest ---------------------------------------------------------------------------------------------------------


def flip_lowest_bit(module):
    with torch.no_grad():
        module.conv.weight.view(torch.int32)[0, 0, 0, 0] ^= 1


def rename(module):
    module.neck = module.head
    del module.head


def add_hidden_buffer(module):
    module.register_buffer("table", torch.ones(3), persistent=False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(flip_lowest_bit, id="one bit"),
        pytest.param(rename, id="a name"),
        pytest.param(add_hidden_buffer, id="a hidden buffer"),
        pytest.param(lambda module: module.head.double(), id="a dtype"),
        pytest.param(lambda module: module.norm.running_mean.add_(1e-3), id="a buffer"),
        pytest.param(
            lambda module: setattr(module.head, "weight", nn.Parameter(module.head.weight.reshape(4, 5))), id="a shape"
        ),
    ],
)
def test_digest_sees_every_change(change):
    module = Small()
    before = weights_digest(module)
    assert before == weights_digest(Small()) != weights_digest(Small(seed=1))
    change(module)
    assert weights_digest(module) != before


def test_digest_does_not_see_mode_order_or_layout():
    module = Small()
    before = weights_digest(module)
    module.eval().requires_grad_(False)
    module._modules = dict(reversed(list(module._modules.items())))
    module.conv.weight.data = module.conv.weight.data.to(memory_format=torch.channels_last)
    assert weights_digest(module) == before


def test_digest_reads_a_hidden_buffers_values():
    digests = set()
    for value in (1.0, 2.0):
        module = Small()
        module.register_buffer("table", torch.full((3,), value), persistent=False)
        digests.add(weights_digest(module))
    assert len(digests) == 2
