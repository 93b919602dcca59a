"""Reads a checkpoint in the layout of transformers: its configuration, the class it names, and every tensor of it.

A checkpoint is untrusted input. Code that it brings along is never run: a configuration that names any is refused, not
read without it, since the result would be another model than the one meant. Tensors come from safetensors files;
pickled ones are read by name only (``?weights=FILE``), through torch's ``weights_only`` unpickler.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.checkpoint_file import read_checkpoint
from equivengine_plugins.backends.hf.configuration import (
    access,
    made_config,
    named_class,
    quiet,
    raw_config,
    refuse_changed_weights,
    refuse_code,
    unavailable,
)

#: Options that say what to read; every backend that uses `Checkpoint` allows them.
OPTIONS = (*weights.OPTIONS, "revision")

# Heads that checkpoints on the hub carry beside the class that they name (bert-base-uncased: BertForMaskedLM with a
# pooler and a next-sentence head). They are left out and recorded; any other stranger is an error.
_HEADS = frozenset({"pooler", "cls", "classifier", "lm_head", "head", "vocab_projector", "vocab_transform"})


@dataclass(frozen=True)
class Checkpoint:
    """A configuration and where its tensors are to come from. Nothing large has been read yet.

    Attributes:
        uri: The address that was asked for.
        source: Where it wants its weights from.
        name: Directory, or identifier on the hub.
        local: Whether ``name`` is a directory.
        revision: Branch, tag or commit on the hub.
        config: The configuration, attention implementation chosen.
        model_class: The class of transformers that the configuration names.
    """

    uri: eqv.URI
    source: weights.Source
    name: str
    local: bool
    revision: str | None
    config: Any
    model_class: Any

    @classmethod
    def of(cls, uri: eqv.URI) -> Checkpoint:
        """Read the configuration that an address names.

        Raises:
            UsageError: If the address makes no sense.
            WeightsError: If there is no such directory or model, or it cannot be had.
            ModelError: If the configuration wants its own code to be run, or transformers does not know its kind.
        """
        path = uri.require_path("a directory or an identifier on the hub", f"{uri.scheme}:/folder")
        source = weights.Source.of(uri)
        folder = Path(path).expanduser()
        local = folder.is_dir()
        if not local and (path.startswith(("/", "~", ".")) or folder.exists()):
            raise eqv.WeightsError(
                f"there is no directory {path!r}",
                expected="a directory with config.json and model.safetensors",
                got="a file" if folder.exists() else "nothing",
                hint="name the directory that save_pretrained wrote",
            )
        name, revision = (str(folder), None) if local else (path, uri.options.get("revision"))
        if local and "revision" in uri.options:
            raise eqv.UsageError("a directory has no revision", got=repr(uri.text), hint="leave it out")
        with access(local) as reach:
            raw = raw_config(uri, name, local, {**reach, "revision": revision})
            refuse_code(uri, raw, "config.json")
            refuse_changed_weights(uri, raw, name, local)
            config = made_config(uri, raw)
        model_class = named_class(uri, raw, config)
        # The eager attention of transformers computes its softmax in float32 whatever the model's dtype is, so a
        # float64 copy would be none.
        config._attn_implementation = "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"
        return cls(uri, source, name, local, revision, config, model_class)

    def build(self) -> tuple[Any, dict[str, object]]:
        """The whole model, float32, on the CPU, and what to record of it.

        Raises:
            WeightsError: If the weights cannot be had or do not fit.
            ModelError: If transformers cannot build the model.
        """
        import transformers

        recorded: dict[str, object] = {
            **self.source.describe(),
            "library": f"transformers {transformers.__version__}",
            "architecture": self.model_class.__name__,
            "attention": self.config._attn_implementation,
            "commit": self._commit(),
        }
        with weights.seeded(self.source.seed), quiet():
            if self.source.kind == "random":
                model = self._drawn()
            else:
                model, unused = self._read()
                recorded["left_out_of_checkpoint"] = unused
                recorded["checkpoint_dtype"] = str(self.config.dtype).removeprefix("torch.")
        return model.eval().requires_grad_(False), recorded

    def part(self, what: str, make: Any) -> Any:
        """A tokenizer or an image processor that lies beside the weights, made by ``make(name, **where)``.

        Raises:
            ModelError: If it is missing, broken, or wants its own code to be run.
        """
        try:
            with access(self.local) as reach, quiet():
                return make(self.name, revision=self.revision, trust_remote_code=False, **reach)
        except eqv.EngineError:
            raise
        except Exception as error:  # OSError, ValueError, KeyError, errors of tokenizers: whatever a broken file causes
            raise eqv.ModelError(
                f"the {what} of {self.uri.text!r} cannot be had",
                expected=f"its files beside config.json in {self.name!r}"
                + ("" if self.local else f", in the cache {weights.hub_cache()} or on a reachable hub"),
                got=weights.first_line(error),
                hint=f"save it there with its save_pretrained({self.name!r})" if self.local else None,
            ) from error

    def _commit(self) -> str | None:
        """The commit on the hub that the configuration was read from."""
        from huggingface_hub import constants, try_to_load_from_cache

        if self.local:
            return None
        path = try_to_load_from_cache(
            self.name, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=self.revision or "main"
        )
        return Path(path).parent.name if isinstance(path, str) else None

    def _drawn(self) -> Any:
        try:
            return self.model_class(copy.deepcopy(self.config)).float()
        except Exception as error:
            self._cannot_build(error)

    def _read(self) -> tuple[Any, list[str]]:
        """The model with its weights, and the tensors of the checkpoint that belong to heads it does not have."""
        import torch

        arguments: dict[str, Any] = {
            "config": copy.deepcopy(self.config),
            "dtype": torch.float32,
            "weights_only": True,
            "ignore_mismatched_sizes": True,  # reported below, with everything else that does not fit
            "output_loading_info": True,
        }
        if self.source.path is not None:
            state = read_checkpoint(self.source.path)
            try:
                model, found = self.model_class.from_pretrained(None, state_dict=state, **arguments)
            except Exception as error:
                self._cannot_build(error)
            return model, self._check_fit(model, found, str(self.source.path))
        try:
            with access(self.local) as reach:
                model, found = self.model_class.from_pretrained(
                    self.name, revision=self.revision, use_safetensors=True, **reach, **arguments
                )
        except Exception as error:  # hub, network, cache, a header that lies: each has errors of its own
            self._require_buildable()
            self._cannot_read(error)
        return model, self._check_fit(model, found, self.name)

    def _check_fit(self, model: Any, found: Mapping[str, Any], where: str) -> list[str]:
        prefix = f"{model.base_model_prefix}."
        unexpected = sorted(found["unexpected_keys"])
        heads = [key for key in unexpected if key.removeprefix(prefix).partition(".")[0] in _HEADS]
        reports = {
            "missing": sorted(found["missing_keys"]),
            "unexpected": [key for key in unexpected if key not in heads],
            "wrong shape": [
                f"{key} is {list(came)} instead of {list(own)}" for key, came, own in sorted(found["mismatched_keys"])
            ],
        }
        parts = [f"{len(keys)} {name}: {weights.some(keys, 3)}" for name, keys in reports.items() if keys]
        parts += [weights.first_line(message) for message in list(found.get("error_msgs", ()))[:1]]
        if parts:
            raise eqv.WeightsError(
                f"the weights in {where!r} do not fit the model",
                expected=f"the {len(model.state_dict())} tensors of {type(model).__name__}, and no others",
                got="; ".join(parts),
                hint="check that config.json was saved with these weights",
            )
        return heads

    def _require_buildable(self) -> None:
        """Tell a configuration that makes no sense from weights that cannot be read."""
        import torch

        try:
            with torch.device("meta"):
                self.model_class(copy.deepcopy(self.config))
        except Exception as error:
            self._cannot_build(error)

    def _cannot_build(self, error: Exception) -> NoReturn:
        raise eqv.ModelError(
            f"transformers cannot build {self.model_class.__name__} from the configuration of {self.uri.text!r}",
            got=weights.first_line(error),
            hint="check config.json",
        ) from error

    def _cannot_read(self, error: Exception) -> NoReturn:
        scheme = self.uri.scheme
        if not self.local:
            raise unavailable(self.uri, error) from error
        pickled = sorted(path.name for path in Path(self.name).glob("*.bin"))
        tensors = sorted(path.name for path in Path(self.name).glob("*.safetensors"))
        hint = "copy the files again"
        if not tensors:
            hint = f"ask for random weights in so many words ({scheme}:{self.name}?weights=random&seed=0)"
            if pickled:
                named = f"{scheme}:{self.name}?weights={self.name}/{pickled[0]}"
                hint = f"name the pickled file to have it read as data ({named})"
        raise eqv.WeightsError(
            f"the weights in {self.name!r} cannot be read",
            expected="model.safetensors, or its parts with model.safetensors.index.json",
            got=weights.first_line(error) if tensors else ", ".join(pickled) or "no weights",
            hint=hint,
        ) from error
