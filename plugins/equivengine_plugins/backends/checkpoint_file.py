"""Reads a file of weights that nobody vouches for.

Safetensors files are read as they are; pickled ones only through torch's ``weights_only`` unpickler, with no fallback.
What comes back are dense tensors on the CPU that take no more memory than the file holds.
"""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.backends.weights import first_line, some

if TYPE_CHECKING:
    import torch

_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
# Where training scripts put the state dict; an averaged copy is what they evaluate, so it comes first (as in timm).
_ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = ("_orig_mod.", "module.")  # torch.compile, DistributedDataParallel
#: Weights do not compress to a hundredth, and small archives do no harm: what goes beyond both is a bomb.
_LARGEST_RATIO, _HARMLESS_BYTES = 100, 2**28
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
_BEGINNING_BYTES = 2**20
# torch says at length how to load a file without its checks, and somewhere within which part of the file they refused.
_REFUSED = re.compile(r"(?:GLOBAL|class|function) `?[\w.]+`?|Trying to (?:load|call|instantiate|set) .+")


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a local file, on the CPU; unwrapped from what a training script puts around it.

    Raises:
        WeightsError: If the file is absent, of an unknown kind, broken, needs code to be run, unpacks to far more than
            it holds, or holds no state dict of dense tensors.
    """
    _require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return _checked(load_file(path, device="cpu"), path)
        except eqv.EngineError:
            raise
        except Exception as error:  # safetensors raises its own type, OSError, and others for a header that lies
            raise eqv.WeightsError(
                f"{str(path)!r} is no readable safetensors file", got=first_line(error), hint="download it again"
            ) from error
    if suffix not in _PICKLED:
        raise eqv.WeightsError(
            f"{str(path)!r} is of a kind that is not read",
            expected=", ".join((".safetensors", *_PICKLED)),
            got=suffix or "no suffix",
            hint="convert it to safetensors",
        )
    return _checked(_unwrap(_unpickled(path), path), path)


def _require_file(path: Path) -> None:
    hint = "percent-encode '+' as %2B in an address" if " " in str(path) else "check the path"
    try:
        if path.is_file():
            return
        found = "a link that leads to no file" if path.is_symlink() and not path.exists() else "nothing"
        if path.is_dir():
            found, hint = "a directory", "name the file in it"
        elif path.exists():
            found = "no regular file"
    except OSError as error:  # a name that is too long, links in a circle
        found = str(error.strerror)
    raise eqv.WeightsError(
        f"there is no weights file {some([str(path)])!r}",
        expected="a .safetensors file (or .pt, .pth, .bin)",
        got=found,
        hint=hint,
    )


def _unpickled(path: Path) -> object:
    import torch

    mappable = _mappable(path)
    try:
        # timm's training checkpoints keep their argparse.Namespace; unpickling one runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors and archives that are refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        refused = _call_in(path) if found is None else found.group()
        if refused is None:
            raise _unreadable(path, _reason(error)) from error
        raise eqv.WeightsError(
            f"{str(path)!r} is refused: reading it would run code that the file brings along",
            expected="tensors only (torch.load with weights_only=True)",
            got=refused,
            hint="convert it to safetensors where you trust it, and pass that file",
        ) from error
    except Exception as error:
        raise _unreadable(path, _reason(error)) from error


def _call_in(path: Path) -> str | None:
    """What a pickle in another protocol than torch's would call, as far as its beginning says; None of anything else.

    Instructions are listed, and none is carried out.
    """
    with path.open("rb") as file:
        beginning = io.BytesIO(file.read(_BEGINNING_BYTES))
    texts: list[str] = []
    try:
        for instruction, argument, _ in pickletools.genops(beginning):
            if isinstance(argument, str):
                texts.append(argument)
            if instruction.name in _CALLS:
                return f"a pickle that calls {some(['.'.join(texts[-2:]).replace(' ', '.')])}"
    except Exception:  # no pickle, or a longer one
        return None
    return None


def _reason(error: Exception) -> str:
    """What torch complains of, without its advice to switch the checks off."""
    text = str(error)
    if "TorchScript" in text:
        return "a TorchScript archive, which is a program"
    if "legacy .tar format" in text:
        return "torch's oldest format, a tar archive, or no checkpoint at all"
    operand = re.search(r"Unsupported operand \d+", text)
    if operand is not None:
        return f"a pickle of another kind, or none ({operand.group().lower()})"
    return first_line(error)


def _unreadable(path: Path, got: str) -> eqv.WeightsError:
    return eqv.WeightsError(
        f"{str(path)!r} is no readable torch checkpoint",
        got=got,
        hint="download it again, or convert it to safetensors",
    )


def _mappable(path: Path) -> bool:
    """Whether the tensors lie in the file as they are in memory, so that only those that are used need be read.

    The older format of `torch.save` is no archive; a repacked archive may hold its members compressed.

    Raises:
        WeightsError: If the archive says that it unpacks to far more than the file holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
    packed, unpacked = path.stat().st_size, sum(member.file_size for member in members)
    if unpacked > max(_HARMLESS_BYTES, _LARGEST_RATIO * packed):
        raise eqv.WeightsError(
            f"{str(path)!r} is refused: it unpacks to far more than it holds",
            expected=f"at most {_LARGEST_RATIO} times its {packed / 1e6:,.1f} MB",
            got=f"{unpacked / 1e6:,.0f} MB",
            hint="download it again, or convert it to safetensors where you trust it",
        )
    return all(member.compress_type == zipfile.ZIP_STORED for member in members)


def _unwrap(checkpoint: object, path: Path) -> dict[str, Any]:
    state = checkpoint
    if isinstance(checkpoint, Mapping):
        nested = (checkpoint[entry] for entry in _ENTRIES if isinstance(checkpoint.get(entry), Mapping))
        state = next(nested, checkpoint)
    if not isinstance(state, Mapping) or not state:
        raise eqv.WeightsError(
            f"{str(path)!r} holds no state dict",
            expected="names and tensors",
            got=type(state).__name__,
            hint="save it with torch.save(model.state_dict(), ...), or as safetensors",
        )
    cleaned: dict[str, Any] = {}
    for key, value in state.items():
        name = str(key)
        while name.startswith(_WRAPPERS):
            name = name.partition(".")[2]
        if name in cleaned:
            raise eqv.WeightsError(
                f"{str(path)!r} holds two tensors of one name",
                expected=f"names that differ in more than {' and '.join(map(repr, _WRAPPERS))} before them",
                got=some([name]),
                hint="save the state dict of one model",
            )
        cleaned[name] = value
    return cleaned


def _checked(state: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """``state``, all of it dense tensors with as many numbers as their shapes say.

    Raises:
        WeightsError: If there is anything else in it.
    """
    import torch

    strangers = [repr(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise eqv.WeightsError(
            f"{str(path)!r} holds no state dict",
            expected=f"names and tensors, possibly under {', '.join(map(repr, _ENTRIES))}",
            got=f"something else under {some(strangers, 3)}",
        )
    faults = []
    for key, value in state.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            layout = str(value.layout).removeprefix("torch.")
            faults.append(f"{some([key])} holds {value.dtype}, {layout}, on {value.device}")
        elif value.untyped_storage().nbytes() < value.numel() * value.element_size():
            # Strides of zero let a small file declare a tensor that fills the memory.
            faults.append(f"{some([key])} holds fewer numbers than its shape says")
    if faults:
        raise eqv.WeightsError(
            f"{str(path)!r} holds tensors that are not read",
            expected="dense tensors, not quantized, as large as they say",
            got=some(faults, 3),
            hint="save the state dict of the model in float32, as safetensors",
        )
    return dict(state)
