"""A plugin for tests: encoders of 8 x 8 grey images that take no time, and probes that behave, or do not."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from pydantic import Field

import equivengine as eqv

EQUIVENGINE_API = (1, 0)


class Toy(eqv.Backend):
    """`toy[:BEHAVIOUR][?seed=N][?weights=FILE]`; the text in FILE is another seed."""

    name = "toy"
    summary = "an encoder of 8 x 8 grey images"
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


class Lazy(eqv.Executor):
    """Leaves the last unit undone."""

    name = "lazy"
    summary = "forgets the last unit"

    def map(self, function, units, *, on_done):
        for unit in list(units)[:-1]:
            on_done(unit, function(unit))


class Twice(eqv.Executor):
    """Runs every unit twice, as an executor may."""

    name = "twice"
    summary = "runs every unit twice"

    def map(self, function, units, *, on_done):
        for unit in units:
            for _ in range(2):
                on_done(unit, function(unit))


class Broken(eqv.Executor):
    """Raises after the first unit."""

    name = "broken"
    summary = "stops after the first unit"

    def map(self, function, units, *, on_done):
        for unit in units:
            on_done(unit, function(unit))
            raise OSError("the cluster is on fire")


@eqv.hookimpl
def equivengine_register_backends():
    return [Toy]


@eqv.hookimpl
def equivengine_register_probes():
    return [Measure, Difference, Spread]


@eqv.hookimpl
def equivengine_register_executors():
    return [Lazy, Twice, Broken]
