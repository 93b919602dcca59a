from __future__ import annotations

import pytest

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask


@pytest.fixture(scope="session")
def digits():
    return eqv.load_encoder("digits", device="cpu")


@pytest.fixture(scope="session")
def images():
    return eqv.load_images("digits")


@pytest.fixture
def task(digits, images):
    """Builds a task on held-out digits: task(params, original, target)."""

    def build(params, *indices, encoder=None, seed=0, precision="fp32"):
        encoder = encoder or digits
        chosen = [images[i] for i in indices]
        return ProbeTask(
            encoder=encoder,
            samples=[encoder.preprocess(s.load()) for s in chosen],
            params=params,
            seed=seed,
            precision=precision,
            sample_ids=[s.id for s in chosen],
            sample_digests=[s.digest for s in chosen],
        )

    return build
