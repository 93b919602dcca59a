"""Measure and draw a figure of docs/concepts.md: `python bench/figures/concepts.py NAME`.

`slice` evaluates the encoder around an image; each of the others carries out its run file,
`bench/figures/concepts/NAME.toml`, into `runs/concepts-NAME`, or reads what is there. The numbers that the page quotes
are printed, and the figure is written to `docs/images/concepts-NAME.png`, below the current directory. All of it is a
function of the seed 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import concept_drawings
import concept_slice
from matplotlib.figure import Figure

import equivengine as eqv

#: What the page quotes, by figure: a label, and the value as it is printed.
Numbers = dict[str, str]
HERE = Path(__file__).resolve().parent
DRAWINGS: dict[str, Callable[[list[Any]], tuple[Figure, Numbers]]] = {
    "spectrum": concept_drawings.spectrum,
    "ldlc": concept_drawings.ldlc,
    "match": concept_drawings.match,
    "walk": concept_drawings.walk,
    "path": concept_drawings.path,
}


def drawn(name: str, runs: Path) -> tuple[Figure, Numbers]:
    """Carry out a run file where that has not been done, and draw what is stored.

    Raises:
        RuntimeError: If a unit failed.
    """
    from equivengine.runtime.config import load_toml
    from equivengine.runtime.engine import execute
    from equivengine.runtime.registry import from_environment

    config = load_toml(HERE / "concepts" / f"{name}.toml", {"out": str(runs / f"concepts-{name}")})
    report = execute(config, registry=from_environment())
    if report.outcomes["failed"]:
        raise RuntimeError(f"{report.outcomes['failed']} units of {name}.toml failed; see {report.directory}")
    with eqv.open_run(report.directory) as run:
        return DRAWINGS[name](run.units())


def main() -> None:
    """Measure, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["slice", *DRAWINGS], help="figure")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run goes (default: runs)")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="where the figure goes")
    options = parser.parse_args()
    try:
        figure, numbers = concept_slice.draw() if options.name == "slice" else drawn(options.name, options.runs)
    except (eqv.EngineError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    width = max(map(len, numbers))
    for label, value in numbers.items():
        print(f"{label:{width}}  {value}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"concepts-{options.name}.png"
    # White behind everything, so that the page may be light or dark.
    figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})
    print(path)


if __name__ == "__main__":
    main()
