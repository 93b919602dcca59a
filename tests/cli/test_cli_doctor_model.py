"""``equivengine doctor --model``: which operations of a model run fused."""

from __future__ import annotations

import pytest


def test_the_table_names_operations_rules_and_memory(cli):
    said = cli("doctor", "--short", "--model", "digits", "--device", "cpu")
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert "matrix product" in lines["linear"]
    assert any(path in lines["scaled_dot_product_attention"] for path in ("cpu-", "reference"))
    assert "MiB for each direction" in said.out


def test_the_json_document_holds_the_same(cli):
    model = cli("doctor", "--json", "--model", "toy", "--device", "cpu").document["model"]
    assert model["uri"] == "toy"
    assert model["embedding"] > 0
    assert model["inputs"] > 0
    assert model["coverage"]
    assert 0 <= model["adjoint_error"] < 1e-5
    assert model["bytes_per_direction"] > 0


@pytest.mark.parametrize("uri", ["nothing-like-that", "timm:no_such_model?weights=random"])
def test_a_model_that_cannot_be_loaded_is_one_error(cli, uri):
    said = cli("doctor", "--model", uri, code=2)
    assert said.err.count("error:") == 1
