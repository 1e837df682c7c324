"""The tables and pictures of `lmc_vs_sds.py`, from the lines of its ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lmc_cells import RULES, Cell
from tables import shown, table
from torch import Tensor

from distill3d.evaluate.confidence import interval, paired_difference
from distill3d.evaluate.samples import read_strip
from distill3d.pictures import to_uint8, write_png
from distill3d.system.labelled import labelled_grid
from distill3d.system.picture_base import enlarged
from distill3d.trial import write_text

Line = tuple[Cell, dict[str, Any]]
COLUMNS = {
    "r_precision": "R-Precision",
    "score": "score",
    "saturation_ratio": "saturation / prior",
    "high_frequency_ratio": "high freq. / prior",
    "clipped": "clipped",
    "janus": "Janus",
    "diversity": "diversity",
}
COMPARED = ("r_precision", "saturation_ratio", "high_frequency_ratio", "clipped", "janus")
TITLES = {
    "3d": "Text to 3D at 32x32",
    "2d": "Image synthesis at 32x32",
    "64": "Text to 3D at 64x64",
    "noise-2d": "Fixed against fresh noise, 2D",
    "noise-3d": "Fixed against fresh noise, 3D",
    "translation": "Image translation, cats to other animals",
}
SHOWN = 64  # pixels of a picture in a grid, at least


def write_report(lines: Sequence[Line], picture: Callable[[str], Path], results: Path) -> str:
    """results/lmc_vs_sds.md, and a grid of pictures for each suite; returns the text."""
    results.mkdir(parents=True, exist_ok=True)
    parts = [
        "# SDS, LMC-SDS and L_cond alone\n\nWritten by `python benchmarks/lmc_vs_sds.py --report`. Means over prompts "
        "and seeds; ratios are to plain samples of the same prior for the same prompts, so 1 is the prior's own. "
        "In brackets: 95 % intervals of the bootstrap over prompts, then seeds; differences are paired."
    ]
    for suite, title in TITLES.items():
        own = [line for line in lines if line[0].suite == suite]
        if not own:
            continue
        parts += [f"## {title}", rule_table(own)]
        if suite in ("3d", "2d"):
            parts += ["Paired differences, LMC-SDS minus SDS, by guidance scale:", paired_table(own, "sds", "lmc-sds")]
        if suite == "noise-3d":
            parts.append(diversity_of_seeds(own, picture))
        name = f"lmc_vs_sds-{suite}.png"
        if draw_grid(own, picture, results / name):
            parts.append(f"![{title}]({name})")
    text = "\n\n".join(parts) + "\n"
    write_text(results / "lmc_vs_sds.md", text)
    return text


def rule_table(lines: Sequence[Line]) -> str:
    """A row for each rule, variant and scale."""
    names = [name for name in COLUMNS if any(line["figures"].get(name) is not None for _, line in lines)]
    head = ["rule", "w", "runs", *(COLUMNS[name] for name in names), "diverged", "seconds"]
    rows = []
    for rule, variant, scale in groups(lines):
        own = [line for line in lines if (line[0].rule, line[0].variant, line[0].scale) == (rule, variant, scale)]
        means = [shown(interval(keyed(own, name))) for name in names]
        diverged = sum(bool(line["diverged"]) for _, line in own) / len(own)
        seconds = sum(line["seconds"] for _, line in own) / len(own)
        label = f"{rule}, {variant} noise" if variant else rule
        rows.append([label, f"{scale:g}", str(len(own)), *means, f"{diverged:.0%}", f"{seconds:.0f}"])
    return table(head, rows)


def paired_table(lines: Sequence[Line], first: str, second: str) -> str:
    """second minus first at each scale, over the prompts and seeds that both have."""
    names = [name for name in COMPARED if any(line["figures"].get(name) is not None for _, line in lines)]
    rows = []
    for scale in sorted({cell.scale for cell, _ in lines}):
        sides = [[line for line in lines if (line[0].rule, line[0].scale) == (r, scale)] for r in (first, second)]
        differences = [paired_difference(*(keyed(side, name) for side in sides)) for name in names]
        if any(differences):
            rows.append([f"{scale:g}", *(shown(difference, signed=True) for difference in differences)])
    return table(["w", *(COLUMNS[name] for name in names)], rows)


def keyed(lines: Sequence[Line], name: str) -> dict[tuple[str, int], float]:
    """A figure by prompt and seed."""
    values = {(cell.prompt, cell.seed): line["figures"].get(name) for cell, line in lines}
    return {key: value for key, value in values.items() if value is not None}


def groups(lines: Sequence[Line]) -> list[tuple[str, str, float]]:
    """Rules in the order in which they are compared, variants, ascending scales."""
    found = {(cell.rule, cell.variant, cell.scale) for cell, _ in lines}
    order = {rule: i for i, rule in enumerate(RULES)}
    return sorted(found, key=lambda group: (order.get(group[0], len(order)), *group))


def diversity_of_seeds(lines: Sequence[Line], picture: Callable[[str], Path]) -> str:
    """Mean distance between the front views of runs that differ in their seed alone."""
    rows = []
    for rule, variant, _ in groups(lines):
        by_prompt: dict[str, list[Tensor]] = {}
        for cell, line in lines:
            if (cell.rule, cell.variant) == (rule, variant) and picture(line["key"]).is_file():
                by_prompt.setdefault(cell.prompt, []).append(read_strip(picture(line["key"]))[0])
        distances = [pairwise_distance(torch.stack(images)) for images in by_prompt.values() if len(images) > 1]
        if distances:
            rows.append([f"{rule}, {variant} noise", f"{sum(distances) / len(distances):.3f}"])
    return table(["rule", "RMS distance of front views over seeds"], rows) if rows else ""


def pairwise_distance(images: Tensor) -> float:
    """Mean over pairs of the root of the mean squared difference."""
    pairs = torch.combinations(torch.arange(len(images)))
    return float(((images[pairs[:, 0]] - images[pairs[:, 1]]) ** 2).mean((1, 2, 3)).sqrt().mean())


def draw_grid(lines: Sequence[Line], picture: Callable[[str], Path], path: Path) -> bool:
    """Rules by scales for the first prompts, one picture a cell; whether there is anything to draw."""
    at = {(c.prompt, c.rule, c.variant, c.scale): line["key"] for c, line in reversed(lines)}
    at = {place: key for place, key in at.items() if picture(key).is_file()}
    prompts = list(dict.fromkeys(cell.prompt for cell, _ in lines))[:3]
    kinds = list(dict.fromkeys((rule, variant) for rule, variant, _ in groups(lines)))
    scales = sorted({cell.scale for cell, _ in lines})
    if not at:
        return False
    images = {place: enlarged(to_uint8(read_strip(picture(key))[:1])[0], SHOWN) for place, key in at.items()}
    empty = torch.full_like(next(iter(images.values())), 255)
    cells, names = [], []
    for prompt in prompts:
        for rule, variant in kinds:
            cells.append([images.get((prompt, rule, variant, scale), empty) for scale in scales])
            names.append(f"{prompt}: {rule} {variant}".strip())
    write_png(path, labelled_grid(cells, [f"w = {scale:g}" for scale in scales], names))
    return True
