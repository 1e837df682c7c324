"""The tables and pictures of `lmc_vs_sds.py`, from the lines of its ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from claims import claim_records, claim_table
from jaxtyping import Float, UInt8
from lmc_cells import RULES
from lmc_claims import SCALES_OF, Line, claims_of
from tables import shown, table
from torch import Tensor

from distill3d.evaluation.confidence import interval, paired_difference
from distill3d.evaluation.samples import read_strip
from distill3d.runtime.files import write_atomically, write_json
from distill3d.runtime.pictures import labelled_grid, to_uint8, write_png
from distill3d.systems.pictures import enlarged

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
ABOUT = (
    "Means over prompts and seeds; ratios are to plain samples of the same prior for the same prompts, so 1 is the "
    "prior's own. In brackets: 95 % intervals of the bootstrap over prompts, then seeds; differences are paired. "
    "A claim is confirmed where the interval lies on its side of zero, contradicted where it lies on the other."
)
SHEET_PROMPTS, SHEET_SIDE, SHEET_BYTES = 2, 96, 250_000
SHOWN = 64  # pixels of a picture in a grid, at least


def write_report(lines: Sequence[Line], picture: Callable[[str], Path], results: Path, command: str) -> str:
    """results/lmc_vs_sds.md, a grid of pictures for each suite, and the README's sheet; returns the text."""
    results.mkdir(parents=True, exist_ok=True)
    parts = ["# SDS, LMC-SDS and L_cond alone", f"`{command}`, {hardware(lines)}.", ABOUT]
    found: dict[str, list[dict[str, Any]]] = {}
    for suite, title in TITLES.items():
        own = [line for line in lines if line[0].suite == suite]
        if not own:
            continue
        parts += [f"## {title}", rule_table(own)]
        if suite in SCALES_OF:
            parts += ["Paired differences, LMC-SDS minus SDS, by guidance scale:", paired_table(own, "sds", "lmc-sds")]
        claims = claims_of(suite, own, picture)
        if claims:
            found[title] = claim_records(claims)
            parts += [f"What the paper says, against these numbers{scales_named(suite)}:", claim_table(claims)]
        name = f"lmc_vs_sds-{suite}.png"
        if draw_grid(own, picture, results / name):
            parts.append(f"![{title}]({name})")
    draw_sheet(lines, picture, results / "lmc_vs_sds.jpg")
    write_json(results / "lmc_vs_sds.json", {"claims": found})
    text = "\n\n".join(parts) + "\n"
    write_atomically(results / "lmc_vs_sds.md", text)
    return text


def scales_named(suite: str) -> str:
    """Which guidance scales of a suite are called low, middle and high."""
    scales = SCALES_OF.get(suite, {})
    named = ", ".join(f"{name}: w = {' and '.join(f'{scale:g}' for scale in own)}" for name, own in scales.items())
    return f" ({named})" if named else ""


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
        differences = [paired_difference(keyed(sides[0], name), keyed(sides[1], name)) for name in names]
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


def draw_sheet(lines: Sequence[Line], picture: Callable[[str], Path], path: Path) -> bool:
    """The README's comparison: SDS over LMC-SDS at the same scales, views from the front and the back."""
    from PIL import Image

    found = {
        (cell.prompt, cell.rule, cell.scale): picture(line["key"])
        for cell, line in lines
        if cell.suite == "64" and picture(line["key"]).is_file()
    }
    scales = sorted({scale for _, _, scale in found})
    places = list(product(RULES[:2], scales))
    whole = [p for p in dict.fromkeys(p for p, _, _ in found) if all((p, *place) in found for place in places)]
    rows = list(product(whole[:SHEET_PROMPTS], RULES[:2]))
    if not rows:
        return False
    cells = [[beside(read_strip(found[prompt, rule, scale])) for scale in scales] for prompt, rule in rows]
    names = [f"{prompt}: {rule}" for prompt, rule in rows]
    sheet = labelled_grid(cells, [f"w = {scale:g}" for scale in scales], names)
    image = Image.fromarray(sheet.permute(1, 2, 0).numpy())
    for quality in (92, 85, 75, 60, 45):
        image.save(path, quality=quality, subsampling=0)
        if path.stat().st_size < SHEET_BYTES:
            break
    return True


def beside(strip: Float[Tensor, "V 3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """The view from the front and the one from the opposite side."""
    pair = [enlarged(to_uint8(strip[i : i + 1])[0], SHEET_SIDE) for i in (0, len(strip) // 2)]
    return torch.cat(pair, dim=2)


def hardware(lines: Sequence[Line]) -> str:
    """What the ledger says of the machines that its cells were run on."""
    found = sorted({line["hardware"] for _, line in lines if "hardware" in line})
    seconds = sum(line["seconds"] for _, line in lines)
    return f"{'; '.join(found) or 'unknown hardware'}: {len(lines)} cells, {seconds / 60:.0f} minutes of cells in all"
