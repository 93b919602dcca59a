"""Requirements on a model that is loaded: on the module itself, and on what the engine makes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from equivengine.contracts.unit import canonical_json
from equivengine.testing.encoder_subject import EncoderSubject
from equivengine.testing.verdict import Breach, NotTried, Requirement

#: Relative difference of two embeddings of one input that is more than roundoff; as `equivengine.Encoder` has it.
REPEATED, BATCHED = 1e-5, 1e-3

#: Types whose output differs between training and eval mode.
_MODAL = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
    nn.RReLU,
)


def is_in_eval_mode(subject: EncoderSubject) -> str:
    """The module is handed over as it is to be evaluated."""
    _ = subject.loaded
    module = subject.as_loaded
    if not subject.training:
        return ""
    names = dict(subject.loaded.module.named_modules())
    modal = [name for name in subject.training if isinstance(names.get(name, subject.loaded.module), _MODAL)]
    if module is not None:
        z = subject.normalised(subject.inputs())
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            first, second = subject.evaluate(z, module), subject.evaluate(z, module)
            settled = subject.evaluate(z, module.eval())
        if not all(isinstance(y, torch.Tensor) for y in (first, second, settled)):
            raise NotTried("the module returns no plain tensor")
        scale = float(settled.abs().max()) or 1.0
        gap = max(float((first - second).abs().max()), float((first - settled).abs().max())) / scale
        if gap <= REPEATED:
            return "in training mode, which makes no difference to this module"
        got = f"a relative difference of {gap:.1e} to the embedding in eval mode"
    elif modal:
        got = "a part whose output depends on the mode"
    else:
        return "in training mode; no part is known to depend on it"
    parts = ", ".join(f"{name} ({type(names[name]).__name__})" for name in modal[:3]) or subject.training[0]
    raise Breach(
        f"the module is handed over in training mode: {parts}",
        expected="eval mode. The engine calls eval() itself, so its results stand; other users of the module are lost",
        got=got,
        hint="call .eval() on the module at the end of load()",
    )


def returns_one_tensor(subject: EncoderSubject) -> str:
    """No tuples, no mappings, no model outputs."""
    output = subject.output
    if isinstance(output, torch.Tensor):
        return ""
    if isinstance(output, Mapping):
        got = f"{type(output).__name__} with keys {sorted(map(str, output))[:5]}"
    elif isinstance(output, tuple | list):
        got = f"{type(output).__name__} of {len(output)}"
    else:
        got = type(output).__name__
    raise Breach(
        "the module does not return one tensor",
        expected="a tensor [B, n]",
        got=got,
        hint="wrap it in a torch.nn.Module whose forward returns the embedding alone",
    )


def returns_one_embedding_per_input(subject: EncoderSubject) -> str:
    """The output is [B, n]."""
    output = subject.output
    if not isinstance(output, torch.Tensor):
        raise NotTried("the module returns no plain tensor")
    count = subject.inputs().shape[0]
    if output.dim() != 2 or output.shape[0] != count or output.shape[1] == 0:
        raise Breach(
            "the output has a wrong shape",
            expected=f"[{count}, n] for {count} inputs: one embedding for each",
            got=list(output.shape),
            hint="pool or flatten in the module, for example torch.nn.Flatten()",
        )
    return f"n = {output.shape[1]}, inputs {list(subject.shape)}"


def keeps_the_dtype(subject: EncoderSubject) -> str:
    """float32 in, float32 out."""
    dtype = subject.embeddings.dtype
    if dtype != torch.float32:
        raise Breach(
            "the output has another dtype than the input",
            expected="torch.float32",
            got=dtype,
            hint="take .half(), .to(torch.bfloat16) and autocast out of the module's forward",
        )
    return ""


def keeps_its_input(subject: EncoderSubject) -> str:
    """The module does not write to its input."""
    _ = subject.embeddings
    z = subject.normalised(subject.inputs())
    before = z.clone()
    subject.evaluate(z)
    if not torch.equal(z, before):
        raise Breach(
            "the module changes its input in place",
            expected="an input that stays as it was. The engine hands over a copy, so its results stand; not others'",
            got=f"{int((z != before).sum())} of {z.numel()} values changed",
            hint="write x = x * 2 instead of x *= 2 and x.mul_(2), and leave inplace=True out of the first layer",
        )
    return ""


def is_deterministic(subject: EncoderSubject) -> str:
    """Equal inputs give equal embeddings."""
    first = subject.embeddings.float()
    again = subject.evaluate(subject.normalised(subject.inputs())).float()
    scale = float(first.abs().max()) or 1.0
    gap = float((first - again).abs().max()) / scale
    if not gap <= REPEATED and bool(torch.isfinite(first).all()):
        raise Breach(
            "the same input gave two different embeddings, in eval mode",
            expected="a deterministic model",
            got=f"a relative difference of {gap:.1e}",
            hint="look for torch.rand, F.dropout without training=self.training, and random masks in forward",
        )
    return ""


def embeds_each_input_alone(subject: EncoderSubject) -> str:
    """An embedding does not depend on the rest of the batch."""
    together = subject.embeddings.float()
    z = subject.normalised(subject.inputs())
    apart = torch.cat([subject.evaluate(row[None]).float() for row in z])
    scale = float(together.abs().max()) or 1.0
    gap = float((together - apart).abs().max()) / scale
    if not gap <= BATCHED and bool(torch.isfinite(together).all()):
        raise Breach(
            "an embedding depends on what else is in the batch",
            expected="every input embedded on its own",
            got=f"a relative difference of {gap:.1e} between alone and in a batch of {len(z)}",
            hint="use running statistics in batch normalization, and no softmax, mean or scale over dim 0, which "
            "dynamic quantization takes",
        )
    return f"relative difference {gap:.1e}"


def lets_gradients_through(subject: EncoderSubject) -> str:
    """The output is differentiable with respect to the input."""
    _ = subject.embeddings
    _, grad = _with_gradient(subject, subject.inputs(1))
    if grad is None or not bool(grad.abs().max() > 0):
        raise Breach(
            "no gradient reaches the input",
            expected="an output that is differentiable with respect to the input",
            got="no path in the graph" if grad is None else "a gradient of exactly zero",
            hint="take torch.no_grad(), detach(), round(), numpy and quantized layers out of the module's forward",
        )
    return ""


def _with_gradient(subject: EncoderSubject, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The embedding of x, and the gradient of a random combination of its numbers (their plain sum may be constant)."""
    z = subject.normalised(x).requires_grad_(True)
    with torch.enable_grad():
        y = subject.module_in_use(z.clone()).float()
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
        grad = torch.autograd.grad((y * weights).sum(), z, allow_unused=True)[0] if y.requires_grad else None
    return y.detach(), grad


def stays_finite(subject: EncoderSubject) -> str:
    """Noise and constant inputs, from one end of the range to the other, have finite embeddings and gradients."""
    _ = subject.embeddings
    low, high = subject.loaded.input_range
    levels = {"the lowest input": low, "the middle of the range": (low + high) / 2, "the highest input": high}
    constants = {name: torch.full((1, *subject.shape), float(value)) for name, value in levels.items()}
    for name, x in {"noise": subject.inputs(1), **constants}.items():
        y, grad = _with_gradient(subject, x)
        for what, values in (("embedding", y), ("gradient", grad)):
            if values is not None and not bool(torch.isfinite(values).all()):
                raise Breach(
                    f"the {what} holds NaN or infinity for {name}",
                    expected="finite values within the input range",
                    got=f"{int((~torch.isfinite(values)).sum())} of {values.numel()} are not finite",
                    hint="look for a root, a logarithm or a division by a norm of zero in the module's forward",
                )
    return ""


def shows_nan(subject: EncoderSubject) -> str:
    """A NaN in the input reaches the embedding, and no other input's."""
    _ = subject.embeddings
    z = subject.normalised(subject.inputs())
    z[0] = float("nan")
    y = subject.evaluate(z)
    if bool(torch.isfinite(y[0]).any()):
        raise Breach(
            "an input of NaN has an embedding of numbers",
            expected="NaN in, NaN out: what is broken must not look like a result",
            got=f"{int(torch.isfinite(y[0]).sum())} of {y[0].numel()} values are finite",
            hint="take nan_to_num and the like out of the module's forward",
        )
    if not bool(torch.isfinite(y[1:]).all()):
        raise Breach("a NaN in one input reaches the embeddings of others", expected="every input embedded on its own")
    return ""


def is_accepted(subject: EncoderSubject) -> str:
    """`equivengine.Encoder` wraps the model without complaint."""
    _ = subject.loaded
    if isinstance(subject.wrapped, Exception):
        raise subject.wrapped
    spec = subject.wrapped.spec
    return f"{spec.parameters:,} parameters, {spec.embedding_dim} numbers of {spec.input_dim:,} inputs"


def says_what_holds(subject: EncoderSubject) -> str:
    """Declared facts can be stored, and are true."""
    loaded, encoder = subject.loaded, subject.encoder
    try:
        canonical_json(dict(loaded.details))
    except (TypeError, ValueError) as error:
        raise Breach("LoadedModel.details cannot be stored", expected="JSON types, no NaN", got=error) from None
    y = subject.embeddings
    lengths = torch.linalg.vector_norm(y, dim=1)
    unit = bool(((lengths - 1).abs() < 1e-4).all())
    if loaded.normalized_output != unit:
        raise Breach(
            "normalized_output says otherwise than the embeddings",
            expected=f"normalized_output={unit}",
            got=f"normalized_output={loaded.normalized_output}, lengths {lengths.min():.4g} .. {lengths.max():.4g}",
        )
    if loaded.classify is not None:
        logits = encoder.classify(y)
        classes = len(loaded.class_names) if loaded.class_names is not None else logits.shape[-1]
        if logits.shape != (len(y), classes):
            raise Breach(
                "classify() and class_names disagree", expected=f"[{len(y)}, {classes}]", got=list(logits.shape)
            )
    if loaded.embed_text is not None:
        found = encoder.embed_text(["a photo of a cat", "a photo of a dog"])
        if tuple(found.shape) != (2, y.shape[1]):
            raise Breach("embed_text() returns a wrong shape", expected=[2, y.shape[1]], got=list(found.shape))
    words = [f"activation {loaded.activation}", f"license {loaded.license or 'not known'}"]
    return ", ".join([*words, *(["random weights"] if loaded.random_weights else [])])


def takes_no_longer_than_declared(subject: EncoderSubject) -> str:
    """An embedding and one product J^T u, on this machine."""
    encoder = subject.encoder
    start = time.perf_counter()
    x = subject.inputs(1).requires_grad_(True)
    encoder(x).sum().backward()
    seconds = time.perf_counter() - start
    if seconds > subject.seconds_per_unit:
        raise Breach(
            "an embedding with its gradient takes too long",
            expected=f"at most {subject.seconds_per_unit:g} s",
            got=f"{seconds:.1f} s on the CPU",
            hint="try a smaller model of the family, or raise seconds_per_unit",
        )
    return f"{1e3 * seconds:.1f} ms on the CPU, {torch.get_num_threads()} threads"


BEHAVIOUR: Sequence[Requirement[EncoderSubject]] = (
    Requirement("is_in_eval_mode", "it is handed over in eval mode", is_in_eval_mode),
    Requirement("returns_one_tensor", "it returns one plain tensor", returns_one_tensor),
    Requirement(
        "returns_one_embedding_per_input", "it returns one embedding per input", returns_one_embedding_per_input
    ),
    Requirement("keeps_the_dtype", "its output has the dtype of its input", keeps_the_dtype),
    Requirement("keeps_its_input", "it leaves its input as it was", keeps_its_input),
    Requirement("is_deterministic", "equal inputs have equal embeddings", is_deterministic),
    Requirement("embeds_each_input_alone", "an embedding does not depend on the batch", embeds_each_input_alone),
    Requirement("lets_gradients_through", "a gradient reaches the input", lets_gradients_through),
    Requirement("stays_finite", "embeddings and gradients are finite, also of constant inputs", stays_finite),
    Requirement("shows_nan", "NaN in, NaN out, and only there", shows_nan),
    Requirement("is_accepted", "the engine accepts it as an encoder", is_accepted),
    Requirement("says_what_holds", "what it declares of itself is true and can be stored", says_what_holds),
    Requirement(
        "takes_no_longer_than_declared",
        "an embedding with its gradient takes no longer than declared",
        takes_no_longer_than_declared,
    ),
)
