"""The tables, their reading and the picture of `dreamfusion_ablation.py`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from claims import Claim, claim_records, claim_table
from tables import shown, table

from distill3d.evaluation.confidence import interval
from distill3d.evaluation.samples import read_strip
from distill3d.runtime.files import write_atomically, write_json

COLUMNS = {
    "r_precision_shape": "R-Precision, shape",
    "r_precision": "R-Precision, colour",
    "score": "score",
    "janus": "Janus",
    "saturation_ratio": "saturation / prior",
    "high_frequency_ratio": "high freq. / prior",
    "seconds_total": "seconds",
}
READING = (
    "Confirmed: the 95 % interval of the difference (bootstrap over prompts, then over seeds) lies on the claim's side "
    "of zero; contradicted: on the other side; not confirmed: around zero, so these runs cannot tell."
)
SIDE = 96  # pixels of a view in the picture

Steps = Mapping[str, Mapping[str, Any]]


def write(
    results: Path,
    folder: Path,
    content: dict[str, Any],
    steps: Steps,
    sections: Mapping[str, Sequence[Claim]],
    jobs: str,
    command: str,
    about: str,
) -> str:
    """dreamfusion_ablation.md, .json and .jpg; returns the text."""
    results.mkdir(parents=True, exist_ok=True)
    parts = ["# DreamFusion's claims in the quick profile", f"`{command}`: {hardware(content, jobs)}.", about, READING]
    parts += [tally(sections), step_table(content, steps)]
    if draw(content, folder, steps, results / "dreamfusion_ablation.jpg"):
        parts.append("![front view of each step](dreamfusion_ablation.jpg)")
    for title, claims in sections.items():
        parts += [f"## {title}", claim_table(claims), "\n".join(claim.reading() for claim in claims)]
    text = "\n\n".join(parts) + "\n"
    write_atomically(results / "dreamfusion_ablation.md", text)
    records = {title: claim_records(claims) for title, claims in sections.items()}
    saved = {"command": command, "claims": records, "means": content["means"]}
    write_json(results / "dreamfusion_ablation.json", saved)
    return text


def hardware(content: dict[str, Any], jobs: str) -> str:
    """How much was run, on what, and who judged it."""
    runs = content["runs"]
    minutes = sum(run["figures"].get("seconds_total") or 0.0 for run in runs) / 60
    prompts, seeds = ({run[key] for run in runs} for key in ("prompt", "seed"))
    unfinished = sum(run["status"] not in ("done", "diverged") or bool(run["error"]) for run in runs)
    diverged = sum(run["status"] == "diverged" for run in runs)
    judged = ", ".join(content["judges"]) or "no judge"
    return (
        f"{len(runs)} runs ({len(prompts)} prompts, {len(seeds)} seeds; {diverged} diverged, {unfinished} without "
        f"figures), {minutes:.0f} minutes of runs in all, {jobs}, on {os.cpu_count()} {platform.machine()} threads, "
        f"torch {torch.__version__}; judged by: {judged}"
    )


def tally(sections: Mapping[str, Sequence[Claim]]) -> str:
    """How many claims came out how."""
    verdicts = [claim.verdict for claims in sections.values() for claim in claims]
    counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    return f"Of {len(verdicts)} claims: {counted}."


def step_table(content: dict[str, Any], steps: Steps) -> str:
    """Means over prompts and seeds, a row for each step."""
    names = [name for name in COLUMNS if any(run["figures"].get(name) is not None for run in content["runs"])]
    rows = []
    for step in steps:
        runs = runs_of(content, steps, step)
        values = [{(run["prompt"], run["seed"]): run["figures"].get(name) for run in runs} for name in names]
        found = [interval({key: value for key, value in own.items() if value is not None}) for own in values]
        rows.append([step, str(len(runs)), *(shown(each) for each in found)])
    return table(["step", "runs", *(COLUMNS[name] for name in names)], rows)


def runs_of(content: dict[str, Any], steps: Steps, step: str) -> list[dict[str, Any]]:
    """The runs of one step: settings are told as the command line takes them."""
    wanted = {key: json.dumps(value) for key, value in steps[step].items()}
    return [run for run in content["runs"] if run["settings"] == wanted]


def draw(content: dict[str, Any], folder: Path, steps: Steps, path: Path) -> bool:
    """The front and a quarter view of each prompt, first seed, under each step; False where nothing was rendered."""
    from PIL import Image

    from distill3d.runtime.pictures import labelled_grid, to_uint8

    strips: dict[tuple[str, str], Path] = {}
    for step in steps:
        for run in sorted(runs_of(content, steps, step), key=lambda run: run["seed"]):
            strip = folder / "runs" / run["id"] / "evaluation" / "color.png"
            if strip.is_file():
                strips.setdefault((run["prompt"], step), strip)
    if not strips:
        return False
    empty = torch.ones(3, SIDE, 2 * SIDE)
    prompts = list(dict.fromkeys(prompt for prompt, _ in strips))
    cells = [[pair(strips[p, step]) if (p, step) in strips else empty for step in steps] for p in prompts]
    grid = labelled_grid([list(to_uint8(torch.stack(row))) for row in cells], list(steps), prompts)
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path, quality=85)
    return True


def pair(strip: Path) -> torch.Tensor:
    """Front and side of a strip of views, side by side."""
    views = read_strip(strip)
    two = views[[0, len(views) // 4]]
    return torch.cat(list(torch.nn.functional.interpolate(two, (SIDE, SIDE), mode="bilinear", antialias=True)), dim=-1)
