"""Claims about view words, blur and saturation where the model is exact, from the rows of `exact.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from claims import Claim
from exact_report import Row

from distill3d.evaluation.confidence import Keyed, interval, paired_difference

Scales = tuple[float | None, ...]
SHIPPED: Scales = (None,)  # the config's own guidance scale
LOW, MIDDLE, HIGH = (1.0, 3.0), (10.0, 20.0), (50.0, 100.0)
TOLD, BLUR, SCALE = "exact prior, what it is told", "exact prior, whose blur", "exact prior, by scale"


def claims_of(rows: Sequence[Row]) -> dict[str, list[Claim]]:
    """By part of the page; parts and claims whose trainings are not among the rows are left out."""
    parts = {TOLD: list(of_conditions(rows)), BLUR: list(of_blur(rows)), SCALE: list(of_scales(rows))}
    found = {name: [claim for claim in claims if claim.found is not None] for name, claims in parts.items()}
    return {name: claims for name, claims in found.items() if claims}


def of_conditions(rows: Sequence[Row]) -> Iterator[Claim]:
    """SDS told the text alone, view words, and the camera."""
    for before, after, words in (("text", "view-words", "view words"), ("view-words", "camera", "the camera")):
        text = f"{words} over {'the text alone' if before == 'text' else 'view words'}, SDS"
        for figure, field, sign in (("IoU", "iou", +1), ("Janus", "janus", -1)):
            untold, told = (of(rows, field, "sds", SHIPPED, condition) for condition in (before, after))
            yield Claim(text, figure, sign, paired_difference(untold, told))


def of_blur(rows: Sequence[Row]) -> Iterator[Claim]:
    """If SDS's blur were the model's alone, a model without error would leave none."""
    lost = {key: value - 1.0 for key, value in of(rows, "detail", "sds", SHIPPED).items()}
    yield Claim("a model without error leaves SDS no blur", "high frequencies / truth - 1", +1, interval(lost))
    yield between(rows, "LMC-SDS is more detailed than SDS", "detail", +1, ("sds", SHIPPED), ("lmc-sds", SHIPPED))
    yield between(rows, "LMC-SDS is nearer to the colours", "psnr_db", +1, ("sds", SHIPPED), ("lmc-sds", SHIPPED))


def of_scales(rows: Sequence[Row]) -> Iterator[Claim]:
    yield between(rows, "SDS saturates at a high scale", "saturation", +1, ("sds", LOW), ("sds", HIGH))
    yield between(rows, "SDS loses detail at a low scale", "detail", +1, ("sds", LOW), ("sds", HIGH))
    yield between(rows, "LMC-SDS keeps detail at a low scale", "detail", +1, ("sds", LOW), ("lmc-sds", LOW))
    text = "LMC-SDS at a middle scale saturates less than SDS at a high one"
    yield between(rows, text, "saturation", -1, ("sds", HIGH), ("lmc-sds", MIDDLE))


def between(
    rows: Sequence[Row], text: str, field: str, sign: int, first: tuple[str, Scales], second: tuple[str, Scales]
) -> Claim:
    figure = {"psnr_db": "albedo, dB", "detail": "high frequencies / truth"}.get(field, f"{field} / truth")
    return Claim(text, figure, sign, paired_difference(of(rows, field, *first), of(rows, field, *second)))


def of(rows: Sequence[Row], field: str, rule: str, scales: Scales, condition: str = "camera") -> Keyed:
    """A figure of a rule by object and seed, averaged over some scales, where all of them were run."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        value = getattr(row, field)
        if (row.rule, row.condition) == (rule, condition) and row.scale in scales and value is not None:
            found.setdefault((row.object, row.seed), []).append(value)
    return {key: sum(values) / len(scales) for key, values in found.items() if len(values) == len(scales)}
