"""The claims of PDS (arXiv 2311.13831) about edits, each with the figure that speaks for or against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from claims import Claim
from edit_cells import EditCell

from distill3d.evaluate.confidence import interval, paired_difference
from distill3d.evaluate.figures import ssim
from distill3d.evaluate.samples import read_strip

Line = tuple[EditCell, dict[str, Any]]
Keyed = dict[tuple[str, int], float]

# text, figure, the side of zero of the difference, and the methods: second minus first
DIFFERENCES = (
    ("SDS drifts further from the source than DDS", "ssim", +1, "sds", "dds"),
    ("SDS drifts further from the source than DDS", "source_distance", -1, "sds", "dds"),
    ("PDS keeps the source better than DDS", "ssim", +1, "dds", "pds"),
    ("PDS keeps the source better than DDS", "source_distance", -1, "dds", "pds"),
    ("PDS keeps the source better than SDS", "ssim", +1, "sds", "pds"),
    ("PDS keeps the source better than SDS", "source_distance", -1, "sds", "pds"),
    ("PDS keeps the source better than LMC-SDS", "ssim", +1, "lmc-sds", "pds"),
    ("PDS keeps the source better than dataset update", "ssim", +1, "idu", "pds"),
    ("PDS keeps the source better than one SDEdit", "ssim", +1, "sdedit", "pds"),
    ("PDS changes at least as much as DDS", "score_gain", +1, "dds", "pds"),
    ("refinement raises fidelity", "score", +1, "pds", "pds, refined"),
    ("PDS agrees better between views than dataset update", "inconsistency_of_renders", -1, "idu", "pds"),
)
CHANGED = (("PDS changes as asked", "score_gain", +1, "pds"), ("PDS changes as asked", "direction", +1, "pds"))


def claims_of(suite: str, lines: Sequence[Line]) -> list[Claim]:
    """Those whose figures and methods the suite has."""
    if suite == "psi":
        return []
    claims = [Claim(text, name, sign, interval(of(lines, method, name))) for text, name, sign, method in CHANGED]
    for text, name, sign, first, second in DIFFERENCES:
        found = paired_difference(of(lines, first, name), of(lines, second, name))
        claims.append(Claim(text, name, sign, found))
    excess = paired_difference(*(of(lines, "idu", f"inconsistency_of_{what}") for what in ("source", "pictures")))
    claims.append(Claim("pictures edited one by one disagree between views", "inconsistency over source", +1, excess))
    return [claim for claim in claims if claim.found is not None]


def refinement_claims(lines: Sequence[Line], picture: Callable[[str, str], Path]) -> list[Claim]:
    """A refined scene is nearer to the edit that it started from than that edit is to the source."""
    plain, refined = ({c.edit: line["key"] for c, line in lines if c.method.name == m} for m in ("pds", "pds, refined"))
    values: Keyed = {}
    for edit in plain.keys() & refined.keys():
        files = (picture(plain[edit], "source"), picture(plain[edit], "edited"), picture(refined[edit], "edited"))
        if all(file.is_file() for file in files):
            source, edited, after = (read_strip(file) for file in files)
            values[edit.name, 0] = ssim(after, edited) - ssim(source, edited)
    text = "refinement changes less than the edit did"
    return [Claim(text, "SSIM to edit, over that of source", +1, interval(values))] if values else []


def of(lines: Sequence[Line], method: str, name: str) -> Keyed:
    """A figure of one method, by edit and seed."""
    return keyed([line for line in lines if line[0].method.name == method], name)


def keyed(lines: Sequence[Line], name: str) -> Keyed:
    """A figure by edit and seed."""
    values = {(cell.edit.name, cell.seed): line["figures"].get(name) for cell, line in lines}
    return {key: value for key, value in values.items() if value is not None}
