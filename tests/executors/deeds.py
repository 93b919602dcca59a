"""Work for executors that needs no plugin and no torch: what a unit does to its process stands in its probe's name."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import equivengine as eqv


def unit(deed: str, number: int = 0, model: str = "m") -> eqv.Unit:
    """A unit that does something to its process, told from others by a number."""
    from equivengine.contracts.unit import SampleRef

    sample = SampleRef("digits", number, f"{deed}-{number}", f"{number:064x}")
    return eqv.Unit(deed, "1", "{}", model, "0" * 64, (sample,), 0, "fp32")


def batches(*deeds: str) -> list[tuple[eqv.Unit, ...]]:
    """One batch of one unit for each deed."""
    return [(unit(deed, number),) for number, deed in enumerate(deeds)]


@dataclass(frozen=True)
class Deeds:
    """An `equivengine.Work` that publishes by writing files, and keeps a log of what was begun, where.

    Attributes:
        directory: Where results go.
        deeds: Deed of each unit id.
        refusal: What `check` raises.
    """

    directory: str
    deeds: tuple[tuple[str, str], ...]
    refusal: eqv.EngineError | None = None
    device: str = "cpu"
    working_directory: str = field(default_factory=os.getcwd)

    def check(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def __call__(self, ids):
        deed = dict(self.deeds)[ids[0]]
        threads = os.environ.get("OMP_NUM_THREADS", "")
        entry = {"ids": ids, "deed": deed, "pid": os.getpid(), "threads": threads, "pins": pins()}
        note(self.directory, entry)
        if all((Path(self.directory) / one).exists() for one in ids):
            return tuple(eqv.UnitOutcome(one, "skipped") for one in ids)
        name, _, argument = deed.partition(" ")
        if name == "wait":
            time.sleep(float(argument))
        elif name == "signal":
            os.kill(os.getpid(), signal.Signals[argument])
            time.sleep(60)
        elif name == "exit":
            os._exit(int(argument))
        elif name in ("once", "linger"):  # kills the first process that runs it, or keeps it for so many seconds
            first = Path(self.directory) / f"first-{ids[0]}"
            if not first.exists():
                first.touch()
                time.sleep(float(argument or 0))
                if name == "once":
                    os.kill(os.getpid(), signal.SIGKILL)
        elif name == "crash":
            import ctypes

            ctypes.string_at(0)
        elif name == "full":
            raise eqv.StoreError("there is no room to write", hint="free some space")
        elif name == "interrupt":
            raise KeyboardInterrupt
        elif name == "torch":
            note(self.directory, {"torch": torch_threads()})
        elif name == "print":
            print("hello from a unit")
        for one in ids:
            (Path(self.directory) / one).touch()
        return tuple(eqv.UnitOutcome(one, "published", argument) for one in ids)

    def compute(self, batch):
        outcomes = self(tuple(unit.unit_id for unit in batch))
        return lambda: outcomes

    def record_failure(self, batch, message, error_type):
        ids = [one if isinstance(one, str) else one.unit_id for one in batch]
        note(self.directory, {"failed": ids, "message": message, "error_type": error_type})
        return tuple(eqv.UnitOutcome(one, "failed", message, error_type=error_type) for one in ids)


def pins() -> dict[str, str]:
    """What this process was started with, whatever has been set since: libraries read it when they are loaded."""
    started = Path("/proc/self/environ").read_bytes().decode().split("\0")
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: value for name, _, value in (entry.partition("=") for entry in started) if name in names}


def torch_threads() -> dict[str, int]:
    """How many threads torch says that it takes, and how many it then starts beside the one that asks."""
    import torch

    before = len(list(Path("/proc/self/task").iterdir()))
    numbers = torch.rand(512, 512)
    for _ in range(3):
        torch.nn.functional.gelu(numbers @ numbers).sum()
    return {"says": torch.get_num_threads(), "started": len(list(Path("/proc/self/task").iterdir())) - before}


def note(directory: str, entry: dict) -> None:
    with open(Path(directory) / "log", "a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")


def log(directory: str | Path) -> list[dict]:
    """What was noted, in order."""
    path = Path(directory) / "log"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
