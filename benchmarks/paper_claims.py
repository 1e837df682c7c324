"""The claims of the three papers in one table, from what their benchmarks found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exact_claims import BLUR, SCALE, TOLD
from tables import table

from distill3d.runtime.files import write_atomically


@dataclass(frozen=True)
class Source:
    """A benchmark's report: its claims, the page that explains them, and which parts of it; None: all."""

    file: str
    page: str
    parts: tuple[str, ...] | None = None


SOURCES = {
    "DreamFusion (arXiv 2209.14988)": (
        Source("dreamfusion_ablation.json", "dreamfusion_ablation.md"),
        Source("exact.json", "exact.md", (TOLD,)),
    ),
    "LMC-SDS (arXiv 2401.05293)": (
        Source("lmc_vs_sds.json", "lmc_vs_sds.md"),
        Source("exact.json", "exact.md", (BLUR,)),
        Source("exact-scales.json", "exact-scales.md", (SCALE,)),
    ),
    "PDS (arXiv 2311.13831)": (Source("edit.json", "edit.md"),),
}
PARTS = {"nerf": "scenes", "image": "pictures", "svg": "a drawing"}  # what edit.json calls them
ABOUT = (
    "Of the reports of `benchmarks/dreamfusion_ablation.py`, `benchmarks/lmc_vs_sds.py`, `benchmarks/edit.py` and, "
    "where the model is exact, `benchmarks/exact.py`. Confirmed: the 95 % interval of the difference lies on the "
    "claim's side of zero; contradicted: on the other. What could not be decided says why."
)


@dataclass(frozen=True)
class Row:
    """A claim, in which comparison, and what was found."""

    paper: str
    claim: str
    where: str
    figure: str
    verdict: str
    why: str  # nothing was decided, empty where something was


def write_claims(results: Path) -> str:
    """results/claims.md; returns its text."""
    rows = list(_rows(results))
    head = ("paper", "claim", "verdict", "figure and its difference, with the 95 % interval", "where to look")
    lines = [(row.paper, row.claim, row.verdict + row.why, row.figure, row.where) for row in rows]
    files = dict.fromkeys(source.file for sources in SOURCES.values() for source in sources)
    missing = [f"`{file}`" for file in files if not (results / file).is_file()]
    parts = ["# The claims of the three papers", ABOUT, tallies(rows), table(head, [list(line) for line in lines])]
    parts += [f"Not run: {', '.join(missing)}."] if missing else []
    text = "\n\n".join(parts) + "\n"
    write_atomically(results / "claims.md", text)
    return text


def tallies(rows: Sequence[Row]) -> str:
    """A line for each paper: how many claims came out how."""
    lines = []
    for paper in dict.fromkeys(row.paper for row in rows):
        verdicts = [row.verdict for row in rows if row.paper == paper]
        counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        lines.append(f"- {paper}: {counted}")
    return "\n".join(lines)


def _rows(results: Path) -> Iterator[Row]:
    for paper, sources in SOURCES.items():
        for source in sources:
            if (results / source.file).is_file():
                yield from _rows_of(paper, source, results)


def _rows_of(paper: str, source: Source, results: Path) -> Iterator[Row]:
    claims: dict[str, list[dict[str, Any]]] = json.loads((results / source.file).read_text(encoding="utf-8"))["claims"]
    for part, records in claims.items():
        for one in records if source.parts is None or part in source.parts else ():
            figure = f"{one['figure']}{_found(one)}"
            where = f"[{PARTS.get(part, part)}]({source.page})"
            yield Row(paper, one["text"], where, figure, one["verdict"], _undecided(one))


def _undecided(one: dict[str, Any]) -> str:
    """Why an interval decides nothing; what has no interval says so in its verdict."""
    found = one["found"]
    if one["verdict"] != "not confirmed":
        return ""
    over = f"{found['prompts']} prompts, {found['pairs']} pairs"
    if found["low"] == found["high"] == 0.0:
        return f" (alike in all: {over})"
    towards = one["sign"] * found["mean"] > 0
    return f" (around zero{'' if towards else ', the mean on the other side'}: {over})"


def _found(one: dict[str, Any]) -> str:
    found = one["found"]
    if found is None:
        return ""
    if found["low"] is None:
        return f" {found['mean']:+.3f}"
    return f" {found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
