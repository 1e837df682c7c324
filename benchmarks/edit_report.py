"""The table, the claims and the pictures of `edit.py`, from the lines of its ledger and the pictures of its cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from claims import Claim, claim_records, claim_table
from edit_cells import EditCell
from edit_claims import claims_of, keyed, refinement_claims
from edit_psi import draw_curve
from tables import shown, table
from torch import Tensor

from distill3d.evaluate.confidence import interval
from distill3d.evaluate.samples import read_strip
from distill3d.pictures import to_uint8, write_png
from distill3d.system.labelled import labelled_grid
from distill3d.system.picture_base import enlarged
from distill3d.trial import write_text

Line = tuple[EditCell, dict[str, Any]]
Picture = Callable[[str, str], Path]
TITLES = {"nerf": "Scenes", "image": "Pictures", "svg": "A drawing", "psi": "What psi buys"}
COLUMNS = {
    "score": "score",
    "score_gain": "score gained",
    "direction": "direction",
    "ssim": "SSIM to source",
    "source_distance": "distance to source",
    "view_consistency": "consistency",
    "inconsistency_of_renders": "inconsistency, renders",
    "inconsistency_of_pictures": "inconsistency, pictures",
}
ABOUT = (
    "Written by `python benchmarks/edit.py --report`. Means over edits, in brackets 95 % intervals of a bootstrap over "
    "them. Score: cosine of views and target prompt under the judge; gained: over the source; direction: cosine of the "
    "change of the views and that of the texts; distance: 1 - cosine to the source in the judge's features; "
    "inconsistency: difference of colours where neighbouring views show one point. SSIM is over whole pictures, so "
    "keeping everything is easy for a method that changes nothing: read it beside the score gained."
)
NO_JUDGE = "No judge was at hand: its figures (score, direction, distance, consistency) are left out."
SHOWN = 64  # pixels of a picture in a grid, at least
SHOWN_VIEWS = (0, 3)  # of a scene


def write_report(lines: Sequence[Line], picture: Picture, results: Path) -> str:
    """results/edit.md, edit.json and a grid of pictures for each suite; returns the text."""
    results.mkdir(parents=True, exist_ok=True)
    judges = sorted({line["judge"] for _, line in lines if "judge" in line})
    parts = ["# Editing: PDS and its rivals", ABOUT, f"Judge: {', '.join(judges)}." if judges else NO_JUDGE]
    claims: dict[str, list[Claim]] = {}
    for suite, title in TITLES.items():
        own = [line for line in lines if line[0].suite == suite]
        if own:
            parts += [f"## {title}", method_table(own)]
            claims[suite] = [*claims_of(suite, own), *refinement_claims(own, picture)]
            parts += [claim_table(claims[suite])] if claims[suite] else []
            parts += [f"![{title}]({name})" for name in draw(suite, own, picture, results)]
    if (results / "edit_toy.png").is_file():
        parts += ["## Between two modes in the plane", "![toy](edit_toy.png)"]
    text = "\n\n".join(parts) + "\n"
    write_text(results / "edit.md", text)
    found = {suite: claim_records(own) for suite, own in claims.items()}
    write_text(results / "edit.json", json.dumps({"claims": found, "judges": judges}, indent=1) + "\n")
    return text


def method_table(lines: Sequence[Line]) -> str:
    """A row for each method, in the order of the ledger's cells."""
    names = [name for name in COLUMNS if any(line["figures"].get(name) is not None for _, line in lines)]
    rows = []
    for method in dict.fromkeys(cell.method.name for cell, _ in lines):
        own = [line for line in lines if line[0].method.name == method]
        seconds = sum(line["seconds"] for _, line in own) / len(own)
        rows.append([method, str(len(own)), *(shown(interval(keyed(own, name))) for name in names), f"{seconds:.0f}"])
    return table(["method", "edits", *(COLUMNS[name] for name in names), "seconds"], rows)


def draw(suite: str, lines: Sequence[Line], picture: Picture, results: Path) -> list[str]:
    """The names of the pictures that were written."""
    name = f"edit-{suite}.png"
    drawn = draw_curve(lines, results / name) if suite == "psi" else draw_grid(lines, picture, results / name)
    return [name] if drawn else []


def draw_grid(lines: Sequence[Line], picture: Picture, path: Path) -> bool:
    """Edits by methods, the source first; whether there is anything to draw."""
    lines = [(cell, line) for cell, line in lines if picture(line["key"], "edited").is_file()]
    if not lines:
        return False
    edits = list(dict.fromkeys(cell.edit for cell, _ in lines))
    methods = list(dict.fromkeys(cell.method.name for cell, _ in lines))
    images = {(cell.edit, cell.method.name): read_views(picture(line["key"], "edited")) for cell, line in lines}
    sources = {cell.edit: read_views(picture(line["key"], "source")) for cell, line in lines}
    empty = torch.full_like(next(iter(images.values())), 255)
    cells = [[sources[edit], *(images.get((edit, method), empty) for method in methods)] for edit in edits]
    write_png(path, labelled_grid(cells, ["source", *methods], [edit.target for edit in edits]))
    return True


def read_views(path: Path) -> Tensor:
    """The shown ones of a strip side by side, enlarged."""
    strip = to_uint8(read_strip(path))
    chosen = [enlarged(strip[i], SHOWN) for i in SHOWN_VIEWS if i < len(strip)]
    return torch.cat(chosen, dim=2)
