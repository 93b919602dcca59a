"""A linear program: the derivative of a model at one input, as a list of instructions run forward or backward."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from equivengine.linearize.arithmetic import Arithmetic
from equivengine.linearize.nodes import Node, Patch, Shape
from equivengine.linearize.passes import bytes_per_direction, simplify
from equivengine.linearize.randomness import is_random
from equivengine.linearize.rules import RULES
from equivengine.linearize.tracer import Mutation, NotLinearizable, Tracer, watching


def linearize(f: Callable[[Tensor], Tensor], x: Tensor) -> Program:
    """Run f once at x and return its derivative there as a program.

    The program holds what the derivative needs of the primal, about as much as a backward pass keeps.

    Args:
        f: Any function of one tensor that PyTorch can differentiate.
        x: The input, [*input_shape].

    Returns:
        The program, which maps tangents [K, *input_shape] to [K, *output_shape] and cotangents back.

    Raises:
        NotLinearizable: f does not return a tensor, or computes where PyTorch's operations cannot be seen.
        RuntimeError: f is random: it has no derivative.
    """
    try:
        program, random = _trace(f, x)
    except Mutation:
        # In-place changes are rewritten into new tensors first. Without need this only costs time.
        program, random = _trace(torch.func.functionalize(lambda z: f(z.clone())), x)
    if random and is_random(f, x, program.value):
        raise RuntimeError("the model is random: it gives another result each time (is it in training mode?)")
    return program


def _trace(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Program, bool]:
    """The program, and whether f drew random numbers."""
    tracer = Tracer(RULES)
    start = x.detach().clone()
    tracer.bind(start, tracer.new(tuple(x.shape)))
    try:
        with watching(tracer):
            value = f(start)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, TypeError) as error:
        # Either f fails by itself, which it will do again elsewhere, or it cannot be watched.
        raise NotLinearizable(f"{type(error).__name__}: {error}") from error
    if not isinstance(value, Tensor):
        raise NotLinearizable(f"f returns {type(value).__name__}, not a tensor")
    output = tracer.variable(value)
    return Program(tracer.nodes, tracer.shapes, output, value.detach()), tracer.random


class Program:
    """The map from tangents at the input to tangents at the output, and its transpose.

    Attributes:
        value: f(x).
        nodes: The instructions in the order of the forward pass; variable 0 is the input.
    """

    def __init__(self, nodes: list[Node], shapes: list[Shape], output: int | None, value: Tensor) -> None:
        self.value = value
        self._shapes = shapes
        self.nodes: list[Node] = []
        if output is not None:
            self.nodes, output = simplify(nodes, shapes, output)
        self._output = output
        self._bound: dict[str, list[Node]] = {}
        self._last = _last_uses(self.nodes, output)

    def push(self, tangents: Tensor, arithmetic: Arithmetic) -> Tensor:
        """J v for tangents [K, *input_shape]: [K, *output_shape], in the dtype of the value."""
        if self._output is None or not len(tangents):
            return self.value.new_zeros(len(tangents), *self.value.shape)
        with torch.no_grad(), arithmetic.active():
            out = self._push(tangents.to(arithmetic.dtype), self._for(arithmetic))
        out = out.to(self.value.dtype)
        return out.clone() if _storage(out) == _storage(tangents) else out.contiguous()

    def pull(self, cotangents: Tensor, arithmetic: Arithmetic) -> Tensor:
        """J^T u for cotangents [K, *output_shape]: [K, *input_shape], in the dtype of the value."""
        shape = (len(cotangents), *self._shapes[0])
        with torch.no_grad(), arithmetic.active():
            out = None
            if self._output is not None and len(cotangents):
                out = self._pull(cotangents.to(arithmetic.dtype), self._for(arithmetic))
        if out is None:
            return cotangents.new_zeros(shape)
        out = out.to(self.value.dtype)
        return out.clone() if _storage(out) == _storage(cotangents) else out.contiguous()

    def coverage(self, arithmetic: Arithmetic) -> dict[str, dict[str, int]]:
        """For each operation that x passes through: how often its derivative is evaluated by which rule."""
        found: dict[str, Counter[str]] = {}
        for node in self._for(arithmetic):
            found.setdefault(node.source, Counter())[node.coverage()] += 1
        return {name: dict(rules) for name, rules in sorted(found.items())}

    def bytes_per_direction(self, arithmetic: Arithmetic) -> int:
        """Memory that one direction needs on its way through, in either mode."""
        if self._output is None:
            return 0
        return bytes_per_direction(self.nodes, self._shapes, 0, self._output, arithmetic.dtype.itemsize)

    def _for(self, arithmetic: Arithmetic) -> list[Node]:
        if arithmetic.name not in self._bound:
            bound = [copy.copy(node) for node in self.nodes]
            for node in bound:
                node.bind(arithmetic)
            self._bound[arithmetic.name] = bound
        return self._bound[arithmetic.name]

    def _push(self, tangents: Tensor, nodes: list[Node]) -> Tensor:
        values = _Values(tangents)
        values.put(0, tangents)
        for index, node in enumerate(nodes):
            arguments, mine = [], []
            for variable in node.inputs:
                dies = self._last[variable] == index and node.inputs.count(variable) == 1
                tensor, owned = values.take(variable, dies)
                arguments.append(tensor)
                mine.append(owned)
            mine = _alone(arguments, mine)
            for variable in node.inputs:
                if self._last[variable] == index:
                    values.drop(variable)
            for variable, tensor in zip(node.outputs, node.push(arguments, mine), strict=True):
                if variable in self._last:
                    values.put(variable, tensor)
        assert self._output is not None
        return values.take(self._output, True)[0]

    def _pull(self, cotangents: Tensor, nodes: list[Node]) -> Tensor | None:
        sums = _Sums(cotangents, self._shapes)
        assert self._output is not None
        sums.add(self._output, cotangents)
        for node in reversed(nodes):
            if not any(sums.holds(variable) for variable in node.outputs):
                continue
            onto = None
            if node.adds_onto:  # before the node's own cotangents are let go: they may share the memory
                onto = sums.onto(node.inputs[0], need_owned=node.adds_onto == "owned")
            given = [sums.take(variable) for variable in node.outputs]
            found = node.pull([g for g, _ in given], [owned for _, owned in given], onto)
            del given, onto
            for variable, contribution in zip(node.inputs, found, strict=True):
                if contribution is not None:
                    sums.add(variable, contribution)
        return sums.take(0)[0]


def _last_uses(nodes: list[Node], output: int | None) -> dict[int, int]:
    last = {variable: index for index, node in enumerate(nodes) for variable in node.inputs}
    if output is not None:
        last[output] = len(nodes)
    last.setdefault(0, -1)
    return last


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _alone(tensors: list[Tensor], owned: list[bool]) -> list[bool]:
    """Which of these tensors are owned and share no memory with another one among them."""
    storages = [_storage(t) for t in tensors]
    return [each and storages.count(storage) == 1 for each, storage in zip(owned, storages, strict=True)]


def _writable(tensor: Tensor) -> bool:
    return all(stride != 0 or size == 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


class _Owners:
    """Counts how many live tensors share each buffer; the caller's own buffer is never free."""

    def __init__(self, callers: Tensor) -> None:
        self._counts: Counter[int] = Counter({_storage(callers): 1})

    def acquire(self, tensor: Tensor) -> None:
        self._counts[_storage(tensor)] += 1

    def release(self, tensor: Tensor) -> bool:
        """Whether nobody else holds the buffer now."""
        key = _storage(tensor)
        self._counts[key] -= 1
        if self._counts[key] == 0:
            del self._counts[key]
            return True
        return False


class _Values:
    """Tangents by variable, on the way forward."""

    def __init__(self, callers: Tensor) -> None:
        self._owners = _Owners(callers)
        self._tensors: dict[int, Tensor] = {}

    def put(self, variable: int, tensor: Tensor) -> None:
        self._owners.acquire(tensor)
        self._tensors[variable] = tensor

    def take(self, variable: int, dies: bool) -> tuple[Tensor, bool]:
        """The tensor, and whether it may be overwritten."""
        tensor = self._tensors[variable]
        if not dies:
            return tensor, False
        owned = self._owners.release(tensor)
        del self._tensors[variable]
        return tensor, owned and _writable(tensor)

    def drop(self, variable: int) -> None:
        tensor = self._tensors.pop(variable, None)
        if tensor is not None:
            self._owners.release(tensor)


class _Sums:
    """Cotangents by variable, on the way back: a list of contributions until somebody reads their sum."""

    def __init__(self, callers: Tensor, shapes: list[Shape]) -> None:
        self._owners = _Owners(callers)
        self._shapes = shapes
        self._terms: dict[int, list[Tensor | Patch]] = {}

    def add(self, variable: int, term: Tensor | Patch) -> None:
        self._owners.acquire(term.values if isinstance(term, Patch) else term)
        self._terms.setdefault(variable, []).append(term)

    def holds(self, variable: int) -> bool:
        """Whether there is any contribution."""
        return variable in self._terms

    def take(self, variable: int) -> tuple[Tensor | None, bool]:
        """The sum of all contributions, and whether it may be overwritten; None where there is none."""
        terms = self._terms.pop(variable, None)
        if terms is None:
            return None, False
        owned = [
            self._owners.release(term.values if isinstance(term, Patch) else term)
            and not isinstance(term, Patch)
            and _writable(term)
            for term in terms
        ]
        if len(terms) == 1 and isinstance(terms[0], Tensor):
            return terms[0], owned[0]
        owned = _alone([term.values if isinstance(term, Patch) else term for term in terms], owned)
        return self._sum(variable, terms, owned), True

    def onto(self, variable: int, need_owned: bool) -> Tensor | None:
        """A contribution that a node may add its own to (and, where owned, overwrite); it is taken out."""
        terms = self._terms.get(variable)
        if not terms or len(terms) != 1:
            return None
        (term,) = terms
        if isinstance(term, Patch):
            return None
        if need_owned and not term.is_contiguous():
            return None
        owned = self._owners.release(term) and _writable(term)
        if need_owned and not owned:
            self._owners.acquire(term)
            return None
        del self._terms[variable]
        return term

    def _sum(self, variable: int, terms: list[Tensor | Patch], owned: list[bool]) -> Tensor:
        at = next((i for i, each in enumerate(owned) if each), None)
        if at is not None:
            total = terms.pop(at)
            assert isinstance(total, Tensor)
        else:
            at = next((i for i, term in enumerate(terms) if isinstance(term, Tensor)), None)
            some = terms[0].values if isinstance(terms[0], Patch) else terms[0]
            if at is None:
                total = some.new_zeros(len(some), *self._shapes[variable])
            else:  # by position: the same tensor may be there twice
                whole = terms.pop(at)
                assert isinstance(whole, Tensor)
                total = whole.clone(memory_format=torch.contiguous_format)
        for term in terms:
            if isinstance(term, Patch):
                term.view_of(total).add_(term.values)
            else:
                total.add_(term)
        return total
