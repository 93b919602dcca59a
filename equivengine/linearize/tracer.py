"""Runs a model once at x and writes down, operation by operation, the linear map that its derivative is.

Operations are seen below autograd as `torch.ops.aten` has them, attention and linear layers still whole. Operations on
tensors that do not depend on x leave no trace, nor do those that autograd would not see (`torch.no_grad`). One without
a rule of its own is decomposed, or keeps PyTorch's derivative (`by_torch.ByTorch`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree  # PyTorch has no public one, and its own modules use it
from torch.utils._python_dispatch import TorchDispatchMode

from equivengine.linearize.by_torch import ByTorch
from equivengine.linearize.nodes import Node
from equivengine.ops.eager import uncompiled
from equivengine.ops.substitute import multi_head_attention


class NotLinearizable(Exception):
    """The forward pass cannot be written down as a sequence of operations; the message says why."""


class Mutation(NotLinearizable):
    """An operation changed a tensor that depends on x, or one that the derivative needs, in place."""


@dataclass
class Rules:
    """What is known about operations, by name in `torch.ops.aten`."""

    #: (tracer, func, out, args, kwargs): writes nodes down after the operation ran; NotImplemented if it does not fit.
    after: dict[str, Callable[..., Any]] = field(default_factory=dict)
    #: (tracer, func, args, kwargs) -> out: runs the operation itself; NotImplemented if it does not fit.
    instead: dict[str, Callable[..., Any]] = field(default_factory=dict)


class Tracer(TorchDispatchMode):
    """Collects nodes.

    A rule looks up the variables of the arguments that depend on x, appends nodes, and binds the results.

    Attributes:
        nodes: Instructions in the order of the forward pass.
        shapes: Primal shape of every variable.
        diagonal: For a variable that is a pointwise factor times another one: that one, and the factor.
        blocked: Whether the model has switched autograd off.
        random: Whether an operation drew random numbers.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: this is no code to compile, and to keep Dynamo off it PyTorch would import all of it, for a second."""
        return False

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.shapes: list[tuple[int, ...]] = []
        self.diagonal: dict[int, tuple[int, Tensor]] = {}
        self.blocked = False
        self.random = False
        self._rules = rules
        self._variables: dict[int, int] = {}
        self._alive: list[Tensor] = []  # ids are unique among living objects only
        self._constants: dict[int, Tensor] = {}  # by storage: what nodes may hold
        self._plain = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()

    # -- variables ----------------------------------------------------------------------------------------------------

    def variable(self, tensor: Any) -> int | None:
        """The variable that a tensor holds, or None where it does not depend on x."""
        return self._variables.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def of(self, tensor: Tensor) -> int:
        """The variable of a tensor that depends on x."""
        return self._variables[id(tensor)]

    def new(self, shape: tuple[int, ...]) -> int:
        """A new variable of this primal shape."""
        self.shapes.append(tuple(shape))
        return len(self.shapes) - 1

    def bind(self, tensor: Tensor, variable: int) -> None:
        """Say that a tensor holds a variable."""
        self._alive.append(tensor)
        self._variables[id(tensor)] = variable

    def add(self, node: Node, inputs: list[int], *shapes: tuple[int, ...]) -> list[int]:
        """Append a node with new variables of these shapes for its outputs."""
        node.inputs, node.outputs = inputs, [self.new(shape) for shape in shapes]
        self.nodes.append(node)
        return node.outputs

    def emit(self, node: Node, inputs: list[int], *outputs: Tensor) -> None:
        """Append a node whose outputs these tensors hold."""
        variables = self.add(node, inputs, *(tuple(t.shape) for t in outputs))
        for variable, tensor in zip(variables, outputs, strict=True):
            self.bind(tensor, variable)

    @contextlib.contextmanager
    def autograd(self) -> Iterator[None]:
        """Inside a rule, where PyTorch has autograd off: switch it on, for operations that leave no trace."""
        # Checkpointing hooks into what is saved for backward; it shall not see this.
        unseen = torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
        with torch._C._ForceDispatchKeyGuard(*self._plain), torch.enable_grad(), unseen:
            yield

    # -- the forward pass ---------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        facts = _facts(func)
        tensors = _tensors(args, kwargs)
        tracked = any(id(t) in self._variables for t in tensors)
        if facts.written:
            self._refuse(func, facts, args, kwargs, tracked)
        tracked = tracked and not self.blocked and not torch.is_inference_mode_enabled()
        if not tracked and not facts.random:
            return func(*args, **kwargs)
        # Rules and decompositions call torch functions that no mode of the model's shall see.
        with torch._C.DisableTorchFunction():
            return self._run(func, facts, args, kwargs, tensors if tracked else [])

    def _run(self, func: Any, facts: _Facts, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        count = len(self.nodes)
        out: Any = NotImplemented
        if tensors and facts.name in self._rules.instead:
            out = self._rules.instead[facts.name](self, func, args, kwargs)
        if out is NotImplemented:
            rule = self._rules.after.get(facts.name) if tensors else None
            if rule is not None or not facts.composite:
                out = func(*args, **kwargs)
                self.random |= facts.random
            if tensors and not facts.composite and _complex(out):
                raise NotLinearizable(f"{facts.name} has a complex result")
            if rule is not None and rule(self, func, out, args, kwargs) is not NotImplemented:
                pass
            elif facts.composite:
                del self.nodes[count:]
                try:
                    with self:
                        return func.decompose(*args, **kwargs)
                except Mutation:  # inside the operation: nobody else sees what it changes
                    del self.nodes[count:]
                    out = func(*args, **kwargs)
                    if tensors:
                        self.by_torch(func, out, args, kwargs)
            elif tensors:
                del self.nodes[count:]
                self.by_torch(func, out, args, kwargs)
        if len(self.nodes) > count:
            for node in self.nodes[count:]:
                node.source = node.source or facts.name
            for tensor in tensors:
                if id(tensor) not in self._variables:
                    self._constants[tensor.untyped_storage()._cdata] = tensor
        return out

    def _refuse(self, func: Any, facts: _Facts, args: Any, kwargs: Any, tracked: bool) -> None:
        """Stop where an operation in place would change what the program is about to say."""
        if tracked and not _keeps_values(func, args):
            raise Mutation(f"{func} changes a tensor in place")
        for index, name in facts.written:
            written = args[index] if index < len(args) else kwargs.get(name)
            for tensor in _tensors((written,), {}):
                if tensor.untyped_storage()._cdata in self._constants:
                    raise Mutation(f"{func} changes a constant that the derivative needs")

    def by_torch(self, func: Callable[..., Any], out: Any, args: Any, kwargs: Any) -> None:
        """Append a node with PyTorch's own derivative of one operation."""
        results = pytree.tree_leaves(out)
        real = [i for i, t in enumerate(results) if isinstance(t, Tensor) and t.is_floating_point()]
        if not real:
            return  # comparisons, argmax, sizes: piecewise constant
        leaves, spec = pytree.tree_flatten((args, kwargs))
        where = [i for i, leaf in enumerate(leaves) if self.variable(leaf) is not None]
        kept = [None if i in where else leaf for i, leaf in enumerate(leaves)]

        def call(*primals: Tensor) -> Any:
            filled = list(kept)
            for i, primal in zip(where, primals, strict=True):
                filled[i] = primal
            again, named = pytree.tree_unflatten(filled, spec)
            values = pytree.tree_leaves(func(*again, **named))
            return values[real[0]] if len(real) == 1 else tuple(values[i] for i in real)

        node = ByTorch(call, tuple(leaves[i].detach() for i in where))
        self.emit(node, [self.of(leaves[i]) for i in where], *(results[i] for i in real))


@dataclass(frozen=True)
class _Facts:
    name: str
    written: tuple[tuple[int, str], ...]  # arguments that it changes: position and name
    random: bool
    composite: bool


@functools.cache
def _facts(func: Any) -> _Facts:
    schema = func._schema
    written = [
        (index, argument.name)
        for index, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    random = torch.Tag.nondeterministic_seeded in func.tags
    return _Facts(schema.name.removeprefix("aten::"), tuple(written), random, composite)


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    """Tensors among the arguments of an operation, which are no deeper than one list."""
    found = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [each for each in value if isinstance(each, Tensor)]
    return found


def _complex(out: Any) -> bool:
    return any(t.is_complex() for t in _tensors(out if isinstance(out, list | tuple) else (out,), {}))


def _keeps_values(func: Any, args: Any) -> bool:
    """Pooling layers restride their result in place: dimensions of size 1 only, for the sake of memory formats."""
    if func._schema.name != "aten::as_strided_":
        return False
    x, size, stride, *offset = args
    same = all(n == 1 or a == b for n, a, b in zip(x.shape, x.stride(), stride, strict=True))
    return list(x.shape) == list(size) and same and not offset


class _Functions(TorchFunctionMode):
    """Sees what does not reach the tracer: packed attention layers, and where the model switches autograd off."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return multi_head_attention(self, *args, **kwargs)
        if func is torch._C._set_grad_enabled:  # what torch.no_grad, enable_grad and set_grad_enabled call
            self._tracer.blocked = not args[0]
        return func(*args, **kwargs)


@contextlib.contextmanager
def watching(tracer: Tracer) -> Iterator[None]:
    """Both modes at once.

    Autograd is on as far as the model can tell, but bypassed: parameters that require gradients record no graph, and
    composite operations arrive whole. Attention that no rule takes is decomposed into operations with derivatives.
    """
    below = torch._C._AutoDispatchBelowAutograd
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), uncompiled(), below(), _Functions(tracer), tracer:
        yield
