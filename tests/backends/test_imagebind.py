"""The imagebind backend against the published architecture, written down a second time, and against open_clip's."""

import json

import numpy as np
import open_clip as open_clip_library
import pytest
import torch
from imagebind_reference import HUGE, Sizes, double, embed_images, embed_tokens, state_dict
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

import equivengine as eqv
from equivengine.testing import assert_operator_matches
from equivengine_plugins.backends import imagebind as plugin
from equivengine_plugins.backends.imagebind import architecture

SIZES = Sizes()
HEADS = "heads=4&text_heads=2"
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
PROMPTS = ["a photo of a cat", "Two  DOGS &amp; a naïve café!", "it's 3 o'clock", "x"]


@pytest.fixture(scope="module")
def state():
    return state_dict(SIZES)


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("imagebind") / "scaled_down.pth"
    torch.save(state, path)
    return path


def load(text):
    return plugin.ImageBindBackend().load(eqv.URI.parse(text))


def encoder_of(path, options=HEADS):
    uri = f"imagebind:{path}?{options}"
    return eqv.Encoder(load(uri), uri=uri)


def pixels(count=2, seed=1):
    return torch.rand(count, 3, SIZES.image, SIZES.image, generator=torch.Generator().manual_seed(seed))


def normalised(x):
    return (x - MEAN.to(x)) / STD.to(x)


def off(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("normalize", [True, False])
def test_embedding_is_the_published_one(state, checkpoint, normalize):
    encoder = encoder_of(checkpoint, HEADS if normalize else f"{HEADS}&normalize=false")
    x = pixels()
    expected = embed_images(double(state), SIZES, normalised(x.double()), normalize)
    assert off(encoder.at_precision("fp64")(x.double()), expected) < 1e-12
    stock = off(embed_images(state, SIZES, normalised(x), normalize).double(), expected)
    assert off(encoder(x).double(), expected) < max(2 * stock, 1e-6)
    assert encoder.spec.normalized_output == normalize
    lengths = encoder(x).norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(2), atol=1e-6) == normalize


@pytest.mark.parametrize("options", [HEADS, f"{HEADS}&normalize=false"])
def test_jvp_and_vjp_are_those_of_the_published_map(state, checkpoint, options):
    encoder = encoder_of(checkpoint, options)
    x = pixels(1)[0].double()
    weights = double(state)
    normalize = "normalize" not in options
    dense = torch.autograd.functional.jacobian(
        lambda flat: embed_images(weights, SIZES, normalised(flat.view(1, *x.shape)), normalize)[0], x.flatten()
    )
    assert_operator_matches(eqv.JacobianOperator(encoder, x, precision="fp64"), dense, rtol=1e-11)
    assert_operator_matches(eqv.JacobianOperator(encoder, x.float()), dense, rtol=1e-5)
    # |f| = 1 takes the embedding's own direction away (paper's Eq. 3 then turns f, and cannot lengthen it).
    spectrum = torch.linalg.svdvals(dense)
    assert bool(spectrum[-1] < 1e-12 * spectrum[0]) == normalize


def test_two_equal_frames_are_one_convolution_with_the_summed_kernel(state, checkpoint):
    kernel = state["modality_preprocessors.vision.rgbt_stem.proj.1.weight"]
    encoder = encoder_of(checkpoint)
    assert torch.equal(encoder.module.stem.weight, kernel)
    assert not torch.allclose(kernel[:, :, 0], kernel[:, :, 1], atol=0.1)
    x = normalised(pixels().double())
    patches = torch.nn.functional.conv3d(torch.stack([x, x], 2), kernel.double(), stride=(2, 8, 8))
    found = encoder.at_precision("fp64").module.stem(x)
    assert off(found, patches.flatten(2).transpose(1, 2)) < 1e-14


@pytest.mark.parametrize("normalize", [True, False])
def test_text_embedding_is_the_published_one(state, checkpoint, normalize):
    loaded = load(f"imagebind:{checkpoint}?{HEADS}&normalize={str(normalize).lower()}")
    ids = SimpleTokenizer()(PROMPTS, context_length=SIZES.context)
    assert ids.shape == (4, 77)
    assert len({row.tolist().index(49407) for row in ids}) > 2
    expected = embed_tokens(double(state), SIZES, ids, normalize)
    found = loaded.embed_text(PROMPTS)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert off(found.double(), expected) < 2e-6
    assert off(loaded.embed_text(PROMPTS[1]).double(), expected[1:2]) < 2e-6
    assert loaded.details["text_normalized"] == normalize


def test_what_follows_the_end_token_and_the_mask_do_not_matter(state, checkpoint):
    text = load(f"imagebind:{checkpoint}?{HEADS}").embed_text._text
    ids = SimpleTokenizer()(PROMPTS)
    other = ids.clone()
    for row in other:
        end = row.tolist().index(49407)
        row[end + 1 :] = 320
    with torch.no_grad():
        assert torch.equal(ids == 49407, other == 49407)
        assert torch.allclose(text(ids), text(other), atol=1e-6)
        other[:, 1] = 1000
        assert not torch.allclose(text(ids), text(other), atol=1e-2)


def test_prompts_that_are_too_long_keep_their_end(checkpoint):
    loaded = load(f"imagebind:{checkpoint}?{HEADS}")
    long = loaded.embed_text(["cat " * 200, "cat " * 75])
    assert torch.allclose(long[0], long[1], atol=1e-6)
    for nonsense in ([], [3]):
        with pytest.raises(eqv.UsageError, match="text prompts"):
            loaded.embed_text(nonsense)


@pytest.mark.parametrize(("logarithm", "scale"), [(3.0, float(np.exp(3.0))), (7.0, 100.0)])
def test_logit_scale_is_recorded_and_cut(state, tmp_path, logarithm, scale):
    name = "modality_postprocessors.text.1.log_logit_scale"
    save_file({**state, name: torch.tensor(logarithm)}, tmp_path / "x.safetensors")
    loaded = load(f"imagebind:{tmp_path / 'x.safetensors'}?{HEADS}")
    assert loaded.details["logit_scale"] == pytest.approx(scale, rel=1e-6)


# -- open_clip's ViT, of which both towers are ------------------------------------------------------------------------


def as_published(clip):
    """The state dict of open_clip's model under ImageBind's names; the kernel is split between two frames."""
    kernel = clip["visual.conv1.weight"]
    first = torch.rand(kernel.shape, generator=torch.Generator().manual_seed(2)) - 0.5
    state = {
        "modality_preprocessors.vision.cls_token": clip["visual.class_embedding"].view(1, 1, -1),
        "modality_preprocessors.vision.pos_embedding_helper.pos_embed": clip["visual.positional_embedding"][None],
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": torch.stack([first, kernel - first], 2),
        "modality_heads.vision.2.weight": clip["visual.proj"].T.contiguous(),
        "modality_preprocessors.text.pos_embed": clip["positional_embedding"][None],
        "modality_preprocessors.text.token_embedding.weight": clip["token_embedding.weight"],
        "modality_heads.text.proj.1.weight": clip["text_projection"].T.contiguous(),
        "modality_postprocessors.text.1.log_logit_scale": clip["logit_scale"],
    }
    starts = {
        "visual.ln_pre.": "modality_trunks.vision.pre_transformer_layer.0.",
        "visual.ln_post.": "modality_heads.vision.0.",
        "visual.transformer.resblocks.": "modality_trunks.vision.blocks.",
        "ln_final.": "modality_heads.text.proj.0.",
        "transformer.resblocks.": "modality_trunks.text.blocks.",
    }
    parts = {".ln_1.": ".norm_1.", ".ln_2.": ".norm_2.", ".c_fc.": ".fc1.", ".c_proj.": ".fc2."}
    for name, value in clip.items():
        for theirs, published in starts.items():
            if name.startswith(theirs):
                new = published + name.removeprefix(theirs)
                for old, part in parts.items():
                    new = new.replace(old, part)
                state[new] = value
    return state


@pytest.fixture
def clip(monkeypatch):
    config = {
        "embed_dim": 20,
        "vision_cfg": {"image_size": 24, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    monkeypatch.setitem(open_clip_library.factory._MODEL_CONFIGS, "eqv-bind", config)
    torch.manual_seed(3)
    model = open_clip_library.create_model("eqv-bind").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    return model


def test_towers_are_those_of_open_clip(clip, tmp_path):
    save_file(as_published(clip.state_dict()), tmp_path / "clip.safetensors")
    encoder = encoder_of(tmp_path / "clip.safetensors", f"{HEADS}&normalize=false")
    x = pixels()
    prompts = PROMPTS[:2]
    with torch.no_grad():
        assert off(encoder(x), clip.encode_image(normalised(x))) < 1e-5
        assert off(encoder.embed_text(prompts), clip.encode_text(SimpleTokenizer()(prompts))) < 1e-5
    assert encoder.spec.details["logit_scale"] == pytest.approx(float(clip.logit_scale.detach().exp()), rel=1e-6)


def test_published_sizes_have_the_published_number_of_parameters():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        vision = architecture.VisionTower(architecture.VISION_HUGE)
        text = architecture.TextTower(architecture.TEXT_HUGE)
        clip = open_clip_library.model.CLIP(**open_clip_library.get_model_config("ViT-H-14"))
    # arXiv 2305.05665, Sec. 4: "ViT-H 630M params" and "302M params" of the text encoder: both without embeddings.
    assert round(count(vision) / 1e6) == 633
    assert round(count(vision.blocks) / 1e6) == 630
    assert round(count(text.blocks) / 1e6) == 302
    # The second frame's kernel is what the stem has more than OpenCLIP's ViT-H/14.
    assert count(vision) == count(clip.visual) + HUGE.width * 3 * HUGE.patch**2
    assert count(text) == count(clip) - count(clip.visual)


# -- preprocessing, random weights, the record ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(301, 203), (140, 233), (17, 12)])
def test_preprocessing_is_the_published_one(checkpoint, size):
    encoder = encoder_of(checkpoint)
    published = transforms.Compose(
        [
            transforms.Resize(SIZES.image, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZES.image),
            transforms.ToTensor(),
        ]
    )
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    assert torch.equal(encoder.preprocess(image), published(image))
    assert encoder.spec.preprocessing["mean"] == (0.48145466, 0.4578275, 0.40821073)
    assert encoder.spec.preprocessing["std"] == (0.26862954, 0.26130258, 0.27577711)


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    texts = ["weights=random", "weights=random&seed=0&text=false", "weights=random&seed=1"]
    loaded = [load(f"imagebind:tiny?{text}") for text in texts]
    assert torch.equal(torch.random.get_rng_state(), before)
    digests = [eqv.Encoder(one, uri="x").spec.weights_digest for one in loaded]
    assert digests[0] == digests[1] != digests[2]
    assert [one.random_weights for one in loaded] == [True] * 3
    assert [one.embed_text is None for one in loaded] == [False, True, False]
    assert loaded[0].details["seed"] == 0
    x = torch.rand(2, 3, 56, 56)
    first, second = loaded[0].module(x)
    assert float(first @ second) < 0.99  # images are told apart


def test_record_says_what_was_loaded_and_what_was_not(checkpoint):
    loaded = load(f"imagebind:{checkpoint}?{HEADS}&text=false")
    details = json.loads(json.dumps(loaded.details))
    assert details["weights"] == str(checkpoint)
    assert details["checkpoint_dtypes"] == ["float32"]
    assert details["passed_over"] == {"audio": 3, "depth": 1, "imu": 2, "thermal": 1, "text": 31}
    assert details["architecture"] == {
        "width": 48,
        "depth": 2,
        "heads": 4,
        "hidden": 96,
        "patch_size": 8,
        "grid": 3,
        "frames": 2,
        "embedding_dim": 20,
    }
    assert details["text_architecture"] is details["logit_scale"] is None
    assert loaded.embed_text is None
    assert not loaded.random_weights
    assert details["activations"] == {"gelu": 2}
    assert details["license_of_published_weights"] == "CC BY-NC-SA 4.0"
