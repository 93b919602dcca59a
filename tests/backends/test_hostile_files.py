"""Files that were made to do harm: one short error each, nothing is run, nothing far larger than the file is read."""

import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import pytest
import timm as timm_library
import torch
from hf_cases import FAMILIES, edit, save
from hf_loading import load as load_hf
from open_clip.model import CLIP
from safetensors.torch import save_file
from timm_cases import load as load_timm

import equivengine as eqv
from equivengine_plugins.backends import open_clip as open_clip_plugin
from equivengine_plugins.backends.checkpoint_file import read_checkpoint

QKV = "blocks.0.attn.qkv.weight"


class Runs:
    """A pickle of it makes a directory where it is loaded."""

    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return (os.mkdir, (self.witness,))


@pytest.fixture(scope="module")
def state():
    return timm_library.create_model("test_vit", num_classes=0).state_dict()


def refused(path):
    with pytest.raises(eqv.WeightsError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert len(message) < 1000
    # torch's advice is how to read such a file without its checks
    assert "weights_only` set to" not in message
    assert "will likely succeed" not in message
    return caught.value


# -- tensors ----------------------------------------------------------------------------------------------------------

TENSORS = {
    "sparse": (lambda w: w.to_sparse(), "holds torch.float32, sparse_coo, on cpu"),
    "without data": (lambda w: w.to("meta"), "holds torch.float32, strided, on meta"),
    "quantized": (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "holds torch.qint8"),
    "of zero strides": (lambda w: torch.zeros(1).expand(w.shape), "holds fewer numbers than its shape says"),
    "far larger than the file": (lambda w: torch.zeros(1).expand(10**6, 10**9), "holds fewer numbers"),
    "complex": (lambda w: torch.complex(w, w), "holds torch.complex64"),
    "of integers": (lambda w: w.to(torch.int64), "holds torch.int64"),
    "of truth values": (lambda w: w.to(torch.bool), "holds torch.bool"),
}


@pytest.mark.filterwarnings("error::UserWarning:torch.serialization")
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*")
@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_are_no_plain_numbers_are_refused_by_name(state, tmp_path, case):
    change, says = TENSORS[case]
    torch.save({**state, QKV: change(state[QKV])}, tmp_path / "x.pth")
    with pytest.raises(eqv.WeightsError) as caught:
        load_timm(f"timm:test_vit?weights={tmp_path / 'x.pth'}")
    assert f"{QKV} {says}" in caught.value.got


def test_a_classifier_of_more_classes_than_the_file_has_numbers_for_is_not_built(state, tmp_path):
    head = {"head.weight": torch.zeros(1).expand(10**10, 64), "head.bias": torch.zeros(1).expand(10**10)}
    torch.save({**state, **head}, tmp_path / "x.pth")
    assert "head.weight holds fewer numbers" in refused(tmp_path / "x.pth").got


def test_two_tensors_of_one_name_are_refused(state, tmp_path):
    torch.save({**state, f"module.{QKV}": torch.zeros_like(state[QKV])}, tmp_path / "x.pth")
    error = refused(tmp_path / "x.pth")
    assert "two tensors of one name" in error.what
    assert error.got == QKV


def test_a_list_of_state_dicts_is_no_state_dict(state, tmp_path):
    torch.save([state, state], tmp_path / "x.pth")
    error = refused(tmp_path / "x.pth")
    assert "holds no state dict" in error.what
    assert error.got == "list"


@pytest.mark.parametrize("value", [torch.zeros(1).to_sparse(), "text"], ids=["tensor", "text"])
def test_names_of_any_length_make_a_short_message(tmp_path, value):
    torch.save({"x" * 10**6: value}, tmp_path / "x.pth")
    assert "xxx..." in refused(tmp_path / "x.pth").got


# -- archives and pickles ---------------------------------------------------------------------------------------------


def archive(path, members):
    """A zip archive of deflated zeros and stored texts, written by hand: {name: bytes, or a number of zeros}."""
    out, directory = bytearray(), bytearray()
    for name, content in members.items():
        if isinstance(content, int):
            block = b"\0" * 2**20
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            one = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
            end = zlib.compressobj(9, zlib.DEFLATED, -15).flush(zlib.Z_FINISH)
            data, size, method = one * (content >> 20) + end, content, 8
        else:
            data, size, method = content, len(content), 0
        start, title = len(out), name.encode()
        facts = (0, method, 0, 0x21, zlib.crc32(data) if not method else 0, len(data), size, len(title), 0)
        out += struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, *facts) + title + data
        directory += struct.pack("<IHHHHHHIIIHH", 0x02014B50, 20, 20, *facts) + bytes(10)
        directory += struct.pack("<I", start) + title
    count, length = len(members), len(directory)
    path.write_bytes(out + directory + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, length, len(out), 0))


def test_an_archive_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "small.pth")
    with zipfile.ZipFile(tmp_path / "small.pth") as small:
        (pickled,) = [small.read(name) for name in small.namelist() if name.endswith("data.pkl")]
    members = {"archive/data.pkl": pickled, "archive/version": b"3\n", "archive/byteorder": b"little"}
    archive(tmp_path / "tensor.pth", {**members, "archive/data/0": 3 * 2**30})
    archive(tmp_path / "pickle.pth", {"archive/version": b"3\n", "archive/data.pkl": 3 * 2**30})
    for name in ("tensor.pth", "pickle.pth"):
        assert (tmp_path / name).stat().st_size < 2**22
        error = refused(tmp_path / name)
        assert "unpacks to far more than it holds" in error.what
        assert error.got.startswith("3,221 MB")


def test_an_archive_that_was_packed_again_is_read(state, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(tmp_path / "y.pth", "w", 8) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert torch.equal(read_checkpoint(tmp_path / "y.pth")[QKV], state[QKV])


def tar(value, path):
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            (path.parent / name).write_bytes(pickle.dumps(value))
            file.add(path.parent / name, name)


WRITERS = {
    "archive": torch.save,
    "older format": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    **{
        f"pickle protocol {protocol}": lambda value, path, p=protocol: path.write_bytes(pickle.dumps(value, p))
        for protocol in (0, 2, 5)
    },
}


@pytest.mark.parametrize("case", WRITERS)
def test_a_pickle_that_calls_something_is_refused_and_says_what(tmp_path, case):
    WRITERS[case]({"a": Runs(tmp_path / "witness"), "b": torch.zeros(1)}, tmp_path / "x.pth")
    error = refused(tmp_path / "x.pth")
    assert "reading it would run code" in error.what
    assert "mkdir" in error.got
    assert not (tmp_path / "witness").exists()


def test_programs_tars_and_files_of_another_kind_are_told_apart(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    tar(Runs(tmp_path / "witness"), tmp_path / "old.tar")
    save_file({"a": torch.zeros(4)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "renamed.pth")
    (tmp_path / "data.pth").write_bytes(pickle.dumps({"a": [1.0] * 9}))
    expected = {
        "script.pt": "a TorchScript archive, which is a program",
        "old.tar": "torch's oldest format, a tar archive",
        "renamed.pth": "a pickle of another kind, or none",
        "data.pth": "a pickle of another kind, or none",
    }
    for name, got in expected.items():
        error = refused(tmp_path / name)
        assert "no readable torch checkpoint" in error.what
        assert got in error.got
    assert not (tmp_path / "witness").exists()


def header(entries, body=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SAFETENSORS = {
    "a header of 2^63 bytes": header(b"{}", length=2**63),
    "a header that goes past the end": header(b"{}", length=9 * 10**7),
    "tensors that overlap": header({"a": ONE, "b": ONE}, bytes(8)),
    "more numbers than there are bytes": header({"a": {**ONE, "shape": [2**62, 4]}}, bytes(8)),
    "a negative side": header({"a": {**ONE, "shape": [-2]}}, bytes(8)),
    "a type that is none": header({"a": {**ONE, "dtype": "OBJ"}}, bytes(8)),
    "brackets within brackets": header(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    "bytes that belong to no tensor": header({"a": ONE}, bytes(12)),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_a_header_that_lies_is_refused(tmp_path, case):
    (tmp_path / "x.safetensors").write_bytes(SAFETENSORS[case])
    assert "no readable safetensors file" in refused(tmp_path / "x.safetensors").what


def test_truncation_anywhere_is_refused(state, tmp_path):
    save_file(state, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    for length in (0, 7, 8, 9, 500, len(content) // 2, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        assert "no readable safetensors file" in refused(tmp_path / "x.safetensors").what


# -- files that are none ----------------------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "zeros.safetensors").symlink_to("/dev/zero")
    (tmp_path / "circle.pth").symlink_to(tmp_path / "circle.pth")
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "nowhere.pth")
    expected = {"pipe.pth": "no regular file", "zeros.safetensors": "no regular file"}
    expected |= dict.fromkeys(("circle.pth", "dangling.pth"), "a link that leads to no file")
    for name, got in expected.items():
        error = refused(tmp_path / name)
        assert "there is no weights file" in error.what
        assert got in error.got or "Too many levels" in error.got
    assert "File name too long" in refused(tmp_path / ("a" * 5000 + ".pth")).got


def test_a_link_to_a_text_shows_nothing_of_it(tmp_path):
    (tmp_path / "secret.txt").write_text("password: swordfish\n" * 40)
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).symlink_to(tmp_path / "secret.txt")
        assert "swordfish" not in str(refused(tmp_path / name))


# -- folders ----------------------------------------------------------------------------------------------------------

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 2, "layers": 1},
}


def open_clip_folder(folder, *, text=(), files=()):
    """A folder of open_clip whose text configuration may say more, with other files in it."""
    folder.mkdir()
    config = {**TINY, "text_cfg": {**TINY["text_cfg"], **dict(text)}}
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 32}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}))
    save_file(CLIP(**TINY).state_dict(), folder / "open_clip_model.safetensors")
    for name, content in dict(files).items():
        (folder / name).write_text(content)
    return f"open_clip:local-dir:{folder}"


def foreign_code(witness):
    """Files of a checkpoint that brings a tokenizer and a model of its own along."""
    return {
        "foreign.py": f"import os\nos.mkdir({str(witness)!r})\nclass Tokenizer: pass\nclass Config: pass\n",
        "config.json": json.dumps({"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Config"}}),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": ["foreign.Tokenizer", None]}}
        ),
    }


@pytest.mark.parametrize("trusted", [True, None])
def test_code_of_a_tokeniser_is_not_run_whatever_open_clips_configuration_says(tmp_path, capfd, trusted):
    text = {"hf_tokenizer_name": "any"} | ({"tokenizer_kwargs": {"trust_remote_code": True}} if trusted else {})
    address = open_clip_folder(tmp_path / "x", text=text, files=foreign_code(tmp_path / "witness"))
    loaded = open_clip_plugin.OpenClipBackend().load(eqv.URI.parse(address))
    with pytest.raises(eqv.ModelError) as caught:
        loaded.embed_text(["a"])
    assert "wants code that it brings along to be run" in (caught.value.what if trusted else caught.value.got)
    assert not (tmp_path / "witness").exists()
    assert "y/N" not in capfd.readouterr().out  # nobody is asked


def test_code_of_a_text_tower_is_not_run(tmp_path, capfd):
    files = foreign_code(tmp_path / "witness")
    text = {"hf_model_name": str(tmp_path / "x"), "hf_tokenizer_name": "any", "hf_model_pretrained": True}
    address = open_clip_folder(tmp_path / "x", text=text, files=files)
    with pytest.raises(eqv.ModelError) as caught:
        open_clip_plugin.OpenClipBackend().load(eqv.URI.parse(address))
    assert "wants code that it brings along to be run" in caught.value.got
    assert "hub reachable" not in str(caught.value)
    assert not (tmp_path / "witness").exists()
    assert "y/N" not in capfd.readouterr().out


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_a_pickle_in_a_folder_is_not_run(tmp_path, library):
    bad = {"a": torch.zeros(1), "b": Runs(tmp_path / "witness")}
    if library == "timm":
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 0}))
        torch.save(bad, tmp_path / "x" / "pytorch_model.bin")
        load, address = load_timm, f"timm:local-dir:{tmp_path / 'x'}"
    else:
        address = open_clip_folder(tmp_path / "x")
        (tmp_path / "x" / "open_clip_model.safetensors").unlink()
        torch.save(bad, tmp_path / "x" / "open_clip_pytorch_model.bin")

        def load(text):
            return open_clip_plugin.OpenClipBackend().load(eqv.URI.parse(text))

    with pytest.raises(eqv.WeightsError) as caught:
        load(address)
    assert "a pickle that wants code to be run" in caught.value.got
    assert "retry" not in str(caught.value)
    assert not (tmp_path / "witness").exists()


@pytest.fixture
def saved(tmp_path):
    save(FAMILIES["vit_classifier"], tmp_path / "x")
    return tmp_path / "x"


CONFIGS = {
    "quantized": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization by gptq"),
    "no model": ({"architectures": ["PreTrainedModel"]}, "PreTrainedModel"),
    "a text for a list": ({"architectures": "Viper"}, "Viper"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_leads_elsewhere_is_refused(saved, case):
    changes, got = CONFIGS[case]
    edit(saved / "config.json", **changes)
    with pytest.raises(eqv.ModelError) as caught:
        load_hf(f"hf:{saved}")
    assert caught.value.got == got


def test_an_adapter_is_refused_and_so_is_a_configuration_that_is_a_list(saved):
    adapter = {"base_model_name_or_path": "org/other", "peft_type": "LORA"}
    (saved / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(eqv.ModelError, match="holds an adapter"):
        load_hf(f"hf:{saved}")
    (saved / "config.json").write_text("[]")
    with pytest.raises(eqv.ModelError) as caught:
        load_hf(f"hf:{saved}")
    assert caught.value.got == "list"


@pytest.mark.parametrize("side", [10**6, 0, -1])
def test_an_image_of_impossible_size_is_refused_before_one_is_made(saved, side):
    edit(saved / "preprocessor_config.json", size={"height": side, "width": side})
    with pytest.raises(eqv.ModelError, match="cannot be declared") as caught:
        load_hf(f"hf:{saved}")
    assert f"sides of {side}, {side} pixels" in caught.value.got
