"""The ``timm`` backend: image encoders of the timm library, as pooled features before the classifier."""

from __future__ import annotations

import contextlib
import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.checkpoint_file import read_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

EQUIVENGINE_API = (1, 0)

_SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")


class TimmBackend(eqv.Backend):
    """``timm:NAME[.TAG]``, ``timm:hf-hub:ORG/NAME``, ``timm:local-dir:FOLDER``.

    The embedding is what ``timm.create_model(NAME, num_classes=0)`` returns: pooled features, not normalized. Without
    options the weights are timm's own (hub or cache). ``?weights=random&seed=N`` draws them; ``?weights=FILE`` reads a
    local checkpoint, with or without its classifier; ``?img_size=N`` asks for another input size, pixels.
    """

    name = "timm"
    summary = "any image model of the timm library, before its classifier"
    examples = (
        "timm:vit_base_patch16_224",
        "timm:resnet50.a1_in1k",
        "timm:hf-hub:timm/vit_small_patch14_dinov2.lvd142m",
        "timm:vit_tiny_patch16_224?weights=random&seed=0",
        "timm:vit_tiny_patch16_224?weights=/file.safetensors",
    )

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Build the model that ``uri`` names, on the CPU, in float32.

        Raises:
            UsageError: If timm knows no such model, or the model takes no ``img_size``.
            WeightsError: If the weights cannot be had or do not fit.
            ModelError: If the model's preprocessing cannot be declared.
        """
        name = uri.require_path("the name of a timm model", "timm:vit_base_patch16_224")
        uri.allow_options((*weights.OPTIONS, "img_size"))
        source = weights.Source.of(uri)
        img_size = uri.integer("img_size", 0, minimum=1, maximum=65536) or None
        import timm
        import torch

        _check_name(uri, name)
        classifier: nn.Linear | None = None
        recorded: dict[str, object] = {}
        with torch.random.fork_rng(devices=[]):  # timm draws weights even where it overwrites them
            if source.kind == "hub":
                model, classifier = _pretrained(uri, name, img_size)
            elif source.path is not None:
                model, classifier, recorded["checkpoint_dtypes"] = _from_file(uri, name, img_size, source)
            else:
                model = _create(uri, name, img_size, seed=source.seed, num_classes=0)
        cfg = _cfg(model)
        activations = weights.activations(model)
        return eqv.LoadedModel(
            module=model,
            preprocessing=_preprocessing(uri, model, img_size),
            random_weights=source.kind == "random",
            activation=next(iter(activations), "unknown"),
            license=cfg.get("license") if source.kind == "hub" else None,
            class_names=None if classifier is None else _class_names(classifier, cfg),
            classify=None if classifier is None else _Classifier(classifier),
            details={
                **source.describe(),
                **recorded,
                "library": f"timm {timm.__version__}",
                "architecture": str(cfg.get("architecture") or name),
                # Weights that are not timm's own owe nothing to the tag but their preprocessing.
                "pretrained_tag" if source.kind == "hub" else "preprocessing_tag": cfg.get("tag") or None,
                "pool": _pool(model),
                "parameters": sum(p.numel() for p in model.parameters()),
                "activations": activations,
            },
        )


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Provide the ``timm`` backend."""
    return [TimmBackend]


def _check_name(uri: eqv.URI, name: str) -> None:
    import timm

    if name.startswith(_SOURCES):
        return
    if any(mark in name for mark in "/\\:"):
        raise eqv.UsageError(
            f"{name!r} is no name of a timm model",
            expected=f"timm:hf-hub:{name} (a model on the hub) or timm:local-dir:{name} (a folder with config.json)",
            got=repr(uri.text),
        )
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        raise eqv.UsageError(
            f"timm {timm.__version__} has no model {architecture!r}",
            expected=f"one of {', '.join(close)}" if close else "a name from timm.list_models()",
            got=repr(uri.text),
            hint="see python -c 'import timm; print(timm.list_models())'",
        )
    if tag and "weights" in uri.options and tag not in _tags(architecture):
        raise eqv.UsageError(
            f"timm {timm.__version__} has no tag {tag!r} for {architecture!r}",
            expected=weights.some(_tags(architecture)),
            got=repr(uri.text),
            hint="leave the tag out",
        )


def _cfg(model: nn.Module) -> Mapping[str, Any]:
    """What timm knows of the pretrained weights, even if they were not loaded."""
    return cast("Mapping[str, Any]", model.pretrained_cfg)


def _tags(architecture: str) -> list[str]:
    import timm

    names = timm.list_models(f"{architecture}.*", pretrained=True, include_tags=True)
    return [name.partition(".")[2] for name in names]


# -- building -------------------------------------------------------------------------------------------------------


def _create(uri: eqv.URI, name: str, img_size: int | None, *, seed: int = 0, **arguments: Any) -> nn.Module:
    """``timm.create_model``, weights drawn from ``seed``, its complaints about arguments made ours."""
    import timm

    try:
        # The configuration of a model on the hub is fetched even if its weights are not.
        access = weights.hub_access() if name.startswith(_SOURCES) else contextlib.nullcontext()
        with weights.seeded(seed), access:
            return timm.create_model(name, pretrained=False, **_size(name, img_size), **arguments)
    except (OSError, KeyError, ValueError) as error:  # the config.json of hf-hub: or local-dir:
        if name.startswith(_SOURCES):
            raise _no_source(uri, name, error) from error
        raise
    except (TypeError, AssertionError, RuntimeError) as error:
        if img_size is None:
            raise eqv.ModelError(
                f"timm cannot build {name!r}",
                got=weights.first_line(error),
                hint="try timm.create_model in Python, and install what it asks for",
            ) from error
        raise _bad_size(uri, name, error) from error


def _size(name: str, img_size: int | None) -> dict[str, int]:
    """``img_size`` as an argument of ``create_model``; models without a fixed input size take any and know none."""
    from timm.models import get_pretrained_cfg

    if img_size is None:
        return {}
    if name.startswith(_SOURCES):
        return {"img_size": img_size}
    cfg = get_pretrained_cfg(name.partition(".")[0])
    return {"img_size": img_size} if cfg is None or cfg.fixed_input_size else {}


def _bad_size(uri: eqv.URI, name: str, error: Exception) -> eqv.UsageError:
    return eqv.UsageError(
        f"{name!r} does not take img_size={uri.options['img_size']}", got=weights.first_line(error), hint="leave it out"
    )


def _pretrained(uri: eqv.URI, name: str, img_size: int | None) -> tuple[nn.Module, nn.Linear | None]:
    """The model with timm's own weights, and its classifier."""
    import timm
    from timm.models import get_pretrained_cfg

    cfg = None
    if not name.startswith(_SOURCES):
        try:
            cfg = get_pretrained_cfg(name)
        except RuntimeError as error:  # an unknown tag
            architecture = name.partition(".")[0]
            reason = f"{weights.first_line(error)} Known tags: {weights.some(_tags(architecture))}"
            raise _unavailable(uri, name, reason, address=f"timm:{architecture}") from error
        if cfg is None or not cfg.has_weights:
            raise _unavailable(uri, name, f"timm {timm.__version__} knows no pretrained weights for {name!r}")
    try:
        with weights.hub_access():
            model = timm.create_model(name, pretrained=True, **_size(name, img_size))
    except Exception as error:  # hub, network, cache, unpickler: each has errors of its own
        if img_size is not None and isinstance(error, TypeError | AssertionError):
            raise _bad_size(uri, name, error) from error
        raise _unavailable(uri, name, error, cfg) from error
    return _split(model, img_size)


def _unavailable(
    uri: eqv.URI, name: str, reason: object, cfg: Any = None, address: str | None = None
) -> eqv.WeightsError:
    import torch

    if name.startswith(_SOURCES):
        return _no_source(uri, name, reason)
    cache = weights.hub_cache()
    if cfg is not None and not cfg.hf_hub_id:
        cache = f"{torch.hub.get_dir()}/checkpoints"
    return weights.cannot_be_had(uri, reason, cache=cache, address=address)


def _no_source(uri: eqv.URI, name: str, reason: object) -> eqv.WeightsError:
    """Of ``hf-hub:`` and ``local-dir:`` not even the architecture is known without their config.json."""
    if name.startswith("local-dir:"):
        return weights.folder_unreadable(
            uri,
            reason,
            expected="a folder with config.json and model.safetensors that belong together",
            hint="copy it again, or name what is in it: timm:ARCHITECTURE?weights=/file.safetensors",
        )
    return weights.cannot_be_had(
        uri,
        reason,
        cache=weights.hub_cache(),
        address="timm:ARCHITECTURE",
        local="timm:ARCHITECTURE?weights=/file.safetensors, or timm:local-dir:/folder with its config.json",
    )


def _from_file(
    uri: eqv.URI, name: str, img_size: int | None, source: weights.Source
) -> tuple[nn.Module, nn.Linear | None, list[str]]:
    """The model with the weights of a local checkpoint, its classifier if the file has one, and the file's dtypes."""
    assert source.path is not None
    state = read_checkpoint(source.path)
    model = _create(uri, name, img_size, num_classes=0)
    classes = _classes(model, state)
    if classes:
        model = _create(uri, name, img_size, num_classes=classes)
    dtypes = weights.fit(model, _fitting(model, state), source.path)
    return (*_split(model, img_size), dtypes)


def _classes(model: nn.Module, state: Mapping[str, torch.Tensor]) -> int:
    """Number of classes that the classifier in ``state`` tells apart; 0 without one."""
    names = _cfg(model).get("classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.dim() >= 2:
            return int(weight.shape[0])
    return 0


def _fitting(model: nn.Module, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """``state``, if need be through timm's own filter, which knows other layouts and resamples position embeddings."""
    filter_fn = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if filter_fn is None or weights.misfit(model, state) is None:
        return state
    try:
        filtered: Mapping[str, torch.Tensor] = filter_fn(dict(state), model)
    except Exception:  # a filter that meets a file of another model fails in any way; `fit` says what is wrong with it
        return state
    return filtered if weights.misfit(model, filtered) is None else state


# -- embedding, classifier, preprocessing ---------------------------------------------------------------------------


def _split(model: nn.Module, img_size: int | None) -> tuple[nn.Module, nn.Linear | None]:
    """Take the classifier off. It is returned only if it turns the embedding into the model's logits.

    It does not where timm averages two heads (distilled models) or where the head is a convolution.
    """
    import torch
    from torch import nn

    timm_model = cast(Any, model.eval())
    if not timm_model.num_classes:
        return model, None
    head = timm_model.get_classifier()
    if not isinstance(head, nn.Linear):
        timm_model.reset_classifier(0)
        return model, None
    shape = _data_config(model, img_size)["input_size"]
    noise = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(noise)
        timm_model.reset_classifier(0)
        features = model.eval()(noise)
        if features.shape[1:] != (head.in_features,):
            return model, None
        same = torch.allclose(head(features), logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
    return model, head if same else None


class _Classifier:
    """Logits [B, classes] of embeddings [B, n], on whichever device and in whichever dtype the embeddings come."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head.eval().requires_grad_(False)

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        import torch

        bias = self._head.bias
        return torch.nn.functional.linear(
            embeddings,
            self._head.weight.to(embeddings),
            None if bias is None else bias.to(embeddings),
        )


def _class_names(classifier: nn.Linear, cfg: Mapping[str, Any]) -> Sequence[str] | None:
    """Names of the classes, from the model's own configuration or timm's copy of ImageNet's."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    count = classifier.out_features
    labels = cfg.get("label_names")
    if labels:
        described = cfg.get("label_descriptions") or {}
        return [str(described.get(label, label)) for label in labels] if len(labels) == count else None
    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None or count != cfg.get("num_classes"):
        return None
    names = ImageNetInfo(subset).label_descriptions()
    return list(names) if len(names) == count else None


def _data_config(model: nn.Module, img_size: int | None) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    channels = _cfg(model).get("input_size", (3, 224, 224))[0]
    arguments = {"input_size": (channels, img_size, img_size)} if img_size else None
    return cast("dict[str, Any]", resolve_model_data_config(model, args=arguments))


def _preprocessing(uri: eqv.URI, model: nn.Module, img_size: int | None) -> eqv.Preprocessing:
    """The evaluation transform of timm, declared.

    Raises:
        ModelError: If it pads with the mean color, crops a non-square input, or uses another filter or channel count.
    """
    config = _data_config(model, img_size)
    channels, height, width = config["input_size"]
    # As in timm.data.transforms_factory.transforms_imagenet_eval.
    scaled = [math.floor(side / config["crop_pct"]) for side in (height, width)]
    crop_mode, interpolation = config["crop_mode"], config["interpolation"]
    unsupported = None
    if channels not in (1, 3):
        unsupported = f"{channels} channels"
    elif interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
        unsupported = f"interpolation {interpolation}"
    elif crop_mode not in ("center", "squash"):
        unsupported = f"crop mode {crop_mode} (it pads with the mean color)"
    elif height != width and (crop_mode == "center" or scaled != [height, width]):
        unsupported = f"a crop to {height} x {width}, which is not square"
    if unsupported is not None:
        raise eqv.ModelError(
            f"the preprocessing of {uri.text!r} cannot be declared",
            expected="1 or 3 channels, crop mode center or squash to a square, a filter that Pillow shares with torch",
            got=unsupported,
            hint="choose another tag, or wrap the model in a backend of your own",
        )
    if crop_mode == "center":
        resize, resize_to = "shortest", scaled[0]
    else:
        resize, resize_to = "squash", None if scaled == [height, width] else scaled[0]
    return eqv.Preprocessing(
        size=(height, width),
        mode="L" if channels == 1 else "RGB",
        resize=cast(Any, resize),
        resize_to=resize_to,
        interpolation=interpolation,
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
    )


def _pool(model: nn.Module) -> str:
    pool = getattr(model, "global_pool", None)
    if pool is None:
        pool = getattr(getattr(model, "head", None), "global_pool", None)
    return str(pool if isinstance(pool, str) else getattr(pool, "pool_type", type(pool).__name__ if pool else "none"))
