"""The ``open_clip`` backend: image towers of CLIP-like models, with their text towers as an ability."""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.checkpoint_file import read_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

EQUIVENGINE_API = (1, 0)

_SOURCES = ("hf-hub:", "local-dir:")
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


class OpenClipBackend(eqv.Backend):
    """``open_clip:ARCH/TAG``, ``open_clip:hf-hub:ORG/NAME``, ``open_clip:local-dir:FOLDER``.

    The embedding is ``encode_image(normalize=False)``; text embeddings are ``encode_text(normalize=False)``, so neither
    has unit length. ``open_clip:ARCH?weights=random&seed=N`` draws the weights of both towers,
    ``open_clip:ARCH?weights=FILE`` reads them from a local checkpoint; with ``ARCH/TAG`` either one keeps the tag's
    preprocessing and nonlinearity.

    A tag that was trained with QuickGELU gets QuickGELU, also under an architecture that does not say so in its name
    (``ViT-B-32/openai``), where open_clip itself would warn and compute with GELU. A local file does not say which one
    it needs: name ``ARCH-quickgelu`` or a tag.
    """

    name = "open_clip"
    summary = "image towers of CLIP-like models, with text embeddings"
    examples = (
        "open_clip:ViT-B-32/laion2b_s34b_b79k",
        "open_clip:ViT-B-32/openai",
        "open_clip:hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "open_clip:ViT-B-32?weights=random&seed=0",
        "open_clip:ViT-B-32?weights=/file.safetensors",
    )

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Build the model that ``uri`` names, on the CPU, in float32.

        Raises:
            UsageError: If open_clip knows no such architecture or tag.
            WeightsError: If the weights cannot be had or do not fit.
            ModelError: If open_clip cannot build the model, or its preprocessing cannot be declared.
        """
        path = uri.require_path("an architecture and a tag", "open_clip:ViT-B-32/laion2b_s34b_b79k")
        uri.allow_options(weights.OPTIONS)
        source = weights.Source.of(uri)
        import open_clip

        architecture, tag = (path, "") if path.startswith(_SOURCES) else _check_name(uri, path, source)
        recorded: dict[str, object] = {}
        with _root_logger_untouched(), weights.seeded(source.seed), weights.foreign_code_refused(uri):
            build = _pretrained if source.kind == "hub" else _drawn
            clip = build(uri, architecture, tag)
            if source.path is not None:
                recorded["checkpoint_dtypes"] = _fill(clip, source)
        clip = clip.float().eval().requires_grad_(False)
        # What training multiplied cosines by, before the softmax.
        scale = float(clip.logit_scale.exp().flatten()[0]) if hasattr(clip, "logit_scale") else None
        visual = clip.visual
        del clip.visual  # what is left embeds text; float64 copies and digests are of the image tower alone
        if getattr(visual, "output_tokens", False):  # CoCa's tower hands its tokens to a caption decoder
            visual.output_tokens = False
        activations = weights.activations(visual)
        return eqv.LoadedModel(
            module=visual,
            preprocessing=_preprocessing(uri, visual.preprocess_cfg),
            random_weights=source.kind == "random",
            activation=next(iter(activations), "unknown"),
            embed_text=_TextTower(uri, clip, visual, architecture),
            details={
                **source.describe(),
                **recorded,
                "library": f"open_clip {open_clip.__version__}",
                "architecture": architecture,
                "pretrained_tag" if source.kind == "hub" else "preprocessing_tag": tag or None,
                "parameters": sum(p.numel() for p in visual.parameters()),
                "text_parameters": sum(p.numel() for p in clip.parameters()),
                "activations": activations,
                "text_normalized": False,
                "logit_scale": scale,
            },
        )


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Provide the ``open_clip`` backend."""
    return [OpenClipBackend]


def _check_name(uri: eqv.URI, path: str, source: weights.Source) -> tuple[str, str]:
    """Architecture and tag of ``ARCH[/TAG]``."""
    import open_clip

    architecture, _, tag = path.partition("/")
    if open_clip.get_model_config(architecture) is None:
        # People also write OpenAI's names: ViT-B/32.
        close = difflib.get_close_matches(path.replace("/", "-"), open_clip.list_models(), n=3, cutoff=0.5)
        close += difflib.get_close_matches(architecture, open_clip.list_models(), n=3, cutoff=0.5)
        raise eqv.UsageError(
            f"open_clip {open_clip.__version__} has no architecture {architecture!r}",
            expected=f"one of {', '.join(dict.fromkeys(close))}" if close else "a name from open_clip.list_models()",
            got=repr(uri.text),
            hint="see python -c 'import open_clip; print(open_clip.list_models())'",
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and not open_clip.get_pretrained_cfg(architecture, tag):
        reason = f"open_clip {open_clip.__version__} has no tag {tag!r} for {architecture!r}"
        close = difflib.get_close_matches(tag, tags, n=3, cutoff=0.4) or tags
        if source.kind != "hub":
            raise eqv.UsageError(
                reason, expected=weights.some(close) if close else "no tag: it has none", got=repr(uri.text)
            )
        reason = f"{reason}; it has {weights.some(close)}"
        raise _unavailable(uri, architecture, reason, address=f"open_clip:{architecture}")
    if not tag and source.kind == "hub":
        known = weights.some([f"{architecture}/{name}" for name in tags])
        raise _unavailable(uri, architecture, f"no pretrained tag is named; known are {known}")
    return architecture, tag


# -- building -------------------------------------------------------------------------------------------------------


def _needs_quickgelu(architecture: str, tag: str) -> bool:
    """Whether the weights of a tag were trained with QuickGELU."""
    import open_clip

    return bool(tag and open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False))


@contextlib.contextmanager
def _without_log_line(start: str) -> Iterator[None]:
    """Keep messages of the root logger that begin like this to ourselves."""

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(start)

    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


def _pretrained(uri: eqv.URI, architecture: str, tag: str) -> Any:
    import open_clip

    try:
        with weights.hub_access():
            return open_clip.create_model(
                architecture,
                pretrained=tag or None,
                precision="fp32",
                force_quick_gelu=_needs_quickgelu(architecture, tag),
                require_pretrained=True,  # without it, missing weights of hf-hub: are random ones and a log message
                weights_only=True,
            )
    except eqv.EngineError:
        raise
    except Exception as error:  # hub, network, cache, unpickler: each has errors of its own
        if "pip install" in str(error):
            raise _lacks_package(uri, error) from error
        raise _unavailable(uri, architecture, error) from error


def _drawn(uri: eqv.URI, architecture: str, tag: str) -> Any:
    """The model with drawn weights, otherwise as the tag would have it."""
    import open_clip

    cfg = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    # Of a model on the hub, configuration and tokenizer are fetched even if its weights are not wanted.
    access = weights.hub_access() if architecture.startswith(_SOURCES) else contextlib.nullcontext()
    try:
        with access, _without_log_line("No pretrained weights loaded"):  # none were asked for
            return open_clip.create_model(
                architecture,
                load_weights=False,
                precision="fp32",
                pretrained_image=False,
                pretrained_text=False,
                force_quick_gelu=_needs_quickgelu(architecture, tag),
                force_preprocess_cfg={key: cfg[key] for key in _PREPROCESSING if cfg.get(key) is not None},
            )
    except eqv.EngineError:
        raise
    except Exception as error:
        if "pip install" in str(error):
            raise _lacks_package(uri, error) from error
        if architecture.startswith(_SOURCES):
            raise _unavailable(uri, architecture, error) from error
        raise eqv.ModelError(
            f"open_clip cannot build {architecture!r}",
            got=weights.first_line(error),
            hint="try open_clip.create_model in Python, and install what it asks for",
        ) from error


def _unavailable(uri: eqv.URI, architecture: str, reason: object, address: str | None = None) -> eqv.WeightsError:
    local = None
    if architecture.startswith("local-dir:"):
        return weights.folder_unreadable(
            uri,
            reason,
            expected="a folder with open_clip_config.json and open_clip_model.safetensors that belong together",
            hint="copy it again, or name what is in it: open_clip:ARCHITECTURE?weights=/file.safetensors",
        )
    if architecture.startswith(_SOURCES):
        address = "open_clip:ARCHITECTURE"
        local = f"{address}?weights=/file.safetensors, or open_clip:local-dir:/folder with its open_clip_config.json"
    return weights.cannot_be_had(uri, reason, cache=weights.hub_cache(), address=address, local=local)


def _lacks_package(uri: eqv.URI, error: Exception) -> eqv.ModelError:
    return eqv.ModelError(
        f"{uri.text!r} needs a package that is not installed", got=weights.first_line(error), hint="install it"
    )


def _fill(clip: nn.Module, source: weights.Source) -> list[str]:
    """Load a local checkpoint, as it is or as open_clip converts it. Returns the dtypes that it held."""
    assert source.path is not None
    state = read_checkpoint(source.path)
    if weights.misfit(clip, state) is not None:
        # A file of another kind makes the conversion fail in any way; `fit` then says what is wrong with the file.
        with contextlib.suppress(Exception):
            converted = _converted(clip, state)
            if weights.misfit(clip, converted) is None:
                state = converted
    return weights.fit(clip, state, source.path)


def _converted(clip: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What open_clip.load_checkpoint does to a state dict, which can only be had there together with its reader."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    converted = dict(convert_state_dict(cast(Any, clip), dict(state)))
    if "positional_embedding" in converted and not hasattr(clip, "positional_embedding"):
        converted = convert_to_custom_text_state_dict(converted)
    own = clip.state_dict()
    for key in ("logit_scale", "logit_bias"):  # a scalar in some versions, a vector of one in others
        if key in converted and key in own and converted[key].numel() == 1:
            converted[key] = converted[key].reshape(own[key].shape)
    for key in ("text.transformer.embeddings.position_ids", "input_resolution", "context_length", "vocab_size"):
        if key not in own:
            converted.pop(key, None)
    return converted


@contextlib.contextmanager
def _root_logger_untouched() -> Iterator[None]:
    """open_clip logs through logging.info(), which installs a handler on a root logger that has none."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


# -- text and preprocessing -----------------------------------------------------------------------------------------


class _TextTower:
    """Text embeddings [P, n] in float32, not normalized, on the device of the image tower.

    The tokenizer is made at the first call: some are downloaded.
    """

    def __init__(self, uri: eqv.URI, text: nn.Module, visual: nn.Module, architecture: str) -> None:
        self._uri = uri
        self._text = text
        self._visual = visual
        self._architecture = architecture
        self._tokenizer: Any = None

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        import torch

        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise eqv.UsageError("text prompts must be strings", expected="one or more", got=prompts[:3])
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        device = next(self._visual.parameters()).device
        encode_text = cast(Any, self._text.to(device)).encode_text
        with torch.no_grad():
            embeddings = encode_text(self._tokenizer(prompts).to(device), normalize=False)
        return cast("torch.Tensor", embeddings.float())

    def _make_tokenizer(self) -> Any:
        import open_clip

        try:
            with _root_logger_untouched(), weights.hub_access(), weights.foreign_code_refused(self._uri):
                return open_clip.get_tokenizer(self._architecture)
        except eqv.EngineError:
            raise
        except Exception as error:
            raise eqv.ModelError(
                f"the tokenizer of {self._uri.text!r} cannot be had",
                expected=f"its files in the cache {weights.hub_cache()}, or a reachable hub",
                got=weights.without_advice(error),
                hint="install transformers, and make the hub reachable or fill the cache beforehand",
            ) from error


def _preprocessing(uri: eqv.URI, cfg: Mapping[str, Any]) -> eqv.Preprocessing:
    """open_clip's evaluation transform, declared.

    Raises:
        ModelError: If it crops or pads to a shape that is not square, or pads with a color other than black.
    """
    size = cfg["size"]
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    resize: Any = cfg.get("resize_mode") or "shortest"
    unsupported = None
    if resize != "squash" and height != width:
        unsupported = f"resize mode {resize} to {height} x {width}, which is not square"
    elif resize == "longest" and cfg.get("fill_color"):
        unsupported = f"padding with color {cfg['fill_color']}"
    if unsupported is not None:
        raise eqv.ModelError(
            f"the preprocessing of {uri.text!r} cannot be declared",
            expected="a square input padded with black, or resize mode squash",
            got=unsupported,
            hint="wrap the model in a backend of your own",
        )
    mean, std = (value if isinstance(value, list | tuple) else (value,) * 3 for value in (cfg["mean"], cfg["std"]))
    return eqv.Preprocessing(
        size=(int(height), int(width)),
        resize=resize,
        # open_clip's image_transform knows two filters and takes everything else, "random" too, for bicubic.
        interpolation="bilinear" if cfg.get("interpolation") == "bilinear" else "bicubic",
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
    )
