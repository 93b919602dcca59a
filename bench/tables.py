"""Writes the tables of docs/{performance,models,scale,match}.md: `python bench/tables.py [--check]`.

A table stands between `<!-- table: TOPIC -->` and `<!-- end -->` and shows every `TOPIC-*.json` of bench/results/.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matching_tables
import scale_tables

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
MODELS_PAGE = HERE.parent / "docs" / "models.md"
SCALE_PAGE = HERE.parent / "docs" / "scale.md"
MATCH_PAGE = HERE.parent / "docs" / "match.md"
MARKED = re.compile(r"(<!-- table: (?P<topic>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Rows = list[list[str]]


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def number(value: float | None, form: str) -> str:
    """A value, or a dash."""
    return "-" if value is None else format(value, form)


def failure(text: str) -> str:
    """The first line of an error."""
    first = text.splitlines()[0]
    return first if len(first) <= 90 else first[:87] + "..."


def operators(document: dict[str, Any]) -> str:
    """One table for each model and K."""
    found = []
    for case in document["results"]:
        forward, rates = case["forward_seconds"], case["matrix_product"]["gflops"]
        speeds = ", ".join(
            f"{name}: forward pass {1e3 * forward[name]:.3g} ms a sample, matrix product {rate:.0f} GFLOP/s"
            for name, rate in rates.items()
        )
        found.append(f"**{case['model']}, K = {case['K']}, n = {case['n']}** ({speeds})\n")
        head = ["product", "way", "precision", "forward passes", "of its precision", "with preparation"]
        head += ["of matrix product", "error", "MB"]
        found.append(table(head, [_operator(row) for row in case["ways"]]))
    return "\n".join(found)


def _operator(row: dict[str, Any]) -> list[str]:
    start = [row["product"].upper(), row["way"], row["precision"]]
    if "error" in row:
        return [*start, f"fails: {failure(row['error'])}", "", "", "", "", ""]
    over = row["over_forward"]
    return [
        *start,
        f"{over['median']:.2f} ({over['min']:.2f} - {over['max']:.2f})",
        number(row["over_forward_same_precision"], ".2f"),
        f"{row['over_forward_prepared']:.2f}",
        number(row["of_matrix_product"], ".0%"),
        f"{row['relative_error']:.0e}",
        number(row["peak_bytes"] / 1e6, ".0f") if "peak_bytes" in row else "-",
    ]


def memory(document: dict[str, Any]) -> str:
    """Peak memory."""
    head = ["model", "K", "product", "way", "precision", "MB"]
    return table(
        head,
        [
            [
                row["model"],
                str(row["K"]),
                row["product"].upper(),
                row["way"],
                row["precision"],
                f"fails: {failure(row['error'])}" if "error" in row else f"{row['peak_bytes'] / 1e6:.0f}",
            ]
            for row in document["results"]
        ],
    )


def full_jacobian(document: dict[str, Any]) -> str:
    """Seconds to a whole Jacobian."""
    head = ["model", "rows", "way", "precision", "seconds", "error"]
    return table(
        head,
        [
            [
                row["model"],
                str(row["rows"]),
                row["way"],
                row["precision"],
                *(
                    [f"fails: {failure(row['error'])}", ""]
                    if "error" in row
                    else [f"{row['seconds']:.3g}", f"{row['relative_error']:.0e}"]
                ),
            ]
            for row in document["results"]
        ],
    )


def kernels(document: dict[str, Any]) -> str:
    """Rules on their own."""
    head = [
        "shapes of",
        "rule",
        "precision",
        "us",
        "rate",
        "of floor",
        "plain / ours",
        "stock / ours",
        "error / plain error",
    ]
    rows = []
    for row in document["results"]:
        ours = row["seconds"].get("kernel", row["seconds"].get("reference"))
        rows.append(
            [
                f"{row['model']}, K = {row['K']}",
                f"{row['rule']} {row['product']}",
                row["precision"] + (" (plain)" if row["path"] == "reference" else ""),
                number(ours and 1e6 * ours, ".0f"),
                "-" if row["rate"] is None else f"{row['rate']:.0f} {row['unit']}",
                number(row["of_floor"], ".2f"),
                number(row["reference_over_ours"], ".2f"),
                number(row["stock_over_ours"], ".2f"),
                number(row["kernel_error_over_reference_error"], ".2f"),
            ]
        )
    return table(head, rows)


def honesty(document: dict[str, Any]) -> str:
    """What bounds of singular values are worth."""
    head = ["estimator", "rank", "values", "lower", "residual", "error", "ok", "sharpness", "90%", "misidentified"]
    head += ["products / n"]
    return table(
        head,
        [
            [
                row["estimator"],
                str(row["rank"]),
                str(row["values_ok"]),
                *(number(row[name], ".2%") for name in ("lower", "residual", "error")),
                number(row["ok"], ".0%"),
                number(row["sharpness_median"], ".1f"),
                number(row["sharpness_p90"], ".0f"),
                f"{row['misidentified']} of {row['runs']}",
                number(row["products"], ".2f"),
            ]
            for row in document["results"]
        ],
    )


def svd(document: dict[str, Any]) -> str:
    """One table for each model."""
    found = []
    for case in document["results"]:
        found.append(f"**{case['model']}, n = {case['n']}, leading {case['rank']} to {document['tol']:g}**\n")
        head = [
            "way",
            "seconds",
            "forward passes",
            "of ours, exact",
            "of jacrev + linalg.svd",
            "products",
            "error",
            "MB",
        ]
        found.append(table(head, [_svd(row) for row in case["ways"]]))
    return "\n".join(found)


def _svd(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["way"], f"fails: {failure(row['error'])}", *[""] * 6]
    middle = {name: sorted(row[name])[len(row[name]) // 2] for name in ("seconds", "forwards")}
    by = row.get("products_by_precision")
    products = ", ".join(f"{count} {name}" for name, count in by.items()) if by else number(row["products"], "d")
    return [
        row["way"],
        f"{middle['seconds']:.3g}",
        f"{middle['forwards']:.0f}",
        *(number(row.get(name, {}).get("median"), ".3f") for name in ("over_exact", "over_stock")),
        products,
        f"{row['relative_error']:.0e}",
        number(row["peak_bytes"] and row["peak_bytes"] / 2**20, ".0f"),
    ]


def orthonormalise(document: dict[str, Any]) -> str:
    """One row for each block."""
    head = [
        "k x m",
        "condition",
        "precision",
        "ours, ms",
        "linalg.qr / ours",
        "rank",
        "max abs(Q Q^T - 1)",
        "reconstruction",
    ]
    return table(head, [_orthonormalise(row) for row in document["results"]])


def _orthonormalise(row: dict[str, Any]) -> list[str]:
    ratio = row["qr_over_ours"]
    return [
        f"{row['k']} x {row['m']:,}",
        row["block"],
        row["precision"],
        f"{1e3 * row['seconds']['ours']:.1f}",
        f"{ratio['median']:.2f} ({ratio['min']:.2f} - {ratio['max']:.2f})",
        str(row["rank"]),
        f"{row['orthogonality']:.0e}",
        f"{row['reconstruction']:.0e}",
    ]


def matching(document: dict[str, Any]) -> str:
    """One table for each model: a row for each way."""
    found = []
    for case in document["results"]:
        count = len(case["pairs"])
        found.append(f"**{case['model']}, {count} random pair{'s' * (count > 1)}**\n")
        head = ["way", "relative distance, median", "worst", "L2, median", "forward passes to 3e-2", "1e-2", "1e-3"]
        found.append(table([*head, "Jacobians"], [_matching(*way) for way in case["ways"].items()]))
    return "\n".join(found)


def _matching(name: str, row: dict[str, Any]) -> list[str]:
    def reached(level: str) -> str:
        """Median over pairs, those that never came so near counted as beyond all others."""
        values = sorted(float("inf") if value is None else value for value in row["to"][level])
        arrived = sum(value != float("inf") for value in values)
        if not arrived:
            return f"- (0 of {len(values)})"
        middle = statistics.median(values)
        text = f"{middle:.0f}" if middle != float("inf") else "more"
        return text if arrived == len(values) else f"{text} ({arrived} of {len(values)})"

    return [
        f"{name}, {row['cap']} steps at most" if "cap" in row else name,
        f"{statistics.median(row['relative']):.0e}",
        f"{max(row['relative']):.0e}",
        f"{statistics.median(row['l2']):.2f}",
        *(reached(level) for level in ("0.03", "0.01", "0.001")),
        f"{statistics.median(row['jacobians']):.0f}" if "jacobians" in row else "-",
    ]


def model_families(document: dict[str, Any]) -> str:
    """One row for each family of encoders."""
    head = ["encoder", "address", "n", "parameters", "compiled kernels", "PyTorch's rule"]
    head += ["JVP, forward passes", "VJP", "`probe --plugin ldlc`"]
    return table(head, [_model_family(row) for row in document["results"]])


def _model_family(row: dict[str, Any]) -> list[str]:
    start = [row["family"], f"`{row['model'].replace('{folder}', 'FOLDER')}`"]
    if "error" in row:
        return [*start, f"fails: {failure(row['error'])}", *[""] * 6]

    def operations(wanted: Callable[[str], bool]) -> str:
        return ", ".join(sorted(name for name, rules in row["coverage"].items() if any(map(wanted, rules)))) or "none"

    jvp, vjp = (row["over_forward"][name] for name in ("jvp", "vjp"))
    return [
        *start,
        str(row["n"]),
        f"{row['parameters'] / 1e6:.1f} M",
        operations(lambda rule: rule.startswith(("cpu", "cuda"))),
        operations(lambda rule: rule == "torch"),
        f"{jvp['median']:.2f} ({jvp['min']:.2f} - {jvp['max']:.2f})",
        f"{vjp['median']:.2f} ({vjp['min']:.2f} - {vjp['max']:.2f})",
        _ldlc(row["ldlc"]),
    ]


def _ldlc(found: dict[str, Any]) -> str:
    if found["exit_code"]:
        return f"fails: {failure(found['error'])}"
    failed = found["failed_checks"]
    return f"random / null {found['random_over_null']:.2g}" + (f"; check failed: {', '.join(failed)}" if failed else "")


TOPICS: dict[str, Callable[[dict[str, Any]], str]] = {
    "operators": operators,
    "memory": memory,
    "full_jacobian": full_jacobian,
    "kernels": kernels,
    "svd": svd,
    "orthonormalise": orthonormalise,
    "honesty": honesty,
    "matching": matching,
}
#: Those of docs/models.md.
MODEL_TOPICS: dict[str, Callable[[dict[str, Any]], str]] = {"model_families": model_families}
#: Those of docs/scale.md; `unit_cost` is made from the results of several benchmarks.
SCALE_TOPICS: dict[str, Callable[[Any], str]] = {
    "unit_cost": scale_tables.unit_cost,
    "scale": scale_tables.scale,
    "store": scale_tables.store,
    "executors": scale_tables.executors,
}
#: Those of docs/match.md; `smallest_change` is made from the results of several files.
MATCH_TOPICS: dict[str, Callable[[Any], str]] = {
    "smallest_change": matching_tables.smallest_change,
    "rivals": matching_tables.rivals,
}


def section(topic: str, results: Path) -> str:
    """What is known about a topic: a heading for each file, CPUs first, and its table."""
    if topic == "unit_cost":
        return f"\n{scale_tables.unit_cost(results)}\n"
    if topic == "smallest_change":
        return f"\n{matching_tables.smallest_change(results)}\n"
    write = {**TOPICS, **MODEL_TOPICS, **SCALE_TOPICS, **MATCH_TOPICS}[topic]
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(f"{topic}-*.json"))]
    documents.sort(key=lambda document: document["device"])
    parts = []
    for document in documents:
        facts = document["machine"]
        where = f"{document['threads']} threads, " if document["device"] == "cpu" else ""
        release = facts["doctor"].get("libraries", {}).get("torch", "?")
        parts.append(f"*{document['name']}, {where}torch {release}, {facts['measured'][:10]}*\n\n{write(document)}")
    if not any(document["device"] == "cuda" for document in documents):
        parts.append("Not run on a GPU yet.\n" if documents else "Not measured yet, on no device.\n")
    return "\n" + "\n".join(parts) + "\n"


def render(page: str, results: Path = HERE / "results") -> str:
    """The page with its tables written anew."""
    return MARKED.sub(lambda match: match[1] + section(match["topic"], results) + match[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is stale")
    options = parser.parse_args()
    for path in (PAGE, MODELS_PAGE, SCALE_PAGE, MATCH_PAGE):
        page = path.read_text(encoding="utf-8")
        fresh = render(page)
        if not options.check:
            path.write_text(fresh, encoding="utf-8")
        elif fresh != page:
            sys.exit(f"docs/{path.name} does not show bench/results/: run `python bench/tables.py`")


if __name__ == "__main__":
    main()
