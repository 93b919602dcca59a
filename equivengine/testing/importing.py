"""What importing a module costs, measured in a process of its own.

That process runs ``python -m equivengine.testing.importing MODULE``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
import time
from typing import Any

from equivengine.testing.offline import offline

#: Libraries that take long to import, and that a plugin must import within functions.
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "open_clip",
    "tensorflow",
    "jax",
    "matplotlib",
    "scipy",
    "sklearn",
    "pandas",
    "cv2",
)

#: Seconds after which an import counts as hanging.
LIMIT = 60.0


@functools.cache
def import_facts(module: str) -> dict[str, Any]:
    """Import a module in a fresh process, with the network switched off.

    Returns:
        ``heavy`` (names of heavy libraries that came with it), ``seconds``, ``asked`` (who reached for the network) and
        ``error`` ("" if there is none).
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-m", "equivengine.testing.importing", module]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"heavy": [], "seconds": LIMIT, "asked": [], "error": f"it did not finish within {LIMIT:.0f} s"}
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {"heavy": [], "seconds": 0.0, "asked": [], "error": f"exit code {done.returncode} {last}".strip()}


def _main() -> None:
    error = ""
    start = time.perf_counter()
    with offline() as asked:
        try:
            importlib.import_module(sys.argv[1])
        except BaseException as problem:  # the module may call sys.exit
            error = f"{type(problem).__name__}: {problem}"
    seconds = time.perf_counter() - start
    heavy = [name for name in HEAVY if name in sys.modules]
    print()
    print(json.dumps({"heavy": heavy, "seconds": seconds, "asked": asked, "error": error}))


if __name__ == "__main__":
    _main()
