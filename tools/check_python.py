"""Say why an interpreter cannot run equivengine: `python tools/check_python.py [--torch]`. Works in any Python 3."""

import importlib.util
import sys

NEEDED = (3, 11)
TORCH = (2, 11)


def complaint(needs_torch):
    """Return what is wrong with this interpreter, or None."""
    if sys.version_info < NEEDED:
        return "equivengine needs Python >= {}.{}, and {} is {}.{}. Name another: make PYTHON=python3.12".format(
            *NEEDED, sys.executable, *sys.version_info[:2]
        )
    if not needs_torch:
        if importlib.util.find_spec("ensurepip") is None:
            return f"{sys.executable} has no ensurepip, so `python -m venv` fails. On Debian: apt install python3-venv"
        return None
    try:
        import torch
    except ImportError as error:
        return (
            f"VENV=none uses the torch that {sys.executable} has, and there is none ({error}). "
            "Without VENV=none, `make` installs one"
        )
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < TORCH:
        return "equivengine needs torch >= {}.{}, and {} has {}".format(*TORCH, sys.executable, torch.__version__)
    return None


if __name__ == "__main__":
    problem = complaint("--torch" in sys.argv[1:])
    if problem:
        sys.exit("error: " + problem)
