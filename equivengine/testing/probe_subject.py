"""A probe under test, with an encoder and samples to measure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from equivengine.contracts.encoder import Encoder
from equivengine.contracts.model import LoadedModel, Preprocessing
from equivengine.contracts.probe import ARITIES, Params, Probe, ProbeTask
from equivengine.contracts.result import ProbeResult
from equivengine.testing import switches
from equivengine.testing.verdict import Breach, NotTried

#: Samples of a unit, by arity.
COUNTS = {"one": 1, "pair": 2, "set": 6}

#: References, at most: a set may always hold fewer than a probe asks for.
REFERENCES = 8

#: Side of the images of the reference encoder, and numbers in its embedding.
SIDE, EMBEDDING = 12, 10


def reference_encoder(seed: int = 0) -> Encoder:
    """A small smooth network on gray images of 12 x 12 pixels: what a probe is tried on where no model is given.

    Its embedding has 10 numbers, two classes can be told apart, and everything about it fits into a second.
    """
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 24), nn.Tanh(), nn.Linear(24, EMBEDDING))
    head = torch.randn(2, EMBEDDING, generator=generator)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter.shape[-1] if parameter.dim() == 2 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2 / fan**0.5)
    loaded = LoadedModel(
        module=module.eval(),
        preprocessing=Preprocessing(size=(SIDE, SIDE), mode="L", mean=(0.5,), std=(0.5,)),
        random_weights=True,
        activation="tanh",
        class_names=("dark", "bright"),
        classify=lambda embeddings: embeddings @ head.to(embeddings).T,
    )
    return Encoder(loaded, "reference")


class ProbeSubject:
    """One probe class, and what it is tried on.

    Args:
        probe: The class.
        encoder: The encoder to measure; `reference_encoder` when None.
        samples: Inputs, each [*input_shape], at least as many as the arity needs (1, 2, or 2 for a set); smooth random
            images when None.
        params: Parameters; the defaults when None.
        module: Import path of the plugin's module; that of the class when None.
        seconds_per_unit: Longest time that a unit may take.
    """

    kind = "probes"

    def __init__(
        self,
        probe: type[Probe[Any]],
        *,
        encoder: Encoder | None = None,
        samples: Sequence[torch.Tensor] | None = None,
        params: Params | None = None,
        module: str | None = None,
        seconds_per_unit: float = 60.0,
    ) -> None:
        self.cls = probe
        self.module = module or probe.__module__
        self.seconds_per_unit = seconds_per_unit
        self._encoder, self._samples, self._params = encoder, samples, params
        self.left: dict[str, Any] = {}

    @cached_property
    def encoder(self) -> Encoder:
        """What is measured."""
        return self._encoder or reference_encoder()

    @cached_property
    def default_params(self) -> Params | Exception:
        """The parameters, or why the defaults are none."""
        try:
            return self._params or self.cls.Params()
        except Exception as error:
            return error

    @property
    def params(self) -> Params:
        """The parameters. Raises `NotTried` if there are no defaults."""
        if isinstance(self.default_params, Exception):
            raise NotTried("its parameters have no defaults")
        return self.default_params

    def inputs(self) -> list[torch.Tensor]:
        """Samples of one unit, each of them a tensor of its own."""
        arity = self.cls.arity_of(self.params)
        if arity not in ARITIES:
            raise NotTried("its arity is unknown")
        if self._samples is not None:
            chosen = self._samples if arity == "set" else self._samples[: COUNTS[arity]]
            if len(chosen) < min(COUNTS[arity], 2):
                raise NotTried(f"it takes {COUNTS[arity]} samples, and {len(chosen)} were given")
            return [x.clone() for x in chosen]
        return [self._smooth(seed) for seed in range(COUNTS[arity])]

    def task(self, *, precision: str = "fp32", seed: int = 0) -> ProbeTask[Any]:
        """A unit of its own: nothing in it is shared with other tasks but the encoder."""
        samples = self.inputs()
        wanted = min(REFERENCES, max(0, self.cls.references_of(self.params)))
        references = [self._smooth(100 + number) for number in range(wanted)]
        labelled = bool(self.cls.labelled)
        return ProbeTask(
            encoder=self.encoder,
            samples=samples,
            params=self.params,
            seed=seed,
            precision=precision,  # type: ignore[arg-type]
            sample_ids=[f"sample-{number}" for number in range(len(samples))],
            sample_digests=[_digest(x) for x in samples],
            labels=[_label(x) if labelled else None for x in samples],
            references=torch.stack(references) if references else None,  # type: ignore[arg-type]
            reference_labels=[_label(x) if labelled else None for x in references],
            reference_digests=[_digest(x) for x in references],
        )

    def run(self, task: ProbeTask[Any], *, noise: int = 0) -> object:
        """What the probe returns for a task, with the global random generators in a state of one's choice.

        Whatever it leaves switched is noted in `left` and switched back, so that one fault does not look like others.
        """
        before = switches.read()
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        torch.manual_seed(noise)
        np.random.seed(noise)
        random.seed(noise)
        try:
            if self.cls.batch_of(self.params) > 1:
                returned = self.cls().run_batch([task])
                if not isinstance(returned, list | tuple) or len(returned) != 1:
                    raise Breach(
                        "run_batch does not return one result for each task",
                        expected="a list of 1 for one task",
                        got=f"{type(returned).__name__}",
                    )
                return returned[0]
            return self.cls().run(task)
        finally:
            self.left |= switches.put_back(before)
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])

    @cached_property
    def outcome(self) -> object:
        """What the probe returned for the first task, or the exception that it raised; tried once."""
        try:
            return self.run(self.task())
        except (KeyboardInterrupt, NotTried):
            raise
        except BaseException as error:  # a probe may call sys.exit
            return error

    @property
    def result(self) -> ProbeResult:
        """The first result. Raises `NotTried` if there is none."""
        if not isinstance(self.outcome, ProbeResult):
            raise NotTried("it returned no result")
        return self.outcome

    def _smooth(self, seed: int) -> torch.Tensor:
        """An input [*input_shape] between the ends of the range; smooth where inputs are images."""
        shape = self.encoder.input_shape
        low, high = self.encoder.spec.input_range
        generator = torch.Generator().manual_seed(1000 + seed)
        x = torch.rand(shape, generator=generator)
        if len(shape) == 3 and min(shape[1:]) >= 4:
            coarse = torch.rand((1, shape[0], 4, 4), generator=generator)
            smooth = nn.functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=True)[0]
            x = 0.9 * smooth + 0.1 * x
        return (low + (high - low) * x).to(self.encoder.device)


def _digest(x: torch.Tensor) -> str:
    return hashlib.sha256(x.detach().cpu().numpy().tobytes()).hexdigest()


def _label(x: torch.Tensor) -> str:
    """A class that is a matter of the first bits of the content."""
    return ("dark", "bright")[int(_digest(x)[0], 16) % 2]
