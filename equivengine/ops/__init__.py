"""Differentiable operations whose derivative rules take K tangents at once, and what they record about themselves.

Each operation of a model (LayerNorm, attention, ...) has derivative rules that are custom operators: K tangents or
cotangents batched, the primal's saved values not. `equivengine.linearize` calls the rules itself; under `torch.func`
transforms an operation finds its way to the same rules (`function.Operation`).

Rooms of this package:

- `extension`: finds, checks and loads the compiled extension, and says in words when there is none.
- `registration`: defines an operator (schema, plain PyTorch reference, shape rule, batching rule, autograd guard).
- `function`: differentiable operations under any transform, without PyTorch's cost per call.
- `substitute`: swaps them in while somebody else's model runs under `torch.func`.
- `record`: collects which implementation each dispatch took.
- `precision`, `memory`: float32 modes of the backends; what is free, and how large a model's tensors are.
- `attention`, `layer_norm`, ...: one module for each operation.

Importing this package loads nothing; importing one of its operations imports torch and loads the extension.
"""
