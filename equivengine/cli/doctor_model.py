"""``equivengine doctor --model URI``: how the derivative of one model is evaluated, operation by operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equivengine.runtime.registry import Registry

#: Rules under which all directions share one primal; "torch" is PyTorch's own rule for one operation.
_MEANING = {
    "matrix product": "one product of matrices for all directions",
    "convolution": "one convolution for all directions",
    "folded": "PyTorch's operation, all directions as one batch",
    "shared": "a factor of the primal, computed once",
    "copy": "values move, nothing is computed",
    "torch": "PyTorch's own rule, vectorized",
    "reference": "plain PyTorch formula: no compiled kernel for this device or dtype",
}


def model_facts(uri: str, device: str, registry: Registry) -> dict[str, Any]:
    """Load a model, take its derivative at a random image, and say what it consists of.

    Raises:
        EngineError: The model cannot be loaded or differentiated.
    """
    import torch

    from equivengine.jacobian import JacobianOperator
    from equivengine.runtime.loading import load_encoder

    encoder = load_encoder(uri, device=device, registry=registry)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(encoder.input_shape, generator=generator).to(encoder.device)
    operator = JacobianOperator(encoder, x)
    coverage = operator.coverage()
    v = torch.randn(x.shape, generator=generator).to(x.device)
    u = torch.randn(operator.value.shape, generator=generator).to(x.device)
    forward, reverse = operator.jvp(v[None])[0], operator.vjp(u[None])[0]
    gap = abs(float(forward.double() @ u.double()) - float(reverse.double().flatten() @ v.double().flatten()))
    size = float(torch.linalg.vector_norm(forward.double()) * torch.linalg.vector_norm(u.double()))
    return {
        "uri": uri,
        "embedding": operator.shape[0],
        "inputs": operator.shape[1],
        "coverage": coverage,
        "bytes_per_direction": operator.bytes_per_direction(),
        "directions_per_pass": operator.chunk(1 << 20),
        "adjoint_error": gap / size if size else 0.0,
    }


def print_model(facts: dict[str, Any]) -> None:
    """A table of operations, largest group of questions first: what is not fused."""
    from equivengine.cli.output import console, literal, print_table

    out = console()
    out.print(literal(f"{facts['uri']}: {facts['inputs']:,} inputs, embedding of {facts['embedding']:,}"))
    rows = [
        (rule, name, count)
        for name, rules in facts["coverage"].items()
        for rule, count in rules.items()
        if rule != "view"
    ]
    print_table(
        ["operation", "times", "derivative", ""],
        [[name, str(count), rule, _MEANING.get(rule, "")] for rule, name, count in sorted(rows)],
    )
    out.print(
        literal(
            f"{facts['bytes_per_direction'] / 2**20:.1f} MiB for each direction, {facts['directions_per_pass']:,} "
            f"directions in a pass; <J v, u> and <v, J^T u> differ by {facts['adjoint_error']:.1e} of |J v| |u|"
        )
    )
