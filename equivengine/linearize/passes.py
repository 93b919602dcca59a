"""Rewrites of a traced program: the same linear map with less work.

Every pass is exact. Rows that the output does not depend on are not computed because the slice that drops them is moved
before the operations that treat rows alike: what is skipped follows from the program, not from values.
"""

from __future__ import annotations

import math
from collections import Counter

from equivengine.linearize.layers import Attention, Linear, LinearAdd, MatMul, Softmax
from equivengine.linearize.nodes import Node, Permute, Pieces, Reshape, Shape, resized
from equivengine.linearize.pointwise import Add, Scale


def simplify(nodes: list[Node], shapes: list[Shape], output: int) -> tuple[list[Node], int]:
    """Run all passes; ``shapes`` grows by the variables that they make."""
    nodes = without_dead(nodes, output)
    nodes, output = without_idle_views(nodes, shapes, output)
    nodes = attention_found(nodes, shapes, output)
    nodes, output = slices_first(nodes, shapes, output)
    nodes, output = without_idle_views(nodes, shapes, output)
    nodes = skips_fused(nodes, output)
    return without_dead(nodes, output), output


def without_dead(nodes: list[Node], output: int) -> list[Node]:
    """Drop instructions that the output does not depend on."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def without_idle_views(nodes: list[Node], shapes: list[Shape], output: int) -> tuple[list[Node], int]:
    """Compose consecutive views of a kind; drop those that change nothing."""
    renamed: dict[int, int] = {}
    made: dict[int, Node] = {}
    kept: list[Node] = []
    for node in nodes:
        node.inputs = [renamed.get(v, v) for v in node.inputs]
        before = made.get(node.inputs[0]) if node.inputs else None
        if isinstance(node, Reshape):
            if isinstance(before, Reshape):
                node.inputs, node.before = before.inputs, before.before
            if node.before == node.after:
                renamed[node.outputs[0]] = node.inputs[0]
                continue
        if isinstance(node, Permute):
            if isinstance(before, Permute):
                node.inputs, node.dims = before.inputs, tuple(before.dims[d] for d in node.dims)
            if node.dims == tuple(range(len(node.dims))):
                renamed[node.outputs[0]] = node.inputs[0]
                continue
        for variable in node.outputs:
            made[variable] = node
        kept.append(node)
    output = renamed.get(output, output)
    return without_dead(kept, output), output


def attention_found(nodes: list[Node], shapes: list[Shape], output: int) -> list[Node]:
    """softmax(scale a b + constants) v, written out by a model, becomes attention: its score tangents stay in cache."""
    uses = Counter(v for node in nodes for v in node.inputs)
    uses[output] += 1
    made = {v: node for node in nodes for v in node.outputs}
    read = {v: node for node in nodes for v in node.inputs}
    replaced: dict[int, list[Node]] = {}
    for softmax in nodes:
        if not isinstance(softmax, Softmax):
            continue
        scores, factor = _scores(made, uses, softmax.inputs[0])
        (probabilities,) = softmax.outputs
        while uses[probabilities] == 1 and isinstance(after := read.get(probabilities), Reshape):
            (probabilities,) = after.outputs
        product = read.get(probabilities)
        whole = (
            isinstance(scores, MatMul)
            and isinstance(product, MatMul)
            and scores.of_a
            and product.of_a
            and product.inputs == [probabilities, *product.inputs[1:]]
            and probabilities not in product.inputs[1:]
            and uses[probabilities] == 1
            and scores.a.dim() == product.a.dim()
            and scores.a.dim() in (3, 4)
            and shapes[scores.outputs[0]] == tuple(product.a.shape)
        )
        if whole:
            assert isinstance(scores, MatMul)
            assert isinstance(product, MatMul)
            replaced[id(product)] = _as_attention(scores, product, factor, shapes)
    return without_dead([new for node in nodes for new in replaced.get(id(node), [node])], output)


def _scores(made: dict[int, Node], uses: Counter[int], variable: int) -> tuple[Node | None, float]:
    """What made the scores, and the number that they were multiplied with; views in between change nothing."""
    factor = 1.0
    while uses[variable] == 1:
        node = made.get(variable)
        if isinstance(node, Scale) and node.factor.numel() == 1:
            factor *= float(node.factor)
        elif not isinstance(node, Reshape):
            return node, factor
        (variable,) = node.inputs
    return None, factor


def _as_attention(scores: MatMul, product: MatMul, factor: float, shapes: list[Shape]) -> list[Node]:
    """[B, H, L, E] @ [B, H, E, S] and [B, H, L, S] @ [B, H, S, F] as attention; without H it has one head."""
    found: list[Node] = []

    def add(node: Node, inputs: list[int], shape: Shape) -> int:
        shapes.append(shape)
        node.inputs, node.outputs = inputs, [len(shapes) - 1]
        node.source = "scaled_dot_product_attention" if isinstance(node, Attention) else type(node).__name__.lower()
        found.append(node)
        return len(shapes) - 1

    def with_heads(variable: int) -> int:
        before, after = shapes[variable], _with_heads(shapes[variable])
        return add(Reshape(before, after), [variable], after)

    inputs = [with_heads(scores.inputs[0])]
    if scores.of_b:
        *lead, e, s = _with_heads(shapes[scores.inputs[1]])
        inputs.append(add(Permute((0, 1, 3, 2)), [with_heads(scores.inputs[1])], (*lead, s, e)))
    if product.of_b:
        inputs.append(with_heads(product.inputs[1]))
    primals = (scores.a, scores.b.mT, product.b, product.a)
    q, k, v, p = (t.reshape(_with_heads(tuple(t.shape))) for t in primals)
    shape = shapes[product.outputs[0]]
    out = add(Attention(q, k, v, p, factor, (True, scores.of_b, product.of_b)), inputs, _with_heads(shape))
    add(Reshape(_with_heads(shape), shape), [out], shape)
    found[-1].outputs = product.outputs
    return found


def _with_heads(shape: Shape) -> Shape:
    return shape if len(shape) == 4 else (shape[0], 1, *shape[1:])


def slices_first(nodes: list[Node], shapes: list[Shape], output: int) -> tuple[list[Node], int]:
    """Move slices towards the input for as long as nobody reads what they drop."""
    while (moved := _move_one(nodes, shapes, output)) is not None:
        nodes = moved
    return without_dead(nodes, output), output


def _move_one(nodes: list[Node], shapes: list[Shape], output: int) -> list[Node] | None:
    candidates = [node for node in nodes if isinstance(node, Pieces) and len(node.pieces) == 1]
    if not candidates:
        return None
    made = {v: index for index, node in enumerate(nodes) for v in node.outputs}
    readers: dict[int, list[Node]] = {}
    for node in nodes:
        for variable in node.inputs:
            readers.setdefault(variable, []).append(node)
    for first in candidates:
        (variable,) = first.inputs
        slices = readers[variable]
        index = made.get(variable)
        if index is None or variable == output or not all(_same_slice(first, other) for other in slices):
            continue
        node = nodes[index]
        (start, length) = first.pieces[0]
        if len(node.outputs) != 1 or length == shapes[variable][first.dim]:
            continue
        smaller = node.narrowed(first.dim, start, length)
        if smaller is None:
            continue
        replacement, along = smaller
        inserted: list[Node] = []
        inputs: list[int] = []
        for of, dim in zip(node.inputs, along, strict=True):
            if dim is None:
                inputs.append(of)
                continue
            shapes.append(resized(shapes[of], dim, length))
            view = Pieces(dim, shapes[of], [(start, length)], source=first.source)
            view.inputs, view.outputs = [of], [len(shapes) - 1]
            inserted.append(view)
            inputs.append(len(shapes) - 1)
        narrow = resized(shapes[variable], first.dim, length)
        shapes.append(narrow)
        replacement.inputs, replacement.outputs = inputs, [len(shapes) - 1]
        rest = nodes[index + 1 :]
        for each in slices:
            at = next(i for i, other in enumerate(rest) if other is each)
            same = Reshape(narrow, shapes[each.outputs[0]], source=each.source)
            same.inputs, same.outputs = replacement.outputs, each.outputs
            rest[at] = same
        return [*nodes[:index], *inserted, replacement, *rest]
    return None


def _same_slice(a: Pieces, b: Node) -> bool:
    return isinstance(b, Pieces) and len(a.pieces) == 1 and a.dim == b.dim and a.pieces == b.pieces


def skips_fused(nodes: list[Node], output: int) -> list[Node]:
    """A product x W^T followed by + y, where only the sum is read: one product that adds onto y."""
    uses = Counter(v for node in nodes for v in node.inputs)
    made = {v: node for node in nodes for v in node.outputs}
    absorbed: set[int] = set()
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Add) and node.alpha == 1 and node.inputs[0] != node.inputs[1]:
            for branch, skip in (node.inputs[::-1], node.inputs):
                linear = made.get(branch)
                if type(linear) is Linear and uses[branch] == 1 and branch != output:
                    fused = LinearAdd(linear.weight, linear.rank, source=linear.source)
                    fused.inputs, fused.outputs = [linear.inputs[0], skip], node.outputs
                    absorbed.add(branch)
                    kept.append(fused)
                    break
            else:
                kept.append(node)
        else:
            kept.append(node)
    return [node for node in kept if not absorbed.intersection(node.outputs)]


def bytes_per_direction(nodes: list[Node], shapes: list[Shape], first: int, last: int, size: int) -> int:
    """Peak of a pass in bytes for each direction; what shares memory is counted once."""
    remaining = Counter(v for node in nodes for v in node.inputs)
    remaining[last] += 1
    holder: dict[int, int] = {first: first}  # the variable in whose memory a variable lies
    held: Counter[int] = Counter({first: 1})
    peak = live = math.prod(shapes[first])
    for node in nodes:
        source = node.inputs[0] if node.rule == "view" and len(node.inputs) == 1 else None
        if node.reuses is not None:
            reused = node.inputs[node.reuses]
            if remaining[reused] == 1 and held[holder[reused]] == 1 and holder[reused] != first:
                source = reused
        for variable in node.outputs:
            holder[variable] = variable if source is None else holder[source]
            held[holder[variable]] += 1
            live += math.prod(shapes[variable]) if source is None else 0
        peak = max(peak, live)
        for variable in set(node.inputs):
            remaining[variable] -= node.inputs.count(variable)
            if remaining[variable] == 0:
                held[holder[variable]] -= 1
                if held[holder[variable]] == 0:
                    live -= math.prod(shapes[holder[variable]])
    return peak * size
