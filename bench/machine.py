"""What a measurement must say about the machine that it was made on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Processor, memory, load, and all that `equivengine doctor --json` knows; without its list of plugins."""
    done = subprocess.run([sys.executable, "-m", "equivengine", "doctor", "--json"], capture_output=True, text=True)
    doctor = json.loads(done.stdout) if done.stdout.strip() else {"problems": [done.stderr.strip()]}
    doctor.pop("plugins", None)
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average_before": os.getloadavg()[0],
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("EQUIVENGINE_", "OMP_", "MKL_", "KMP_", "CUDA_VISIBLE"))
        },
        "doctor": doctor,
    }


def document(benchmark: str, device: Any, **more: Any) -> dict[str, Any]:
    """The frame of a result: which device, under what circumstances, and an empty list of results."""
    import torch

    found = facts()
    return {
        "benchmark": benchmark,
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else found["cpu"],
        "threads": torch.get_num_threads(),
        **more,
        "results": [],
        "machine": found,
    }


def cpu_name() -> str:
    """Name of the processor, with family and model where the name alone is vague."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or os.uname().machine
    numbers = [fields[key] for key in ("cpu family", "model") if fields.get(key)]
    return f"{name} ({'/'.join(numbers)})" if numbers else name


def file_name(topic: str, *parts: str) -> str:
    """`TOPIC-PART-PART.json`, lower case, for example `main_job-amd-epyc-25-17.json`."""
    text = "-".join([topic, *parts])
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-") + ".json"


def write(folder: Path, name: str, document: dict[str, Any]) -> Path:
    """Write a result as JSON and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
