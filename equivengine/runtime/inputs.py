"""From the samples and references that a unit names to inputs on the encoder's device."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from equivengine.contracts.dataset import Sample
from equivengine.contracts.encoder import Encoder
from equivengine.contracts.unit import SampleRef, Unit, canonical_json
from equivengine.errors import DataError, EngineError, NumericsError
from equivengine.runtime.loading import Workbench, blamed

#: References that go through the encoder at once when their embeddings are checked.
CHUNK = 16
#: Samples of a unit, at most, whose details are stored with it.
DETAILED = 2
#: Length of the details of a sample as JSON, at most: they are stored with every unit.
MAX_DETAILS_BYTES = 1 << 16


class Inputs:
    """Loads and preprocesses what units name. The references of the last unit stay, since the next one's are the same.

    Args:
        bench: Where encoders and image sets are kept.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._population: tuple[tuple[str, tuple[SampleRef, ...]], torch.Tensor | EngineError] | None = None

    def samples(self, unit: Unit) -> tuple[list[torch.Tensor], list[dict[str, object]]]:
        """Inputs, each float32 [*input_shape]; and what image sets know of them, to be stored.

        Details are those of up to `DETAILED` samples: a unit of a whole set has none, and no list of licenses.

        Raises:
            DataError: If a sample cannot be read or has other content than planned, or its details cannot be stored.
            NumericsError: If its embedding is not finite.
        """
        encoder = self.bench.encoder(unit.model)
        loaded = [self._input(encoder, unit.model, ref) for ref in unit.samples]
        for (x, _), ref in zip(loaded, unit.samples, strict=True):
            _check_embeddings(encoder, x[None], [ref])
        detailed = loaded if len(loaded) <= DETAILED else []
        details = [_storable(sample, ref) for (_, sample), ref in zip(detailed, unit.samples, strict=False)]
        return [x for x, _ in loaded], details

    def references(self, unit: Unit) -> torch.Tensor:
        """Inputs float32 [R, *input_shape]; [0, ...] if the unit has no references. Not to be written to.

        Raises:
            DataError, NumericsError: As for `samples`; raised again, without another try, while the unit's model and
                references are those of the last call.
        """
        encoder = self.bench.encoder(unit.model)
        if not unit.references:
            return torch.empty((0, *encoder.input_shape), device=encoder.device)
        key = (unit.model, unit.references)
        if self._population is None or self._population[0] != key:
            self._population = None  # before the next ones need the memory
            try:
                found: torch.Tensor | EngineError = self._load(encoder, unit.model, unit.references)
            except EngineError as error:
                found = error.with_traceback(None)
            self._population = (key, found)
        inputs = self._population[1]
        if isinstance(inputs, EngineError):
            raise inputs
        return inputs

    def _load(self, encoder: Encoder, model: str, references: Sequence[SampleRef]) -> torch.Tensor:
        inputs = torch.stack([self._input(encoder, model, ref)[0] for ref in references])
        for start in range(0, len(references), CHUNK):
            chunk = slice(start, start + CHUNK)
            _check_embeddings(encoder, inputs[chunk], references[chunk])
        return inputs

    def _input(self, encoder: Encoder, model: str, ref: SampleRef) -> tuple[torch.Tensor, Sample]:
        """One input, and the sample it was made from; whatever is raised on the way names the plugin that raised it."""
        sample = self.bench.sample(ref)
        with blamed(self.bench.dataset_owner(ref.images), DataError, f"{ref.id!r} of {ref.images!r} cannot be loaded"):
            raw = sample.load()
        with blamed(self.bench.backend_owner(model), DataError, f"{model!r} cannot preprocess {ref.id!r}"):
            return encoder.preprocess(raw), sample


def _storable(sample: Sample, ref: SampleRef) -> dict[str, object]:
    """The details of a sample, JSON types only."""
    try:
        text = canonical_json(dict(sample.details))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the details of {ref.id!r} of {ref.images!r} cannot be stored", expected="JSON types, no NaN", got=error
        ) from None
    if len(text) > MAX_DETAILS_BYTES:
        raise DataError(
            f"the details of {ref.id!r} of {ref.images!r} are too long to be stored with every unit",
            expected=f"at most {MAX_DETAILS_BYTES:,} bytes of JSON",
            got=f"{len(text):,}",
        )
    details: dict[str, object] = json.loads(text)
    return details


def _check_embeddings(encoder: Encoder, inputs: torch.Tensor, refs: Sequence[SampleRef]) -> None:
    """One forward pass of inputs [B, *input_shape]: a probe must not have to guess why its numbers are NaN."""
    with torch.no_grad():
        finite = torch.isfinite(encoder(inputs))
    for ref, embedding in zip(refs, finite, strict=True):
        if not bool(embedding.all()):
            raise NumericsError(
                f"{encoder.spec.uri!r} returns NaN or infinity for {ref.id!r}",
                expected="a finite embedding",
                got=f"{int((~embedding).sum())} of {embedding.numel()} values are not finite",
                hint="look at the image, or leave it out of the set",
            )
