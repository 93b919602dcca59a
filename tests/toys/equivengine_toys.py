"""A plugin for tests: encoders of 8 x 8 gray images that take no time, and probes that behave, or do not."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

import equivengine as eqv

EQUIVENGINE_API = (1, 0)


class Toy(eqv.Backend):
    """`toy[:BEHAVIOUR][?seed=N][?weights=FILE]`; the text in FILE is another seed."""

    name = "toy"
    summary = "an encoder of 8 x 8 gray images"
    examples = ("toy", "toy?seed=1")

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        import torch
        from torch import nn

        uri.allow_options(("seed", "weights"))
        seed = uri.integer("seed", 0)
        if "weights" in uri.options:
            seed = int(Path(uri.options["weights"]).read_text())
        behaviour = uri.path or "good"
        if behaviour == "raises":
            raise RuntimeError("this backend cannot load anything")
        if behaviour == "exits":
            sys.exit(0)
        if behaviour == "needs":
            import a_package_that_nobody_has  # noqa: F401
        generator = torch.Generator().manual_seed(seed)

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(64, 16)
                self.outer = nn.Linear(16, 5)
                with torch.no_grad():
                    for parameter in self.parameters():
                        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)

            def forward(self, x: torch.Tensor) -> object:
                y = self.outer(torch.tanh(self.inner(x.flatten(1))))
                if behaviour == "nan":
                    return y * float("nan")
                if behaviour == "nan_when_dark":  # noise passes, a black image does not
                    return y / (x.flatten(1).amax(1, keepdim=True) > 0)
                if behaviour == "tuple":
                    return y, y
                if behaviour == "shape":
                    return y[..., None]
                if behaviour == "fickle":
                    return y + torch.rand(y.shape)
                return y

        return eqv.LoadedModel(
            module=Net(),
            preprocessing=eqv.Preprocessing(size=(8, 8), mode="L", mean=(0.0,), std=(1.0,)),
            random_weights=True,
            activation="tanh",
            license="CC0-1.0",
        )


class MeasureParams(eqv.Params):
    scale: float = Field(1.0, gt=0, le=10, description="Factor of everything; ratio.")
    count: int = Field(3, ge=1, description="Random directions; count.")
    label: str = Field("none", description="A word.")
    seconds: float = Field(0.0, ge=0, description="Time to wait; seconds.")
    behaviour: str = Field("good", description="What goes wrong.")


class Measure(eqv.Probe[MeasureParams]):
    """The Jacobian's norm, and its response to a few random directions."""

    name = "measure"
    version = "1"
    summary = "norms of the Jacobian"
    arity = "one"
    Params = MeasureParams

    def run(self, task: eqv.ProbeTask[MeasureParams]) -> eqv.ProbeResult:
        params = task.params
        if params.seconds:
            time.sleep(params.seconds)
        if params.behaviour == "raises":
            raise ValueError("no luck\nat all")
        if params.behaviour == "exits":
            sys.exit("goodbye")
        if params.behaviour == "interrupts":
            raise KeyboardInterrupt
        if params.behaviour == "nothing":
            return None  # type: ignore[return-value]
        if params.behaviour == "fails":
            return eqv.ProbeResult({}, {}, status="failed", message="pass --set behaviour=good")
        if params.behaviour == "objects":
            return eqv.ProbeResult({}, {}, provenance={"what": object()})
        if params.behaviour == "prints":
            print("hello from a probe")
        J = task.jacobian(task.samples[0])
        dense = J.dense().double().numpy() * params.scale
        norm = float("nan") if params.behaviour == "nan" else float(np.linalg.norm(dense))
        directions = eqv.linalg.gaussian_directions(task.stream("random"), 0, params.count, dense.shape[1])
        responses = np.linalg.norm(dense @ directions.double().numpy().T, axis=0)
        bad = params.behaviour == "not_converged"
        return eqv.ProbeResult(
            {"responses": eqv.Array(responses, ("direction",), "1", "|J v|")},
            {
                "norm": eqv.Scalar(norm, "1", "norm of the Jacobian", group="norms"),
                "response": eqv.Scalar(
                    float(np.median(responses)),
                    "1",
                    "median response to a random direction",
                    interval=(float(responses.min()), float(responses.max())),
                    n=params.count,
                    group="responses",
                ),
            },
            {"positive": eqv.Check.at_least(norm, 1e-9, "the norm is positive")},
            status="not_converged" if bad else "ok",
            message="raise count" if bad else "",
        )


class Difference(eqv.Probe[eqv.Params]):
    """The distance between two embeddings."""

    name = "difference"
    version = "1"
    summary = "distance of the embeddings of two images"
    arity = "pair"

    def run(self, task: eqv.ProbeTask[eqv.Params]) -> eqv.ProbeResult:
        first, second = (task.encoder(x[None])[0] for x in task.samples)
        return eqv.ProbeResult({}, {"distance": eqv.Scalar(float((first - second).norm()), "1", "distance")})


class Spread(eqv.Probe[eqv.Params]):
    """The number of images in a set."""

    name = "spread"
    version = "1"
    summary = "size of a set"
    arity = "set"

    def run(self, task: eqv.ProbeTask[eqv.Params]) -> eqv.ProbeResult:
        return eqv.ProbeResult({}, {"size": eqv.Scalar(len(task.samples), "1", "images")})


class TogetherParams(eqv.Params):
    largest: int = Field(4, ge=1, description="Units that share a call; count.")
    references: int = Field(0, ge=0, description="Images of the population; count.")
    behaviour: str = Field("good", description="What goes wrong.")


class Together(eqv.Probe[TogetherParams]):
    """What an image is to the others of its call, and to its references."""

    name = "together"
    version = "1"
    summary = "brightness beside others"
    arity = "one"
    Params = TogetherParams
    calls: ClassVar[list[list[str]]] = []

    @classmethod
    def batch_of(cls, params: TogetherParams) -> int:
        return params.largest

    @classmethod
    def references_of(cls, params: TogetherParams) -> int:
        return params.references

    def run(self, task: eqv.ProbeTask[TogetherParams]) -> eqv.ProbeResult:
        assert task.params.largest == 1
        return self.run_batch([task])[0]

    def run_batch(self, tasks: Sequence[eqv.ProbeTask[TogetherParams]]) -> Sequence[eqv.ProbeResult]:
        self.calls.append([task.sample_ids[0] for task in tasks])
        behaviour = tasks[0].params.behaviour
        if behaviour == "raises":
            raise ValueError("none of us")
        results: list = [self._one(task, tasks) for task in tasks]
        if behaviour == "second_fails":
            results[1] = eqv.ProbeResult({}, {}, status="failed", message="not this one")
        if behaviour == "second_is_nothing":
            results[1] = None
        if behaviour == "short":
            return results[:-1]
        return iter(results) if behaviour == "iterator" else results  # type: ignore[return-value]

    def _one(self, task: eqv.ProbeTask[TogetherParams], tasks: Sequence[eqv.ProbeTask[TogetherParams]]):
        total = sum(float(other.samples[0].double().sum()) for other in tasks)
        words = [
            f"{digest[:8]} {label}" for digest, label in zip(task.reference_digests, task.reference_labels, strict=True)
        ]
        means = task.references.double().flatten(1).mean(1).cpu().numpy()
        return eqv.ProbeResult(
            {
                "reference": eqv.Array(np.array(words, dtype="U32"), ("reference",), "1", "which ones"),
                "mean": eqv.Array(means, ("reference",), "1", "mean brightness"),
                "label": eqv.Array(np.array([str(label) for label in task.labels]), ("sample",), "1", "labels"),
            },
            {
                "share": eqv.Scalar(float(task.samples[0].double().sum()) / total, "1", "share of all brightness"),
                "companions": eqv.Scalar(len(tasks), "1", "units in the call"),
            },
        )


class Named(Together):
    """The same with labels."""

    name = "named"
    summary = "brightness beside others, with labels"
    labelled = True


class Lazy(eqv.Executor):
    """Leaves the last batch undone."""

    name = "lazy"
    summary = "forgets the last batch"

    def map(self, function, batches, *, on_done):
        for batch in list(batches)[:-1]:
            on_done(batch, function(batch))


class Twice(eqv.Executor):
    """Runs every batch twice, as an executor may."""

    name = "twice"
    summary = "runs every batch twice"

    def map(self, function, batches, *, on_done):
        for batch in batches:
            for _ in range(2):
                on_done(batch, function(batch))


class Broken(eqv.Executor):
    """Raises after the first batch."""

    name = "broken"
    summary = "stops after the first batch"

    def map(self, function, batches, *, on_done):
        for batch in batches:
            on_done(batch, function(batch))
            raise OSError("the cluster is on fire")


@eqv.hookimpl
def equivengine_register_backends():
    return [Toy]


@eqv.hookimpl
def equivengine_register_probes():
    return [Measure, Difference, Spread, Together, Named]


@eqv.hookimpl
def equivengine_register_executors():
    return [Lazy, Twice, Broken]
