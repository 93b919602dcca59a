"""The module backend: a function in a file of one's own is enough, and every way of getting it wrong has one error."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hf_cases import picture
from library_oracle import assert_same_map
from safetensors.torch import save_file
from torch import nn

import equivengine as eqv
from equivengine_plugins.backends import module as plugin

SOURCE = """
import torch
from torch import nn

FILE = __file__
MODEL = nn.Linear(2, 2)


class Convolutional(nn.Module):
    def __init__(self, width=4, channels=3):
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.convolution(x))).mean(dim=(2, 3)))


def make_encoder(width=4, *, channels=3):
    return Convolutional(width, channels)


def make_sequence(length=3, width=6):
    torch.manual_seed(5)  # these are its weights, whatever the seed of the caller
    return nn.Sequential(nn.Flatten(), nn.Linear(length * width, 7), nn.Tanh())


def fails():
    raise RuntimeError("no such thing\\nas this")


def leaves():
    raise SystemExit("bye")


def makes_nothing():
    return {"model": 1}


def takes_any(**arguments):
    return Convolutional(**arguments)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with my_models.py, the current directory, and sys.path without it."""
    (tmp_path / "my_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_models") or name == "broken_models"]:
        del sys.modules[name]


def load(text):
    return plugin.ModuleBackend().load(eqv.URI.parse(text))


def test_image_model_with_a_file_is_itself(project):
    uri = "module:my_models.make_encoder?size=24x32&mean=0.4,0.5,0.6&std=0.2&width=6&resize=squash"
    load(f"{uri}&weights=random")
    import my_models

    own = my_models.make_encoder(6).eval()
    own.norm.running_mean.normal_()
    save_file(own.state_dict(), project / "own.safetensors")
    encoder = eqv.Encoder(load(f"{uri}&weights={project}/own.safetensors"), uri)
    double = own.double()
    mean = torch.tensor([0.4, 0.5, 0.6]).double().view(3, 1, 1)
    std = torch.tensor(0.2).double()
    assert_same_map(encoder, lambda x: double((x - mean) / std))
    assert encoder.input_shape == (3, 24, 32)
    assert not encoder.spec.random_weights
    details = json.loads(json.dumps(encoder.spec.details))
    assert details["arguments"] == {"width": 6}
    assert details["file"] == str(project / "my_models.py")
    assert len(details["file_sha256"]) == 64
    pixels = np.asarray(picture(64, 48).resize((32, 24), 3), dtype=np.float32) / 255
    assert np.array_equal(encoder.preprocess(picture(64, 48)).permute(1, 2, 0).numpy(), pixels)


def test_random_weights_are_said_and_follow_the_seed(project):
    uri = "module:my_models.make_encoder?size=16&mode=L&channels=1&weights=random"
    before = torch.random.get_rng_state()
    encoders = [eqv.Encoder(load(f"{uri}&seed={seed}"), uri) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(encoder.spec.random_weights for encoder in encoders)
    assert encoders[0].input_shape == (1, 16, 16)
    digests = [encoder.spec.weights_digest for encoder in encoders]
    assert digests[0] == digests[1] != digests[2]


def test_own_weights_are_believed_only_if_they_are_not_drawn(project):
    uri = "module:my_models.make_sequence?input_shape=3x6&range=-1,1"
    encoder = eqv.Encoder(load(f"{uri}&weights=own"), uri)
    assert not encoder.spec.random_weights
    import my_models

    double = my_models.make_sequence().double()
    assert_same_map(encoder, double)
    assert encoder.spec.input_range == (-1.0, 1.0)
    with pytest.raises(eqv.WeightsError, match="does not bring its own weights") as caught:
        load("module:my_models.make_encoder?size=16&weights=own")
    assert "4 that differ: convolution.weight" in caught.value.got
    assert "weights=random" in caught.value.hint


def test_samples_that_are_arrays(project):
    encoder = eqv.Encoder(load("module:my_models.make_sequence?input_shape=3x6&range=-1,1&weights=own"), "x")
    assert torch.equal(encoder.preprocess(np.ones((3, 6))), torch.ones(3, 6))
    for wrong in (np.ones((6, 3)), "text", picture(16, 16)):
        with pytest.raises(eqv.DataError, match="no input of this model"):
            encoder.preprocess(wrong)
    with pytest.raises(eqv.UsageError, match="no images"):
        encoder.display(torch.zeros(3, 6))


def test_command_finds_models_in_the_current_directory(project):
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path[0] = '/nowhere'; from equivengine.cli.main import main; sys.exit(main())",
            *("doctor", "--model", "module:my_models.make_encoder?size=16&weights=random"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert "embedding of 5" in run.stdout


@pytest.mark.parametrize(
    ("text", "kind", "message", "detail"),
    [
        ("my_models", eqv.UsageError, "names no attribute", "package.attr"),
        ("my-models.make", eqv.UsageError, "names no attribute", "package.attr"),
        ("nonesuch.make", eqv.ModelError, "no module 'nonesuch'", "PYTHONPATH"),
        ("my_models.sub.make", eqv.ModelError, "no module 'my_models.sub'|cannot be imported", "my_models"),
        ("broken_models.make", eqv.ModelError, "'broken_models' cannot be imported", "ZeroDivisionError"),
        ("my_models.make_encodr", eqv.ModelError, "no attribute 'make_encodr'", "make_encoder"),
        ("my_models.FILE", eqv.ModelError, "cannot be called", "str"),
        ("my_models.MODEL", eqv.ModelError, "cannot be called", "write a function"),
        ("my_models.fails", eqv.ModelError, r"fails\(\) failed", "RuntimeError: no such thing"),
        ("my_models.leaves", eqv.ModelError, r"leaves\(\) failed", "SystemExit: bye"),
        ("my_models.makes_nothing", eqv.ModelError, "does not return a model", "dict"),
    ],
)
def test_what_cannot_be_imported_or_called_has_one_error(project, text, kind, message, detail):
    (project / "broken_models.py").write_text("1 / 0")
    with pytest.raises(kind, match=message) as caught:
        load(f"module:{text}?size=16&weights=random")
    assert detail in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=16", "where the weights .* come from is not said"),
        ("weights=random", "input .* is not declared"),
        ("weights=random&mean=0.5", "input .* is not declared"),
        ("weights=random&size=16&input_shape=3x16x16", "input .* is not declared"),
        ("weights=random&size=16&range=0,1", "pixels are in"),
        ("weights=random&input_shape=3x6", "range of the input .* is not declared"),
        ("weights=random&input_shape=3x6&range=1,0", "'range' .* is not usable"),
        ("weights=random&input_shape=3x6&range=-inf,inf", "'range' .* is not usable"),
        ("weights=random&input_shape=3x&range=0,1", "'input_shape' .* is not usable"),
        ("weights=random&size=0", "'size' .* is not usable"),
        ("weights=random&size=1x2x3", "'size' .* is not usable"),
        ("weights=random&size=16&mode=RGBA", "'mode' .* is not usable"),
        ("weights=random&size=16&mean=0.5,0.5", "'mean' .* is not usable"),
        ("weights=random&size=16&mean=a", "'mean' .* is not usable"),
        ("weights=random&size=16&std=0", "std must be positive"),
        ("weights=random&size=16&wdith=3", "takes no argument 'wdith'"),
        ("weights=own&size=16&seed=3", "random weights only"),
    ],
)
def test_address_that_makes_no_sense_is_a_usage_error(project, options, message):
    with pytest.raises(eqv.UsageError, match=message):
        load(f"module:my_models.make_encoder?{options}")


def test_weights_that_do_not_fit_are_named(project):
    save_file({"head.weight": torch.zeros(2, 2)}, project / "w.safetensors")
    with pytest.raises(eqv.WeightsError, match="do not fit the model") as caught:
        load(f"module:my_models.make_encoder?size=16&weights={project}/w.safetensors")
    assert "head.weight is [2, 2] instead of [5, 4]" in caught.value.got


def test_arguments_reach_a_callable_that_takes_any_as_json(project):
    loaded = load("module:my_models.takes_any?size=16&weights=random&width=3")
    assert loaded.module.head.in_features == 3
    with pytest.raises(eqv.ModelError, match=r"takes_any\(nonsense='x'\) failed"):
        load("module:my_models.takes_any?size=16&weights=random&nonsense=x")
    assert isinstance(loaded.module, nn.Module)


def test_plugin_imports_no_torch():
    code = (
        "import sys; from equivengine_plugins.backends import module as m; "
        "assert [b.name for b in m.equivengine_register_backends()] == ['module']; "
        "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
