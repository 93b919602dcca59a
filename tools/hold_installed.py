"""Print a pip constraint `name==version` for every installed package: `python tools/hold_installed.py`.

With it, pip adds what is missing and replaces nothing. setuptools is left free: building needs a recent one.
"""

import re
from importlib.metadata import distributions

FREE = {"setuptools", "equivengine"}
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(r"[0-9][A-Za-z0-9.!+]*")


def held() -> list[str]:
    """Return one line for each package; the first on sys.path is the one that Python imports."""
    found: dict[str, str] = {}
    for distribution in distributions():
        name, version = distribution.metadata["Name"] or "", distribution.version or ""
        # pip refuses a whole file for one name or version that it cannot read.
        if NAME.fullmatch(name) and VERSION.fullmatch(version):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name not in FREE]


if __name__ == "__main__":
    print("\n".join(held()))
