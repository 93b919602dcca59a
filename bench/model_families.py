"""Every family of encoders through a probe: `python bench/model_families.py [--only NAME ...] [--rounds N]`.

For each one, with random weights:

- ldlc: `equivengine probe --plugin ldlc` on one sample, in a process of its own: exit code, seconds, failed checks, and
  how many times less null directions change the embedding than random ones
- coverage: by which rule the derivative of each operation is evaluated (`JacobianOperator.coverage`)
- over_forward: a direction of a JVP and of a VJP, 16 together, over one forward pass per sample of a batch of 16;
  forward pass and products are timed in turn, and ratios are taken within a round

Checkpoints of transformers are written by transformers: a configuration and an image processor or a tokenizer. A
family that fails is recorded with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clock
import machine
import torch

import equivengine as eqv

HERE = Path(__file__).parent
K = 16
#: As few directions as every estimate of ldlc takes.
FEW = {"directions": 8, "null_directions": 4, "singular_directions": 4, "gradient_steps": 2}
WORDS = ("the", "a", "of", "on", "was", "in", "and", "cat", "dog", "train", "song", "wall", "bridge", "rain", "line")
VISION = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}


@dataclass(frozen=True)
class Family:
    """A model address, where ``{folder}`` stands for what ``write`` wrote, and the samples that go with it."""

    name: str
    address: str
    samples: str = "samples"
    write: Callable[[Path], None] | None = None


def vision(kind: str, processor: str = "ViTImageProcessor", **settings: Any) -> Callable[[Path], None]:
    """Writes the configuration of a vision model of transformers, and an image processor."""

    def write(folder: Path) -> None:
        import transformers

        model_class = getattr(transformers, f"{kind}Model")
        config = model_class.config_class(**(settings or VISION))
        config.architectures = [model_class.__name__]
        config.save_pretrained(folder)
        getattr(transformers, processor)(size={"height": 224, "width": 224}, do_center_crop=False).save_pretrained(
            folder
        )

    return write


def text(folder: Path) -> None:
    """Writes the configuration of a BERT with 4 layers, 256 wide, and a tokenizer of letters and a few words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz.", *WORDS]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    config = transformers.BertConfig(**sizes, vocab_size=len(vocabulary))
    config.architectures = ["BertModel"]
    config.save_pretrained(folder)


RANDOM = "?weights=random&seed=0"
IN_FOLDER = f"hf:{{folder}}{RANDOM}"
FAMILIES = (
    Family("timm ViT", f"timm:vit_tiny_patch16_224{RANDOM}"),
    Family("timm DeiT", f"timm:deit_tiny_patch16_224{RANDOM}"),
    Family("timm BEiT", f"timm:beit_base_patch16_224{RANDOM}"),
    Family("timm EVA-02", f"timm:eva02_tiny_patch14_224{RANDOM}"),
    Family("timm Swin", f"timm:swin_tiny_patch4_window7_224{RANDOM}"),
    Family("timm ConvNeXt", f"timm:convnext_atto{RANDOM}"),
    Family("timm ResNet", f"timm:resnet18{RANDOM}"),
    Family("open_clip ViT-B-32", f"open_clip:ViT-B-32{RANDOM}"),
    Family("open_clip ViT-B-32-quickgelu", f"open_clip:ViT-B-32-quickgelu{RANDOM}"),
    Family("hf BEiT", IN_FOLDER, write=vision("Beit", "BeitImageProcessor", **VISION, use_relative_position_bias=True)),
    Family("hf DeiT", IN_FOLDER, write=vision("DeiT")),
    Family("hf Swin", IN_FOLDER, write=vision("Swin", embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24])),
    Family("hf ViTMAE", IN_FOLDER, write=vision("ViTMAE")),
    Family("hf ViTMSN", IN_FOLDER, write=vision("ViTMSN")),
    Family("imagebind, scaled down", f"imagebind:tiny{RANDOM}"),
    Family("hf_text BERT", f"hf_text:{{folder}}{RANDOM}&tokens=16", samples="sentences", write=text),
)


def measure(family: Family, device: torch.device, rounds: int, budget: float) -> dict[str, Any]:
    """Everything about one family."""
    row: dict[str, Any] = {"family": family.name, "model": family.address, "samples": family.samples}
    row |= {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "load_average_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        try:
            if family.write is not None:
                family.write(folder)
            uri = family.address.format(folder=folder)
            row |= derivative(uri, family.samples, device, rounds, budget)
            row["ldlc"] = probed(uri, family.samples, device, Path(temporary) / "run")
        except Exception as error:
            found = str(error).strip() or "no message"
            row["error"] = f"{type(error).__name__}: {found}"[:1500].replace(str(folder), "FOLDER")
    return row


def derivative(uri: str, samples: str, device: torch.device, rounds: int, budget: float) -> dict[str, Any]:
    """How the derivative is evaluated, and what it costs in forward passes."""
    encoder = eqv.load_encoder(uri, device=str(device))
    x = encoder.preprocess(eqv.load_images(samples)[0].load())
    operator = eqv.JacobianOperator(encoder, x)
    generator = torch.Generator().manual_seed(1)
    V = torch.randn(K, *x.shape, generator=generator).to(device)
    U = torch.randn(K, *operator.value.shape, generator=generator).to(device)
    batch = x.expand(K, *x.shape).contiguous()

    def forward() -> object:
        with torch.no_grad():
            return encoder(batch)

    calls: dict[str, Callable[[], object]] = {
        "forward": forward,
        "jvp": lambda: operator.jvp(V),
        "vjp": lambda: operator.vjp(U),
    }
    left = (operator.jvp(V).double() * U.double()).sum()
    right = (V.double() * operator.vjp(U).double()).sum()
    often = {name: clock.warm(call, device, budget) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(clock.seconds(call, device, often[name]))
    return {
        "n": operator.shape[0],
        "m": operator.shape[1],
        "parameters": encoder.spec.parameters,
        "attention": encoder.spec.details.get("attention"),
        "coverage": operator.coverage(),
        "forward_seconds": statistics.median(times["forward"]) / K,
        "over_forward": {name: clock.ratios(times[name], times["forward"]) for name in ("jvp", "vjp")},
        "adjoint_error": float((left - right).abs() / right.abs()),
    }


def probed(uri: str, samples: str, device: torch.device, out: Path) -> dict[str, Any]:
    """`equivengine probe --plugin ldlc`, as typed."""
    command = [sys.executable, "-m", "equivengine", "probe", "--plugin", "ldlc", "--model", uri, "--images", samples]
    command += ["--limit", "1", "--device", str(device), "--out", str(out), "--progress", "none", "--json"]
    for name, value in FEW.items():
        command += ["--set", f"{name}={value}"]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    found: dict[str, Any] = {"exit_code": done.returncode, "seconds": time.perf_counter() - begin, "set": FEW}
    if done.returncode:
        found["error"] = done.stderr.strip()[-600:].replace(uri, "MODEL")
        return found
    json.loads(done.stdout)  # one document, as promised
    ((_, result),) = eqv.open_run(out).results("ldlc")
    found["failed_checks"] = [check.description for check in result.checks.values() if not check.passed]
    found["random_over_null"] = result.summary["random_over_null"].value
    return found


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    if "error" in row:
        print(f"{row['family']:30} {row['error'].splitlines()[0][:90]}", flush=True)
        return
    over, probe = row["over_forward"], row["ldlc"]
    torch_rules = sum(rules.get("torch", 0) for rules in row["coverage"].values())
    print(
        f"{row['family']:30} n={row['n']:<5} JVP {over['jvp']['median']:.2f}, VJP {over['vjp']['median']:.2f} forward "
        f"passes, {torch_rules} operations by PyTorch's rule; ldlc exit {probe['exit_code']}, "
        f"{probe['seconds']:.0f} s, {len(probe.get('failed_checks', ()))} checks failed",
        flush=True,
    )


def kept(path: Path, document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows of a former file by family. One that was measured in another way is refused."""
    former = json.loads(path.read_text(encoding="utf-8")) if path.exists() else document
    for key in ("benchmark", "device", "name", "threads", "rounds", "K"):
        if former[key] != document[key]:
            sys.exit(f"{path} was measured with {key} {former[key]!r}, and here it is {document[key]!r}")
    return {row["family"]: row for row in former["results"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [family.name for family in FAMILIES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--keep", action="store_true", help="keep the rows of other families that the file has")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default %(default)s)")
    parser.add_argument("--budget", type=float, default=0.5, help="least seconds of one timing (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    device = torch.device(options.device)
    document = machine.document("model_families", device, rounds=options.rounds, K=K)
    file = machine.file_name("model_families", document["name"])
    wanted = [family for family in FAMILIES if not options.only or family.name in options.only]
    rows = kept(options.out / file, document) if options.keep else {}
    for family in wanted:
        rows[family.name] = measure(family, device, options.rounds, options.budget)
        show(rows[family.name])
        document["results"] = [rows[name] for name in names if name in rows]
        path = machine.write(options.out, file, document)  # after each: what is measured stays measured
    print(path)


if __name__ == "__main__":
    main()
