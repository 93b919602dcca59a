"""Checkpoints of ImageBind: the published layout is taken, everything else is refused in one short sentence."""

import pickle
import subprocess
import sys

import pytest
import torch
from imagebind_reference import HUGE, OTHERS, Sizes, state_dict, text_names, vision_names
from safetensors.torch import save_file

import equivengine as eqv
from equivengine_plugins.backends import imagebind as plugin
from equivengine_plugins.backends.imagebind import architecture, layout

SIZES = Sizes()
HEADS = "heads=4&text_heads=2"
STEM = "modality_preprocessors.vision.rgbt_stem.proj.1.weight"
POSITIONS = "modality_preprocessors.vision.pos_embedding_helper.pos_embed"
TOKENS = "modality_preprocessors.text.token_embedding.weight"
MASK = "modality_preprocessors.text.mask"
FC2 = "modality_trunks.vision.blocks.1.mlp.fc2.weight"
NORM = "modality_trunks.text.blocks.0.norm_1.bias"


def load(text):
    return plugin.ImageBindBackend().load(eqv.URI.parse(text))


def meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def state():
    return state_dict(SIZES)


@pytest.fixture
def saved(state, tmp_path):
    """Write a changed state dict; a change to None takes the name out."""

    def save(changes=(), suffix=".safetensors"):
        changed = {name: value for name, value in {**state, **dict(changes)}.items() if value is not None}
        path = tmp_path / f"checkpoint{suffix}"
        save_file(changed, path) if suffix == ".safetensors" else torch.save(changed, path)
        return path

    return save


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_every_name_and_shape_of_the_published_file_is_taken(tmp_path):
    shapes = {**vision_names(HUGE), **text_names(HUGE), **OTHERS}
    contents = layout.sort(meta(shapes), tmp_path)
    vision = layout.vision_config(contents.vision, tmp_path, layout.PUBLISHED_HEADS)
    text = layout.text_config(contents.text, tmp_path, layout.PUBLISHED_HEADS)
    assert vision == architecture.VISION_HUGE
    assert text == architecture.TEXT_HUGE
    with torch.device("meta"):
        towers = architecture.VisionTower(vision), architecture.TextTower(text)
    assert layout.published_shapes(towers[0]) == vision_names(HUGE)
    assert layout.published_shapes(towers[1]) == {
        name: shape for name, shape in text_names(HUGE).items() if name != MASK
    }
    layout.check(layout.published_shapes(towers[0]), contents.vision, tmp_path)
    assert contents.passed_over == {"audio": 3, "depth": 1, "imu": 2, "thermal": 1}
    assert len(contents.vision) == 3 + 2 + 12 * 32 + 3


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_both_file_formats_give_the_same_model(saved, state, suffix):
    loaded = load(f"imagebind:{saved(suffix=suffix)}?{HEADS}")
    own = loaded.module.state_dict()
    assert torch.equal(own["stem.weight"], state[STEM])
    assert torch.equal(own["blocks.1.mlp.fc2.weight"], state[FC2])
    assert torch.equal(own["positions"], state[POSITIONS])


def test_text_tower_is_optional_and_so_is_the_mask(saved):
    without = load(f"imagebind:{saved(dict.fromkeys(text_names(SIZES)))}?heads=4")
    assert without.embed_text is None
    assert load(f"imagebind:{saved({MASK: None})}?{HEADS}").embed_text is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_float32_and_are_recorded(saved, state, dtype):
    path = saved({name: value.to(dtype) for name, value in state.items()})
    loaded = load(f"imagebind:{path}?{HEADS}")
    assert {value.dtype for value in loaded.module.state_dict().values()} == {torch.float32}
    assert torch.equal(loaded.module.stem.weight, state[STEM].to(dtype).float())
    assert loaded.details["checkpoint_dtypes"] == [str(dtype).removeprefix("torch.")]


def test_wrapped_state_dict_is_unwrapped(state, tmp_path):
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "x.pt")
    assert torch.equal(load(f"imagebind:{tmp_path / 'x.pt'}?{HEADS}").module.stem.weight, state[STEM])


def test_model_outlives_its_file(saved, state):
    path = saved(suffix=".pth")
    loaded = load(f"imagebind:{path}?{HEADS}")
    with path.open("r+b") as file:
        file.truncate(0)
    assert torch.equal(loaded.module.stem.weight, state[STEM])


_MEASURE = """
import sys
from pathlib import Path

import equivengine as eqv
from equivengine_plugins.backends import checkpoint_file
from equivengine_plugins.backends.imagebind import layout


def private():
    # Memory of this process that is no file's, in bytes.
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["RssAnon"].split()[0])


address, mapped = sys.argv[1], sys.argv[2] == "True"
read = []
sort = layout.sort
layout.sort = lambda *arguments: read.append(private()) or sort(*arguments)
if not mapped:
    checkpoint_file._mappable = lambda path: False
eqv.load_encoder("imagebind:tiny?weights=random")  # everything is imported
before = private()
eqv.load_encoder(address)
print(read[0] - before)
"""


@pytest.mark.parametrize("mapped", [True, False])
def test_towers_that_are_not_wanted_stay_in_the_file(tmp_path, mapped):
    size = 256 * 2**20
    path = tmp_path / "x.pth"
    big = {"modality_trunks.audio.blocks.0.attn.in_proj_weight": torch.zeros(size // 4)}
    torch.save({**state_dict(SIZES, text=False), **big}, path)
    command = [sys.executable, "-c", _MEASURE, f"imagebind:{path}?heads=4", str(mapped)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) < size / 2) == mapped


# -- what is refused --------------------------------------------------------------------------------------------------

BAD = {
    "missing": ({FC2: None}, f"1 missing: {FC2}"),
    "missing and says a size": ({STEM: None}, f"missing: {STEM}"),
    "missing text": ({NORM: None}, f"1 missing: {NORM}"),
    "unexpected": (
        {"modality_heads.vision.2.bias": torch.zeros(20)},
        "1 unexpected: modality_heads.vision.2.bias",
    ),
    "a block too many": (
        {"modality_trunks.vision.blocks.99999999.norm_1.bias": torch.zeros(48)},
        "1 unexpected: modality_trunks.vision.blocks.99999999.norm_1.bias",
    ),
    "a block of a number that nobody reads": (
        {f"modality_trunks.vision.blocks.{'9' * 5000}.norm_1.bias": torch.zeros(48)},
        "1 unexpected: modality_trunks.vision.blocks.999",
    ),
    "of no modality": ({"visual.conv1.weight": torch.zeros(1)}, "1 of another kind: visual.conv1.weight"),
    "misshapen": ({FC2: torch.zeros(48, 95)}, f"1 wrong shape: {FC2} is [48, 95] instead of [48, 96]"),
    "a 2-D stem": ({STEM: torch.zeros(48, 3, 8, 8)}, f"{STEM} is [48, 3, 8, 8]"),
    "patches that are not square": ({STEM: torch.zeros(48, 3, 2, 8, 9)}, f"{STEM} is [48, 3, 2, 8, 9]"),
    "no square of patches": ({POSITIONS: torch.zeros(1, 9, 48)}, f"{POSITIONS} has 9 positions"),
    "no patches": ({POSITIONS: torch.zeros(1, 1, 48)}, f"{POSITIONS} has 1 positions"),
    "another vocabulary": ({TOKENS: torch.zeros(100, 32)}, f"{TOKENS} is [100, 32]"),
    "another mask": ({MASK: torch.zeros(77, 77)}, f"{MASK} is [77, 77]"),
    "a mask of another size": ({MASK: torch.full((76, 76), float("-inf")).triu(1)}, f"{MASK} is [76, 76]"),
    "integers": ({FC2: torch.zeros(48, 96, dtype=torch.int32)}, f"{FC2} holds torch.int32"),
    "another space": (
        {"modality_heads.text.proj.1.weight": torch.zeros(21, 32)},
        "image embeddings of length 20, text embeddings of length 21",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_file_that_does_not_fit_is_refused_with_the_names(saved, case):
    changes, got = BAD[case]
    with pytest.raises(eqv.WeightsError, match="no checkpoint of ImageBind") as caught:
        load(f"imagebind:{saved(changes)}?{HEADS}")
    assert got in caught.value.got
    assert len(str(caught.value)) < 700


def test_checkpoint_of_another_model_is_refused_in_a_few_words(tmp_path):
    save_file({f"layers.{i}.weight": torch.zeros(1) for i in range(500)}, tmp_path / "x.safetensors")
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"imagebind:{tmp_path / 'x.safetensors'}")
    assert "500 of another kind: layers.0.weight, layers.1.weight, layers.10.weight, ..." in caught.value.got
    only_text = {name: value for name, value in state_dict(SIZES).items() if ".vision." not in name}
    save_file(only_text, tmp_path / "y.safetensors")
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"imagebind:{tmp_path / 'y.safetensors'}")
    assert "no vision tower" in caught.value.got


def test_sparse_tensor_is_refused(saved, state):
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"imagebind:{saved({FC2: state[FC2].to_sparse()}, suffix='.pth')}?{HEADS}")
    assert f"{FC2} holds torch.float32, sparse_coo" in caught.value.got


def test_tensor_that_claims_more_than_the_file_holds_is_refused(saved, state):
    shape = tuple(state[FC2].shape)
    path = saved({FC2: torch.zeros(1).expand(shape)}, suffix=".pth")
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"imagebind:{path}?{HEADS}")
    assert f"{FC2} holds fewer numbers than its shape says" in caught.value.got


class Code:
    def __reduce__(self):
        return print, ("this must not be printed",)


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_pickle_that_runs_code_is_refused(state, tmp_path, capsys, write):
    path = tmp_path / "x.pth"
    if write == "pickle":
        path.write_bytes(pickle.dumps({"model": Code()}, protocol=2))
    else:
        torch.save({**state, "extra": Code()}, path)
    with pytest.raises(eqv.WeightsError, match="refused"):
        load(f"imagebind:{path}")
    assert "must not" not in capsys.readouterr().out


def test_truncated_file_is_refused(saved):
    for suffix in (".pth", ".safetensors"):
        path = saved(suffix=suffix)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(eqv.WeightsError, match="no readable"):
            load(f"imagebind:{path}?{HEADS}")


def test_heads_that_do_not_divide_the_width_ask_for_the_option(saved):
    path = saved({MASK: None})
    assert load(f"imagebind:{path}?text_heads=2").module.config.heads == 16
    for options, text in (("heads=5&text_heads=2", "?heads=N"), ("heads=4&text_heads=5", "?text_heads=N")):
        with pytest.raises(eqv.UsageError, match="do not divide") as caught:
            load(f"imagebind:{path}?{options}")
        assert text in caught.value.hint


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("imagebind", eqv.UsageError, "needs a checkpoint"),
        ("imagebind:/no/such/file.pth", eqv.WeightsError, "no weights file"),
        ("imagebind:tiny", eqv.WeightsError, "none are downloaded"),
        ("imagebind:huge?normalize=false", eqv.WeightsError, "none are downloaded"),
        ("imagebind:base?weights=random", eqv.UsageError, "random weights need a size"),
        ("imagebind:huge?weights=/file.pth", eqv.UsageError, "stands after the colon"),
        ("imagebind:tiny?seed=1", eqv.UsageError, "random weights only"),
        ("imagebind:tiny?weights=random&normalize=maybe", eqv.UsageError, "'normalize'"),
        ("imagebind:tiny?weights=random&heads=0", eqv.UsageError, "'heads'"),
        ("imagebind:tiny?weights=random&heads=3", eqv.UsageError, "do not divide"),
        ("imagebind:tiny?weights=random&size=tiny", eqv.UsageError, "does not know the option 'size'"),
    ],
)
def test_address_that_makes_no_sense_is_refused(text, error, says):
    with pytest.raises(error, match=says):
        load(text)
