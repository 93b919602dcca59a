"""The embedded digits model: its files, its accuracy, and the split that keeps the two honest."""

import hashlib
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from equivengine.errors import DataError
from equivengine_plugins.backends.digits import augment, geometry, model, pixels, split, train

DATA = Path(train.__file__).parent / "data"
IMAGES = split.DATA
CONFIG = json.loads((DATA / train.CONFIG_NAME).read_text(encoding="utf-8"))
MEAN, STD = CONFIG["input"]["mean"][0], CONFIG["input"]["std"][0]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def digits_vit():
    vit = model.DigitsViT(model.DigitsViTConfig(**CONFIG["architecture"])).eval()
    vit.load_state_dict(load_file(DATA / CONFIG["weights"]["file"]), strict=True)
    return vit


@pytest.fixture(scope="module")
def heldout():
    return split.load_heldout()


def test_weights_are_float32_between_half_a_million_and_a_million_and_at_most_4_mb():
    tensors = load_file(DATA / CONFIG["weights"]["file"])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    count = sum(tensor.numel() for tensor in tensors.values())
    assert 500_000 <= count <= 1_000_000
    assert count == CONFIG["parameters"]
    assert (DATA / CONFIG["weights"]["file"]).stat().st_size <= 4_000_000


def test_recorded_digests_are_those_of_the_files():
    metrics = json.loads((DATA / train.METRICS_NAME).read_text(encoding="utf-8"))
    record = json.loads((IMAGES / split.RECORD_NAME).read_text(encoding="utf-8"))
    measured = json.loads((DATA / "geometry.json").read_text(encoding="utf-8"))
    assert CONFIG["weights"]["sha256"] == digest(DATA / CONFIG["weights"]["file"])
    assert CONFIG["held_out"]["sha256"] == digest(IMAGES / CONFIG["held_out"]["file"]) == record["sha256"]
    assert metrics["sha256"] == {name: digest(DATA / name) for name in (train.WEIGHTS_NAME, train.CONFIG_NAME)}
    assert measured["weights_sha256"] == CONFIG["weights"]["sha256"]


def test_held_out_accuracy_is_the_recorded_one_and_at_least_97_percent(digits_vit, heldout):
    predicted = train.predict(digits_vit, pixels.stack_pixels(heldout.images), MEAN, STD).numpy()
    correct = int((predicted == heldout.labels).sum())
    assert correct >= 0.97 * len(heldout.labels)
    assert abs(correct - CONFIG["held_out"]["correct"]) <= 1  # another CPU may round one close call the other way
    assert CONFIG["held_out"]["accuracy"] == CONFIG["held_out"]["correct"] / len(heldout.labels)


def test_model_card_states_the_recorded_accuracy_and_digest():
    card = (DATA / "MODEL_CARD.md").read_text(encoding="utf-8")
    low, high = CONFIG["held_out"]["wilson_95"]
    assert f"{CONFIG['held_out']['accuracy']:.2%} ({CONFIG['held_out']['correct']} of 360)" in card
    assert f"{low:.2%} to {high:.2%}" in card
    assert CONFIG["weights"]["sha256"] in card
    assert f"mean {MEAN}" in card
    assert f"standard deviation {STD}" in card


def test_eval_is_deterministic_and_draws_no_random_number(digits_vit, heldout):
    x = (pixels.stack_pixels(heldout.images[:7]) - MEAN) / STD
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = digits_vit(x), digits_vit(x)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (7, CONFIG["embedding"]["dim"])
    assert digits_vit.classify(first).shape == (7, 10)


def test_an_image_has_one_embedding_whatever_its_batch(digits_vit, heldout):
    x = ((pixels.stack_pixels(heldout.images[:5]) - MEAN) / STD).double()
    vit = model.DigitsViT(digits_vit.config).double().eval()
    vit.load_state_dict(digits_vit.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(vit(x), torch.cat([vit(row[None]) for row in x]), rtol=0, atol=1e-10)


def test_split_is_disjoint_complete_and_stratified(heldout):
    training = load_file(IMAGES / split.ARRAYS_NAME)["train_indices"].numpy()
    assert len(heldout.indices) == 360
    assert np.array_equal(np.sort(np.concatenate([training, heldout.indices])), np.arange(1797))
    per_class = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])  # in the source, by digit
    counts = np.bincount(heldout.labels, minlength=10)
    assert np.all(np.abs(counts - per_class * 360 / 1797) < 1)


def test_split_is_what_its_seed_gives_from_the_source(heldout):
    pytest.importorskip("sklearn")
    source = split.load_source()
    training, held = split.choose(source.labels)
    assert np.array_equal(held, heldout.indices)
    assert np.array_equal(source.images[held], heldout.images)
    assert np.array_equal(source.labels[held], heldout.labels)
    assert np.array_equal(split.load_training().indices, training)


def test_shares_are_exact_for_every_seed():
    labels = np.repeat(np.arange(3), [10, 20, 31])
    for seed in range(20):
        rest, held = split.choose(labels, held_out=12, seed=seed)
        assert len(held) == 12
        assert np.intersect1d(rest, held).size == 0
        assert np.all(np.abs(np.bincount(labels[held], minlength=3) - np.array([10, 20, 31]) * 12 / 61) < 1)


def test_missing_scikit_learn_names_the_extra(monkeypatch, capsys, tmp_path):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=r"equivengine\[train\]"):
        split.load_source()
    assert train.main(["--out", str(tmp_path)]) == 1
    assert "pip install" in capsys.readouterr().err


def test_importing_the_model_needs_no_scikit_learn():
    code = "import sys; import equivengine_plugins.backends.digits.train; sys.exit('sklearn' in sys.modules)"
    path = [entry for entry in sys.path if entry]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"], check=True)


def test_pixels_keep_range_order_and_size():
    counts = np.arange(17).repeat(4).reshape(1, 68)[:, :64].reshape(1, 8, 8)
    grey = pixels.to_uint8(counts)
    assert grey.dtype == np.uint8
    assert grey.max() == 239  # 15 * 255 / 16 = 239.06
    assert pixels.to_uint8(np.full((1, 8, 8), 16)).min() == 255
    shown = pixels.stack_pixels(grey)
    assert shown.shape == (1, 1, 32, 32)
    assert shown.dtype == torch.float32
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert torch.all(shown[0, 0].diff(dim=0) >= 0)  # values grow from row to row, and so does the picture


def test_distortions_are_fixed_by_the_seed_and_stay_in_range(heldout):
    x = pixels.stack_pixels(heldout.images[:16])
    first, again, other = (augment.distort(x, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    assert 0.7 < first.mean() / x.mean() < 1.3


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_training_twice_gives_the_same_weights_and_fits_what_it_sees(pool, heldout):
    x, y = pixels.stack_pixels(heldout.images[:40]), torch.from_numpy(heldout.labels[:40])
    recipe = train.Recipe(epochs=6, batch=20, threads=1)
    shape = model.DigitsViTConfig(width=32, depth=1, heads=1, pool=pool)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def once():
        with train.reproducible(5, recipe.threads):
            vit = model.DigitsViT(shape)
            start = torch.nn.functional.cross_entropy(vit.classify(vit((x - MEAN) / STD)), y)
            train.fit(vit, x, y, MEAN, STD, recipe, 5)
            end = torch.nn.functional.cross_entropy(vit.classify(vit((x - MEAN) / STD)), y)
        return vit, start.item(), end.item()

    (one, start, end), (two, *_) = once(), once()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert end < start
    assert not one.training
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_check_tells_equal_weights_from_moved_ones(tmp_path, digits_vit):
    (tmp_path / train.WEIGHTS_NAME).write_bytes((DATA / train.WEIGHTS_NAME).read_bytes())
    assert "bit-equal" in train.compare(tmp_path)
    moved = {name: tensor.clone() for name, tensor in digits_vit.state_dict().items()}
    moved["head.bias"][0] += 0.5
    (tmp_path / train.WEIGHTS_NAME).write_bytes(train.save(moved))
    assert "at most 0.5" in train.compare(tmp_path)


def test_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [train.schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1
    assert rates.index(1.0) in (9, 10)
    assert rates[-1] < 1e-3
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_wilson_interval_of_textbook_cases():
    low, high = train.wilson(10, 10)
    assert high == pytest.approx(1)
    assert low == pytest.approx(1 / (1 + 1.959963984540054**2 / 10))
    assert train.wilson(0, 10) == pytest.approx((0, 1 - low), abs=1e-12)
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 gives 0.2553 to 0.3662.
    assert train.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_jacobian_is_that_of_the_embedding_in_pixel_units(heldout):
    f = geometry.Embedding(DATA / train.CONFIG_NAME)
    x = pixels.stack_pixels(heldout.images[:1]).double()[0]
    jacobian = f.jacobian(x)
    assert jacobian.shape == (CONFIG["embedding"]["dim"], 1024)
    d = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d, h = d / d.norm(), 1e-5
    difference = (f(x + h * d) - f(x - h * d)) / (2 * h)
    torch.testing.assert_close(jacobian @ d.flatten(), difference, rtol=1e-6, atol=1e-8)


def test_gain_of_an_isotropic_map_is_what_the_dimensions_say():
    # J = c [I 0]: every direction in its row space gains c, a random one c sqrt(n / m).
    jacobian = 3 * torch.eye(4, 64, dtype=torch.float64)
    assert geometry.gain(jacobian, torch.tensor([1.0, -2, 0, 3], dtype=torch.float64)) == pytest.approx(math.sqrt(16))


def test_matching_gradients_gain_what_the_card_says():
    measured = json.loads((DATA / "geometry.json").read_text(encoding="utf-8"))
    assert measured["first_gradient_gain"]["median"] >= 10
    assert measured["descent"]["median_gain"] >= 3
    f, heldout = geometry.Embedding(DATA / train.CONFIG_NAME), split.load_heldout()
    x = pixels.stack_pixels(heldout.images).double()
    gains = [geometry.gain(f.jacobian(x[i]), f(x[i]) - f(x[j])) for i, j in measured["pairs"][:3]]
    assert measured["first_gradient_gain"]["min"] * 0.999 <= min(gains)
    assert max(gains) <= measured["first_gradient_gain"]["max"] * 1.001


@pytest.mark.parametrize(
    "wrong", [{"patch_size": 7}, {"heads": 5}, {"pool": "max"}], ids=["patch_size", "heads", "pool"]
)
def test_impossible_shapes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        model.DigitsViTConfig(**wrong)


def test_bundled_photographs_are_the_recorded_ones_and_small():
    from PIL import Image

    record = json.loads((IMAGES / "samples.json").read_text(encoding="utf-8"))["images"]
    assert {entry["file"] for entry in record} == {path.name for path in IMAGES.glob("*.jpg")}
    assert sum(entry["bytes"] for entry in record) <= 600_000
    for entry in record:
        path = IMAGES / entry["file"]
        assert digest(path) == entry["sha256"]
        assert path.stat().st_size == entry["bytes"]
        with Image.open(path) as image:
            assert (image.width, image.height, image.mode) == (entry["width"], entry["height"], entry["mode"])
        assert entry["licence"].startswith(("CC0-1.0", "Public domain"))
        assert entry["author"]
        assert entry["source"]
