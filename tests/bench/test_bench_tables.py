"""docs/performance.md shows what bench/results/ holds."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import tables  # noqa: E402

MACHINE = {"measured": "2026-01-02T03:04:05+00:00", "doctor": {"libraries": {"torch": "2.11.0"}}}
WAY = {
    "way": "ours",
    "product": "jvp",
    "precision": "fp32",
    "over_forward": {"median": 0.914, "min": 0.9, "max": 0.95},
    "over_forward_same_precision": 0.914,
    "over_forward_prepared": 1.25,
    "of_matrix_product": 0.876,
    "relative_error": 4.4e-7,
}
CASE = {
    "model": "vit_s16",
    "K": 16,
    "n": 384,
    "forward_seconds": {"fp32": 0.05},
    "matrix_product": {"gflops": {"fp32": 180.2}},
    "ways": [
        WAY,
        {"way": "linearize", "product": "jvp", "precision": "fp32", "error": "RuntimeError: no | rule\nmore"},
    ],
}


def document(device: str, results: list[dict]) -> dict:
    return {"device": device, "name": f"A {device}", "threads": 2, "results": results, "machine": MACHINE}


def test_the_page_shows_the_results_that_are_there():
    page = tables.PAGE.read_text(encoding="utf-8")
    assert [match["topic"] for match in tables.MARKED.finditer(page)] == list(tables.TOPICS)
    assert tables.render(page) == page, "run `python bench/tables.py`"


def test_the_page_of_models_shows_the_results_that_are_there():
    page = tables.MODELS_PAGE.read_text(encoding="utf-8")
    assert [match["topic"] for match in tables.MARKED.finditer(page)] == list(tables.MODEL_TOPICS)
    assert tables.render(page) == page, "run `python bench/tables.py`"


def test_the_page_of_scale_shows_the_results_that_are_there():
    page = tables.SCALE_PAGE.read_text(encoding="utf-8")
    assert [match["topic"] for match in tables.MARKED.finditer(page)] == list(tables.SCALE_TOPICS)
    assert tables.render(page) == page, "run `python bench/tables.py`"


def test_the_page_of_matching_shows_the_results_that_are_there():
    page = tables.MATCH_PAGE.read_text(encoding="utf-8")
    assert [match["topic"] for match in tables.MARKED.finditer(page)] == list(tables.MATCH_TOPICS)
    assert tables.render(page) == page, "run `python bench/tables.py`"


def test_changes_are_compared_on_the_pairs_that_both_have(tmp_path):
    ways = {
        "lm": {"l2_at": {"0.01": [4.0, 8.0, None]}},
        "smallest_l2 at 0.01": {"l2": [2.0, 2.0, 5.0], "stop": ["reached", "reached", "reached"]},
    }
    (tmp_path / "matching-digits-lm-a.json").write_text(json.dumps({"results": [{"ways": ways}]}))
    assert "| 0.01 | 2.00 (3 of 3) | 0.38, 0.50 (2) |" in tables.matching_tables.smallest_change(tmp_path)
    lengths = {"smallest_l2": [1.0, 2.0], "penalty": [1.5, None]}
    shown = tables.matching_tables.rivals({"results": [{"map": "a map", "pairs": 2, "lengths": lengths}]})
    assert "| a map | penalty | 1 of 2 | 1.5000 | 1.5000 | 1.5000 |" in shown


def test_a_table_shows_medians_extremes_and_failures(tmp_path):
    (tmp_path / "operators-a.json").write_text(json.dumps(document("cpu", [CASE])))
    section = tables.section("operators", tmp_path)
    assert "*A cpu, 2 threads, torch 2.11.0, 2026-01-02*" in section
    assert "| JVP | ours | fp32 | 0.91 (0.90 - 0.95) | 0.91 | 1.25 | 88% | 4e-07 | - |" in section
    assert "| JVP | linearize | fp32 | fails: RuntimeError: no \\| rule |  |  |  |  |  |" in section
    assert section.rstrip().endswith("Not run on a GPU yet.")


def test_a_gpu_that_was_measured_stands_after_the_cpus(tmp_path):
    (tmp_path / "operators-a.json").write_text(json.dumps(document("cuda", [CASE])))
    (tmp_path / "operators-b.json").write_text(json.dumps(document("cpu", [CASE])))
    section = tables.section("operators", tmp_path)
    assert "Not run on a GPU" not in section
    assert section.index("A cpu") < section.index("A cuda")


@pytest.mark.parametrize("topic", tables.TOPICS)
def test_a_topic_without_results_says_so(topic, tmp_path):
    assert "Not measured yet" in tables.section(topic, tmp_path)


def test_the_page_explains_every_way_that_is_compared():
    source = (ROOT / "bench" / "ways.py").read_text(encoding="utf-8")
    named = {line.split('"')[1] for line in source.splitlines() if line.startswith('    Way("')}
    assert len(named) > 8
    assert not [name for name in named if f"`{name}`" not in tables.PAGE.read_text(encoding="utf-8")]


def test_singular_values_stand_beside_what_they_cost(tmp_path):
    way = {
        "way": "ours, randomized",
        "seconds": [40.0, 42.0, 41.0],
        "forwards": [120.0, 121.0, 122.0],
        "over_exact": {"median": 0.1667},
        "products": 130,
        "products_by_precision": {"fp32": 128, "bf16": 2},
        "relative_error": 4.3e-6,
        "peak_bytes": 3 * 2**20,
    }
    failed = {"way": "skerch", "error": "skerch is not installed", "seconds": [], "forwards": []}
    case = {"model": "vit_b16", "n": 768, "m": 150528, "rank": 16, "ways": [way, failed]}
    (tmp_path / "svd-a.json").write_text(json.dumps(document("cpu", [case]) | {"tol": 1e-3}))
    section = tables.section("svd", tmp_path)
    assert "**vit_b16, n = 768, leading 16 to 0.001**" in section
    assert "| ours, randomized | 41 | 121 | 0.167 | - | 128 fp32, 2 bf16 | 4e-06 | 3 |" in section
    assert "| skerch | fails: skerch is not installed |" in section


def test_orthonormal_rows_stand_beside_qr(tmp_path):
    row = {
        "k": 64,
        "m": 150528,
        "block": "1e3",
        "precision": "fp32",
        "seconds": {"ours": 0.0312, "qr": 0.12},
        "qr_over_ours": {"median": 3.9, "min": 3.5, "max": 4.1},
        "rank": 64,
        "orthogonality": 1.2e-7,
        "reconstruction": 2e-8,
    }
    (tmp_path / "orthonormalise-a.json").write_text(json.dumps(document("cpu", [row])))
    section = tables.section("orthonormalise", tmp_path)
    assert "| 64 x 150,528 | 1e3 | fp32 | 31.2 | 3.90 (3.50 - 4.10) | 64 | 1e-07 | 2e-08 |" in section


def test_families_of_models_name_what_has_no_kernel(tmp_path):
    ratio = {"median": 1.013, "min": 0.99, "max": 1.2}
    row = {
        "family": "timm ResNet",
        "model": "timm:resnet18?weights=random&seed=0",
        "n": 512,
        "parameters": 11_176_512,
        "coverage": {"convolution": {"convolution": 20}, "relu": {"torch": 17}, "layer_norm": {"cpu-avx2": 3}},
        "over_forward": {"jvp": ratio, "vjp": {**ratio, "median": 1.5}},
        "ldlc": {"exit_code": 0, "failed_checks": ["null values over their noise floor"], "random_over_null": 1.05e15},
    }
    stopped = {**row, "family": "hf Swin", "model": "hf:{folder}", "ldlc": {"exit_code": 2, "error": "no | way\nmore"}}
    broken = {"family": "imagebind", "model": "imagebind:tiny", "error": "ModelError: not\nhere"}
    (tmp_path / "model_families-a.json").write_text(json.dumps(document("cpu", [row, stopped, broken])))
    section = tables.section("model_families", tmp_path)
    assert (
        "| timm ResNet | `timm:resnet18?weights=random&seed=0` | 512 | 11.2 M | layer_norm | relu | "
        "1.01 (0.99 - 1.20) | 1.50 (0.99 - 1.20) | "
        "random / null 1e+15; check failed: null values over their noise floor |"
    ) in section
    assert "| hf Swin | `hf:FOLDER` |" in section
    assert "fails: no \\| way |" in section
    assert "| imagebind | `imagebind:tiny` | fails: ModelError: not |" in section
