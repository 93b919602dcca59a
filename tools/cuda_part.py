"""Check that the CUDA kernels were compiled where they can be: `python tools/cuda_part.py`.

Where an nvcc of torch's CUDA major release is present, an extension without its CUDA part is an error, unless
EQUIVENGINE_CUDA=0 or EQUIVENGINE_NO_EXTENSION=1 asked for it. Reads `equivengine doctor --json`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def doctor() -> dict:
    """Return what `equivengine doctor --json` says."""
    done = subprocess.run([sys.executable, "-m", "equivengine", "doctor", "--json"], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        sys.exit(f"error: `equivengine doctor --json` printed no JSON\n{done.stdout}{done.stderr}")


def nvcc_release() -> str | None:
    """Return the release of the nvcc that a build would find ("13.0"), or None."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    homes = [Path(named)] if named else [Path("/usr/local/cuda")]
    found = [str(home / "bin" / "nvcc") for home in homes if (home / "bin" / "nvcc").is_file()]
    if not named and (on_path := shutil.which("nvcc")):
        found.append(on_path)
    for nvcc in found:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        if release := re.search(r"release (\d+\.\d+)", text):
            return release.group(1)
    return None


def main() -> int:
    """Print one line and return the exit status."""
    facts = doctor()
    extension, torch_cuda, nvcc = facts["extension"], facts.get("cuda"), nvcc_release()
    built = extension["facts"].get("cuda")
    if built:
        print(
            f"CUDA part: compiled by nvcc {built} for compute capability {', '.join(extension['facts']['cuda_arch'])}"
        )
        return 0
    if os.environ.get("EQUIVENGINE_CUDA") == "0" or os.environ.get("EQUIVENGINE_NO_EXTENSION") == "1":
        print("CUDA part: left out, as the environment asks")
        return 0
    if torch_cuda is None:
        print("CUDA part: not possible, this torch is built without CUDA")
        return 0
    if nvcc is None or nvcc.partition(".")[0] != torch_cuda.partition(".")[0]:
        print(f"CUDA part: not possible, torch has CUDA {torch_cuda} and nvcc is {nvcc or 'missing'}")
        return 0
    print(f"CUDA part: MISSING, though torch has CUDA {torch_cuda} and nvcc is {nvcc}: {extension['reason']}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
