"""What the paper says of SDS, LMC-SDS and L_cond alone, against the cells of `lmc_vs_sds.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from claims import Claim
from lmc_cells import Cell
from torch import Tensor

from distill3d.evaluation.confidence import Keyed, interval, paired_difference
from distill3d.evaluation.samples import read_strip

Line = tuple[Cell, dict[str, Any]]
Scales = dict[str, tuple[float, ...]]  # low, middle and high guidance scales
SCALES: Scales = {"low": (1.0, 3.0), "middle": (10.0, 20.0), "high": (50.0, 100.0)}
SCALES_OF: dict[str, Scales] = {"3d": SCALES, "2d": SCALES, "64": {"low": (3.0,), "middle": (10.0,), "high": (50.0,)}}
Group = tuple[str, str]  # a rule, and at which scales
# sentence, figure, the side on which the difference should lie, second group minus first
GRID: tuple[tuple[str, str, int, Group, Group], ...] = (
    ("SDS saturates at a high scale", "saturation_ratio", +1, ("sds", "low"), ("sds", "high")),
    ("SDS clips colours at a high scale", "clipped", +1, ("sds", "low"), ("sds", "high")),
    ("SDS repeats views more at a high scale (Janus)", "janus", +1, ("sds", "low"), ("sds", "high")),
    ("SDS needs a high scale to follow the prompt", "r_precision", +1, ("sds", "low"), ("sds", "high")),
    ("LMC-SDS keeps detail at a low scale", "high_frequency_ratio", +1, ("sds", "low"), ("lmc-sds", "low")),
    ("LMC-SDS is as detailed as the prior at a low scale", "detail_error", -1, ("sds", "low"), ("lmc-sds", "low")),
    ("LMC-SDS follows the prompt at a low scale", "r_precision", +1, ("sds", "low"), ("lmc-sds", "low")),
    (
        "LMC-SDS at a middle scale saturates less than SDS at a high one",
        "saturation_ratio",
        -1,
        ("sds", "high"),
        ("lmc-sds", "middle"),
    ),
    (
        "LMC-SDS at a middle scale follows the prompt better than SDS at a high one",
        "r_precision",
        +1,
        ("sds", "high"),
        ("lmc-sds", "middle"),
    ),
    ("L_cond alone has unreal colours", "saturation_ratio", +1, ("lmc-sds", "middle"), ("lmc-cond", "middle")),
    ("L_cond alone is noisier", "high_frequency_ratio", +1, ("lmc-sds", "middle"), ("lmc-cond", "middle")),
    ("L_cond alone clips colours", "clipped", +1, ("lmc-sds", "middle"), ("lmc-cond", "middle")),
)
TRANSLATION: tuple[tuple[str, str, int, str, str], ...] = (
    ("a network trained by SDS has less detail than by LMC-SDS", "high_frequency_ratio", +1, "sds", "lmc-sds"),
    ("one trained by LMC-SDS is nearer to the prior's detail", "detail_error", -1, "sds", "lmc-sds"),
    ("one trained by DDS is more uniform than by LMC-SDS", "diversity", +1, "dds", "lmc-sds"),
    ("LMC-SDS reaches the target better than DDS", "score", +1, "dds", "lmc-sds"),
)


def claims_of(suite: str, lines: Sequence[Line], picture: Callable[[str], Path]) -> list[Claim]:
    """Those whose figures and cells the suite has."""
    claims: list[Claim] = []
    if suite in SCALES_OF:
        scales = SCALES_OF[suite]
        claims = [blur_claim(lines, scales), *(grid_claim(lines, scales, *claim) for claim in GRID)]
    if suite == "translation":
        for text, name, sign, first, second in TRANSLATION:
            found = paired_difference(of(lines, name, first, None), of(lines, name, second, None))
            claims.append(Claim(text, name, sign, found))
    if suite.startswith("noise"):
        found = paired_difference(spread(lines, "fresh", picture), spread(lines, "fixed", picture))
        claims = [Claim("fixed noise makes results differ more", "RMS distance", +1, found)]
    return [claim for claim in claims if claim.found is not None]


def blur_claim(lines: Sequence[Line], scales: Scales) -> Claim:
    """Not a difference of cells: the prior's own samples have the ratio 1."""
    values = {key: value - 1.0 for key, value in of(lines, "high_frequency_ratio", "sds", scales["low"]).items()}
    return Claim("SDS blurs at a low scale", "high_frequency_ratio - 1", -1, interval(values))


def grid_claim(
    lines: Sequence[Line], scales: Scales, text: str, name: str, sign: int, first: Group, second: Group
) -> Claim:
    before, after = (of(lines, name, rule, scales[at]) for rule, at in (first, second))
    return Claim(text, name, sign, paired_difference(before, after))


def of(lines: Sequence[Line], name: str, rule: str, scales: Sequence[float] | None) -> Keyed:
    """A figure of a rule by prompt and seed, averaged over some scales, where all of them were run."""
    found: dict[tuple[str, int], list[float]] = {}
    for cell, line in lines:
        value = figure(line, name)
        if cell.rule == rule and (scales is None or cell.scale in scales) and value is not None:
            found.setdefault((cell.prompt, cell.seed), []).append(value)
    count = 1 if scales is None else len(scales)
    return {key: sum(values) / count for key, values in found.items() if len(values) == count}


def figure(line: dict[str, Any], name: str) -> float | None:
    """detail_error is ``| log (high frequencies / prior) |``: 0 where a cell is as detailed as the prior's samples."""
    if name != "detail_error":
        return line["figures"].get(name)
    ratio = line["figures"].get("high_frequency_ratio")
    return abs(math.log(ratio)) if ratio else None


def spread(lines: Sequence[Line], kind: str, picture: Callable[[str], Path]) -> Keyed:
    """Distance between the pictures of one run, or between the front views of runs that differ in their seed alone."""
    images: dict[str, list[Tensor]] = {}
    for cell, line in lines:
        if cell.variant == kind and picture(line["key"]).is_file():
            strip = read_strip(picture(line["key"]))
            images.setdefault(cell.prompt, []).extend(strip if cell.suite == "noise-2d" else strip[:1])
    return {(prompt, 0): pairwise_distance(torch.stack(own)) for prompt, own in images.items() if len(own) > 1}


def pairwise_distance(images: Tensor) -> float:
    """Mean over pairs of the root of the mean squared difference."""
    pairs = torch.combinations(torch.arange(len(images)))
    return float(((images[pairs[:, 0]] - images[pairs[:, 1]]) ** 2).mean((1, 2, 3)).sqrt().mean())
