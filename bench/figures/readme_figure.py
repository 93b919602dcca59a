"""Draw docs/images/ldlc.png from a run of the ldlc probe: `python bench/figures/readme_figure.py [RUN]`.

Left: the constants along three kinds of direction. Right: singular values, and the constants along right singular
vectors, which should lie on them. First image of the run; by default `runs/demo`, which `make demo` writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

import equivengine as eqv

ROOT = Path(__file__).parents[2]
KINDS = (
    ("null", "random, within the null space", "#2a6f97"),
    ("random", "random", "#7f7f7f"),
    ("gradient", "matching gradient", "#c1440e"),
)


def values(record: Any, name: str) -> np.ndarray:
    """A stored array of a unit."""
    return np.asarray(record.arrays[name].data)


def draw(record: Any, path: Path) -> None:
    """Draw one unit."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    measured = {kind: values(record, f"{kind}_tangent") for kind, _, _ in KINDS}
    lowest = min(found.min() for found in measured.values())
    highest = max(found.max() for found in measured.values())
    bins = np.geomspace(lowest / 2, highest * 2, 90)
    for kind, label, colour in KINDS:
        found = measured[kind]
        left.hist(found, bins, color=colour, alpha=0.85, label=f"{label} ({len(found)})")
        left.axvline(float(np.median(found)), color=colour, linewidth=0.8, linestyle="--")
    left.set_xscale("log")
    left.set_xlabel("local directional Lipschitz constant, embedding / pixel")
    left.set_ylabel("directions")
    left.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.14, 1.0))

    s, along = values(record, "singular_values"), values(record, "singular_tangent")
    right.semilogy(np.arange(1, len(s) + 1), s, color="#444444", linewidth=1, label="singular value $s_i$")
    right.semilogy(
        np.arange(1, len(along) + 1), along, ".", markersize=4, color="#c1440e", label="constant along $v_i$ (fp32)"
    )
    right.set_xlabel("i")
    right.set_ylim(bottom=1e-7 * s[0])  # what lies below is roundoff
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{record.unit.model}, {record.unit.samples[0].id}", fontsize=9, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> None:
    """Draw the first unit of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default=ROOT / "runs" / "demo", help="run directory (default: runs/demo)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "ldlc.png")
    options = parser.parse_args()
    with eqv.open_run(options.run) as run:
        draw(run.units("ldlc")[0], options.out)
    print(options.out)


if __name__ == "__main__":
    main()
