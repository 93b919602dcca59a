"""Differentiable operations whose derivative rules take K tangents at once, and what they record about themselves.

Each operation of a model (LayerNorm, ...) is a `torch.autograd.Function` whose `jvp` and `backward` call custom
operators with the primal's saved values unbatched and K tangents batched, so that `torch.func.vmap` over `jvp` or
`vjp` computes the primal once and reaches one fused kernel.

Rooms of this package:

- `extension`: finds, checks and loads the compiled extension, and says in words when there is none.
- `registration`: defines an operator (schema, plain PyTorch reference, shape rule, batching rule, autograd guard).
- `record`: collects which implementation each dispatch took.
- `layer_norm`, ...: one module for each operation.

Importing this package loads nothing; importing one of its operations imports torch and loads the extension.
"""
