"""How far an SVD may be trusted: `python bench/honesty.py`.

Every estimator runs on every map of `equivengine.testing.known_maps`, through the products of a `JacobianOperator`, and
is held against the singular values of the float64 Jacobian by LAPACK. Counted are, over maps, seeds and ranks:

- lower: values that are at least `lower`; residual: values with some singular value within `residual`. Of all runs.
- error: values within `error`, of runs with status ok.
- ok: share of runs with status ok among the maps that a Krylov space can solve, within 2 min(n, m) products.
- sharpness: `error` over the true error, where that exceeds 10 eps s_1 with the eps of float32, in any precision:
  nobody who asked for three digits needs to know how far the eighth is off.
- sharpness beyond: the same where the true error is smaller, but exceeds 10 eps s_1 of the final precision: float64.
- misidentified: runs whose subspace counts as identified and is further from the true one than `subspace_error`, by the
  sine of the largest principal angle.
- products: over those of the exact way, median.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import torch
from torch import Tensor

import equivengine as eqv
from equivengine.testing import KnownMap, known_maps

HERE = Path(__file__).parent
#: Precision of the operator, and what `svd` is asked for.
ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "exact fp32": ("fp32", {"method": "exact"}),
    "randomized fp32": ("fp32", {"method": "randomized"}),
    "randomized fp64": ("fp64", {"method": "randomized"}),
    "randomized mixed": ("fp32", {"method": "randomized", "precision": "mixed"}),
}
#: What is promised of every estimator over all ranks: name, limit, and whether more is better.
BARS = {
    "lower": (1.0, True),
    "residual": (1.0, True),
    "error": (0.99, True),
    "ok": (0.8, True),
    "sharpness_median": (30.0, False),
    "sharpness_p90": (1000.0, False),
}


@dataclass
class Run:
    """One SVD against the truth.

    Attributes:
        labels: estimator, map, seed, rank.
        solvable: Whether the map is.
        flat: Whether no leading subspace of the map exists.
        status: Of the result.
        subspace: Of the result.
        products: Over those of the exact way.
        lower: For each value whether it holds.
        residual: The same.
        over: True error over `error`, for each value.
        sharp: `error` over the true error, for values that are off by more than roundoff of float32.
        beyond: The same, for values that are off by less than that but more than roundoff of the final precision.
        sine: Of the largest principal angle between the true and the found right singular subspace.
        subspace_error: Of the result.
    """

    labels: dict[str, Any]
    solvable: bool
    flat: bool
    status: str
    subspace: str
    products: float
    lower: Tensor
    residual: Tensor
    over: Tensor
    sharp: Tensor
    beyond: Tensor
    sine: float
    subspace_error: float

    @property
    def misidentified(self) -> bool:
        """Whether the subspace is claimed to be known better than it is."""
        return self.subspace == "identified" and self.sine > self.subspace_error


def sine(rows: Tensor, others: Tensor) -> float:
    """Of the largest principal angle between the spans of orthonormal rows [r, m], computed without cancellation."""
    Q = torch.linalg.qr(rows.to(torch.float64).mT).Q.mT
    return float(torch.linalg.matrix_norm(Q - (Q @ others.mT) @ others, 2))


def compare(known: KnownMap, estimator: str, seed: int, rank: int, device: torch.device) -> Run:
    """Run an estimator once and hold it against the truth."""
    precision, options = ESTIMATORS[estimator]
    operator = eqv.JacobianOperator(known.f.to(device), known.x.to(device), precision=precision)
    found = eqv.linalg.svd(operator, rank=rank, seed=seed, **options)
    known.f.to("cpu")
    truth = known.singular_values
    S, lower, residual, error = (t.cpu() for t in (found.S, found.lower, found.residual, found.error))
    off = (S - truth[:rank]).abs()
    coarse, fine = (10 * torch.finfo(dtype).eps * truth[0] for dtype in (torch.float32, operator.dtype))
    assert found.Vh is not None
    return Run(
        labels={"estimator": estimator, "map": known.name, "seed": seed, "rank": rank},
        solvable=known.solvable,
        flat=known.name.startswith("flat"),
        status=found.status,
        subspace=found.subspace,
        products=found.products / min(operator.shape),
        lower=lower <= truth[:rank],
        residual=(S[:, None] - truth).abs().amin(1) <= residual,
        over=off / error,
        sharp=(error / off)[off > coarse],
        beyond=(error / off)[(off <= coarse) & (off > fine)],
        sine=sine(found.Vh.cpu(), known.right_vectors[:rank]),
        subspace_error=found.subspace_error,
    )


def runs(
    estimators: Iterable[str], seeds: int, ranks: Iterable[int], device: torch.device, n: int = 192, m: int = 640
) -> Iterator[Run]:
    """All of them; the seed draws the maps and the random start."""
    for seed in range(seeds):
        for known in known_maps(n, m, seed):
            for rank in ranks:
                for estimator in estimators:
                    yield compare(known, estimator, seed, rank, device)


def summary(found: list[Run]) -> dict[str, Any]:
    """Coverage, sharpness and cost of some runs."""
    ok = [run for run in found if run.status == "ok"]
    solvable = [run for run in found if run.solvable]
    over = _joined(run.over for run in ok)
    sharp, beyond = _joined(run.sharp for run in ok), _joined(run.beyond for run in ok)
    return {
        "runs": len(found),
        "values_ok": len(over),
        "lower": _share(_joined(run.lower for run in found)),
        "residual": _share(_joined(run.residual for run in found)),
        "error": _share(over <= 1),
        "worst_over_error": float(over.max()) if len(over) else None,
        "ok": _share(torch.tensor([run.status == "ok" for run in solvable])),
        "values_off": len(sharp),
        "sharpness_median": _quantile(sharp, 0.5),
        "sharpness_p90": _quantile(sharp, 0.9),
        "sharpness_beyond_median": _quantile(beyond, 0.5),
        "identified": _share(torch.tensor([run.subspace == "identified" for run in found])),
        "flat_identified": sum(run.subspace == "identified" for run in found if run.flat),
        "misidentified": sum(run.misidentified for run in found),
        "flat_misidentified": sum(run.misidentified for run in found if run.flat),
        "products": _quantile(torch.tensor([run.products for run in found]), 0.5),
    }


def _joined(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0), *parts])


def _share(held: Tensor) -> float | None:
    return float(held.double().mean()) if len(held) else None


def _quantile(values: Tensor, q: float) -> float | None:
    return float(values.double().quantile(q)) if len(values) else None


def bars(row: dict[str, Any]) -> dict[str, bool]:
    """Which promises a summary keeps; those that it says nothing about left out."""
    known = {name: limit for name, limit in BARS.items() if row[name] is not None}
    return {name: row[name] >= at if more else row[name] <= at for name, (at, more) in known.items()}


def failures(found: Iterable[Run]) -> list[dict[str, Any]]:
    """Every run that broke a claim or did not converge, and by how much."""
    rows = []
    for run in found:
        what: dict[str, Any] = {}
        if not run.lower.all():
            what["lower"] = int((~run.lower).sum())
        if not run.residual.all():
            what["residual"] = int((~run.residual).sum())
        if run.status != "ok":
            what["status"] = run.status
        elif bool((run.over > 1).any()):
            what |= {"error": int((run.over > 1).sum()), "over": round(float(run.over.max()), 2)}
        if run.misidentified:
            what |= {"sine": run.sine, "subspace_error": run.subspace_error}
        if what:
            rows.append({**run.labels, "solvable": run.solvable, **what})
    return rows


def _line(row: dict[str, Any]) -> str:
    def cell(name: str, form: str) -> str:
        return format(row[name], form) if row[name] is not None else "-"

    return (
        f"{row['estimator']:17}{row['rank']!s:>5}{row['values_ok']:7}{cell('lower', '.2%'):>9}"
        f"{cell('residual', '.2%'):>9}{cell('error', '.2%'):>9}{cell('ok', '.0%'):>7}"
        f"{cell('sharpness_median', '.1f'):>8}{cell('sharpness_p90', '.0f'):>7}"
        f"{row['misidentified']:6}{row['flat_misidentified']:6}{cell('products', '.2f'):>10}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many draws of maps and starts (default %(default)s)")
    parser.add_argument("--rank", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--only", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON file")
    options = parser.parse_args()

    device = torch.device(options.device)
    document = machine.document(
        "honesty", device, seeds=options.seeds, n=192, m=640, bars={name: at for name, (at, _) in BARS.items()}
    )
    found = list(runs(options.only, options.seeds, options.rank, device))
    print(
        f"{'':17}{'rank':>5}{'values':>7}{'lower':>9}{'residual':>9}{'error':>9}{'ok':>7}{'sharp':>8}{'p90':>7}"
        f"{'misid':>6}{'flat':>6}{'products':>10}"
    )
    broken = []
    for estimator in options.only:
        mine = [run for run in found if run.labels["estimator"] == estimator]
        for rank in [*options.rank, "all"]:
            some = [run for run in mine if rank in ("all", run.labels["rank"])]
            row = {"estimator": estimator, "rank": rank, **summary(some)}
            document["results"].append(row)
            print(_line(row))
        broken += [f"{estimator}: {name}" for name, kept in bars(row).items() if not kept]
    document["failures"] = failures(found)
    print(machine.write(options.out, machine.file_name("honesty", document["name"]), document))
    if broken:
        sys.exit("not as promised: " + "; ".join(broken))


if __name__ == "__main__":
    main()
