"""The claims of PDS (arXiv 2311.13831) about edits, each with the figure that speaks for or against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from claims import Claim
from edit_cells import RESTING, at_scale, middle
from edit_choice import Keyed, Line, chosen, keyed, of

from distill3d.evaluation.confidence import interval, paired_difference
from distill3d.evaluation.metrics import ssim
from distill3d.evaluation.samples import read_strip

Picture = Callable[[str, str], Path]
IDENTITY = (("ssim", +1), ("source_distance", -1), ("ssim_outside", +1))

# text, the side of zero of the difference for each figure, and the methods: second minus first
DIFFERENCES = (
    ("SDS drifts further from the source than DDS", IDENTITY, "sds", "dds"),
    ("PDS keeps the source better than DDS", IDENTITY, "dds", "pds"),
    ("PDS keeps the source better than SDS", IDENTITY, "sds", "pds"),
    ("PDS keeps the source better than LMC-SDS", IDENTITY, "lmc-sds", "pds"),
    ("PDS keeps the source better than dataset update", IDENTITY, "idu", "pds"),
    ("PDS keeps the source better than one SDEdit", IDENTITY, "sdedit", "pds"),
    ("PDS changes at least as much as DDS", (("score_gain", +1),), "dds", "pds"),
    ("PDS agrees better between views than dataset update", (("inconsistency_of_renders", -1),), "idu", "pds"),
)
CHANGED = (("PDS changes as asked", "score_gain"), ("PDS changes as asked", "direction"))


def claims_of(suite: str, lines: Sequence[Line], picture: Picture) -> list[Claim]:
    """Those whose figures and methods the suite has; each method at its best setting, but where two must share one."""
    if suite == "psi":
        return []
    claims = [*compared(chosen(lines)), *resting(lines), *refined(lines, picture)]
    return [claim for claim in claims if claim.found is not None]


def compared(lines: Sequence[Line]) -> Iterator[Claim]:
    for text, name in CHANGED:
        yield Claim(text, name, +1, interval(keyed(of(lines, "pds"), name)))
    for text, figures, first, second in DIFFERENCES:
        for name, sign in figures:
            yield Claim(text, name, sign, paired_difference(*(keyed(of(lines, m), name) for m in (first, second))))
    floor, found = (keyed(of(lines, "idu"), f"inconsistency_of_{what}") for what in ("source", "pictures"))
    text = "pictures edited one by one disagree between views"
    yield Claim(text, "inconsistency over source", +1, paired_difference(floor, found))


def resting(lines: Sequence[Line]) -> Iterator[Claim]:
    """How much more of the source is lost when a method goes on for longer: PDS, which rests, against the others."""
    lost: dict[str, Keyed] = {}
    for name in RESTING:
        at = at_scale(middle(name))
        early, late = (keyed(of(lines, method, at), "ssim") for method in (name, f"{name}, longer"))
        lost[name] = {key: early[key] - late[key] for key in early.keys() & late.keys()}
    for other in RESTING[1:]:
        text = f"going on, PDS comes to rest sooner than {other.upper()}"
        yield Claim(text, "SSIM lost", -1, paired_difference(lost[other], lost["pds"]))


def refined(lines: Sequence[Line], picture: Picture) -> Iterator[Claim]:
    """Refinement against PDS at the same scale, where it began."""
    after = of(lines, "pds, refined")
    if not after:
        return
    before = of(lines, "pds", after[0][0].method.at)
    found = paired_difference(keyed(before, "score"), keyed(after, "score"))
    yield Claim("refinement raises fidelity", "score", +1, found)
    text, figure = "refinement changes less than the edit did", "SSIM to edit, over that of source"
    yield Claim(text, figure, +1, interval(nearer_to_edit(before, after, picture)))


def nearer_to_edit(before: Sequence[Line], after: Sequence[Line], picture: Picture) -> Keyed:
    """By how much a refined scene is more like the edit that it started from than that edit is like the source."""
    plain, refined = ({cell.edit: line["key"] for cell, line in lines} for lines in (before, after))
    values: Keyed = {}
    for edit in plain.keys() & refined.keys():
        files = (picture(plain[edit], "source"), picture(plain[edit], "edited"), picture(refined[edit], "edited"))
        if all(file.is_file() for file in files):
            source, edited, final = (read_strip(file) for file in files)
            values[edit.name, 0] = float(ssim(final, edited).mean() - ssim(source, edited).mean())
    return values
