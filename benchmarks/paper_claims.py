"""The claims of the three papers in one table, from what their benchmarks found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import table

from distill3d.runtime.files import write_atomically

# paper: the file with its claims, and where to look
SOURCES = {
    "DreamFusion (arXiv 2209.14988)": ("dreamfusion_ablation.json", "dreamfusion_ablation.md"),
    "LMC-SDS (arXiv 2401.05293)": ("lmc_vs_sds.json", "lmc_vs_sds.md"),
    "PDS (arXiv 2311.13831)": ("edit.json", "edit.md"),
}
ABOUT = (
    "Of the reports of `benchmarks/dreamfusion_ablation.py`, `benchmarks/lmc_vs_sds.py` and `benchmarks/edit.py`. "
    "Confirmed: the 95 % interval of the difference lies on the claim's side of zero; contradicted: on the other. What "
    "could not be decided has an interval around zero, or too few prompts for one."
)


@dataclass(frozen=True)
class Row:
    """A claim, in which comparison, and what was found."""

    paper: str
    claim: str
    where: str
    figure: str
    verdict: str


def write_claims(results: Path) -> str:
    """results/claims.md; returns its text."""
    rows = list(_rows(results))
    head = ("paper", "claim", "verdict", "figure and its difference, with the 95 % interval", "where to look")
    lines = [(row.paper, row.claim, row.verdict, row.figure, row.where) for row in rows]
    missing = [f"`{file}`" for file, _ in SOURCES.values() if not (results / file).is_file()]
    parts = ["# The claims of the three papers", ABOUT, table(head, [list(line) for line in lines])]
    parts += [f"Not run: {', '.join(missing)}."] if missing else []
    text = "\n\n".join(parts) + "\n"
    write_atomically(results / "claims.md", text)
    return text


def _rows(results: Path) -> Iterator[Row]:
    for paper, (file, page) in SOURCES.items():
        if not (results / file).is_file():
            continue
        claims: dict[str, list[dict[str, Any]]] = json.loads((results / file).read_text(encoding="utf-8"))["claims"]
        for part, records in claims.items():
            for one in records:
                yield Row(paper, one["text"], f"[{part}]({page})", f"{one['figure']}{_found(one)}", one["verdict"])


def _found(one: dict[str, Any]) -> str:
    found = one["found"]
    if found is None:
        return ""
    if found["low"] is None:
        return f" {found['mean']:+.3f}"
    return f" {found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
