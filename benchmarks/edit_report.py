"""The table, the claims and the picture of `edit.py`, from the lines of its ledger and the pictures of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from claims import Claim, claim_records, claim_table
from edit_choice import Line, chosen, keyed, of
from edit_claims import Picture, claims_of
from edit_sheet import draw_sheet
from tables import shown, table

from distill3d.evaluation.confidence import interval
from distill3d.runtime.files import write_atomically, write_json

TITLES = {"nerf": "Scenes", "image": "Pictures", "svg": "A drawing", "psi": "What psi buys"}
COLUMNS = {
    "score": "score",
    "score_gain": "score gained",
    "direction": "direction",
    "ssim": "SSIM to source",
    "ssim_outside": "SSIM outside",
    "source_distance": "distance to source",
    "source_distance_outside": "distance outside",
    "view_consistency": "consistency",
    "inconsistency_of_renders": "inconsistency, renders",
    "inconsistency_of_pictures": "inconsistency, pictures",
}
ABOUT = (
    "Each method is run at three settings (guidance scale, or strength of SDEdit) and is shown at its best one: "
    "that of the largest score gained x SSIM to source, both means over the edits; the second table has all. "
    "Optimiser, learning rate, steps and range of t are the same for all rules. Means over edits, in brackets 95 % "
    "intervals of a bootstrap over them; differences are paired, and a claim is confirmed where the interval lies "
    "on its side of zero, contradicted where it lies on the other. Refinement, and going on for longer, take the "
    "middle setting."
)
MEANINGS = (
    "Score: cosine of views and target prompt under the judge; gained: over the source; direction: cosine of the "
    "change of the views and that of the texts; distance: 1 - cosine to the source in the judge's features; "
    "outside: of SSIM's map over the pixels outside the part that the edit is about, and of pictures with the source "
    "put back into it (where the prior's predictions for the two prompts differ: DiffEdit's mask, the same for all "
    "methods); consistency: cosine of neighbouring views; "
    "inconsistency: difference of colours where neighbouring views show one point."
)
CHOICE = (
    "The edits were chosen among the nouns that the embedded prior was trained on, before methods were compared: a "
    "fox becomes a dog, since it knows no wolf, and what is added is a face or ornaments, since it knows no crown "
    "and hardly any pair of objects. A blue hamburger is a combination that it never saw."
)
NO_JUDGE = (
    "No judge was at hand: its figures (score, direction, distance, consistency) are left out, and each method is "
    "shown at the middle of its grid."
)
SHEET = "edit.jpg"


def write_report(lines: Sequence[Line], picture: Picture, results: Path, command: str) -> str:
    """results/edit.md, edit.json and edit.jpg; returns the text."""
    results.mkdir(parents=True, exist_ok=True)
    judges = sorted({line["judge"] for _, line in lines if "judge" in line})
    parts = ["# Editing: PDS and its rivals", f"`{command}`, {hardware(lines)}.", ABOUT, MEANINGS, CHOICE]
    parts.append(f"Judge: {', '.join(judges)}." if judges else NO_JUDGE)
    parts += [f"![edits by methods]({SHEET})"] if draw_sheet(lines, picture, results / SHEET) else []
    claims: dict[str, list[Claim]] = {}
    for suite, title in TITLES.items():
        own = [line for line in lines if line[0].suite == suite]
        if own:
            claims[suite] = claims_of(suite, own, picture)
            parts += [f"## {title}", *tables_of(suite, own)]
            parts += [claim_table(claims[suite])] if claims[suite] else []
    if (results / "edit_toy.png").is_file():
        parts += ["## Between two modes in the plane", "`python benchmarks/edit_toy.py`", "![toy](edit_toy.png)"]
    text = "\n\n".join(parts) + "\n"
    write_atomically(results / "edit.md", text)
    found = {suite: claim_records(own) for suite, own in claims.items()}
    write_json(results / "edit.json", {"claims": found, "judges": judges})
    return text


def tables_of(suite: str, lines: Sequence[Line]) -> list[str]:
    """Methods at their best, then all that was run; for psi, whose grids are what it is about, the latter alone."""
    best = chosen(lines)
    return (
        [method_table(lines)]
        if suite == "psi" or len(best) == len(lines)
        else [method_table(best), method_table(lines)]
    )


def method_table(lines: Sequence[Line]) -> str:
    """A row for each method and setting, in the order of the cells."""
    names = [name for name in COLUMNS if any(line["figures"].get(name) is not None for _, line in lines)]
    rows = []
    for method, at in dict.fromkeys((cell.method.name, cell.method.at) for cell, _ in lines):
        own = of(lines, method, at)
        seconds = sum(line["seconds"] for _, line in own) / len(own)
        means = (shown(interval(keyed(own, name))) for name in names)
        rows.append([method, at, str(len(own)), *means, f"{seconds:.0f}"])
    return table(["method", "at", "edits", *(COLUMNS[name] for name in names), "seconds"], rows)


def hardware(lines: Sequence[Line]) -> str:
    """What the ledger says of the machines that its cells were run on."""
    found = sorted({line["hardware"] for _, line in lines if "hardware" in line})
    minutes = sum(line["seconds"] for _, line in lines) / 60.0
    return f"{'; '.join(found) or 'unknown hardware'}: {len(lines)} cells, {minutes:.0f} minutes of cells in all"
