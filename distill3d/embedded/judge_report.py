"""How far the judge can be trusted: its ranks for unseen renders, and which nouns it takes for one another."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from distill3d.embedded.judge import NONE_OF_THESE, Judge
from distill3d.evaluation.metrics import share

BATCH = 100
CONFUSED = 0.15  # of a noun's views: from this share on a confusion is listed


@dataclass(frozen=True)
class Confusion:
    """``share`` of the views of ``noun`` are taken for another."""

    noun: str
    taken_for: str
    share: float


@dataclass(frozen=True)
class JudgeReport:
    """Shares in [0, 1]; ranks are among all nouns of the judge."""

    views: int
    nouns: int
    top1: float
    top5: float
    view_words: float | None  # of views of nouns with a front; None without any
    rejected: float | None = None  # of pictures of nothing; None for a judge that never rejects
    wrongly_rejected: float | None = None  # of views
    confusions: list[Confusion] = field(default_factory=list)


def report_judge(
    judge: Judge,
    images: Float[Tensor, "B 3 H W"],
    nouns: Sequence[str],
    view_words: Sequence[str],
    nothing: Float[Tensor, "N 3 H W"] | None = None,
) -> JudgeReport:
    """Rank ``images`` in [0, 1], each a view of one of ``nouns`` from where ``view_words`` says; and count how many of
    ``nothing``, pictures of no noun, the judge rejects."""
    parts = images.split(BATCH)
    best = [row for part in parts for row in judge.top_nouns(part, 5)]
    seen = [word for part in parts for word in judge.view_words(part)]
    fronted = set(judge.config.nouns_with_front)
    words = [a == b for a, b, noun in zip(seen, view_words, nouns, strict=True) if noun in fronted]
    return JudgeReport(
        views=len(images),
        nouns=len(judge.config.nouns),
        top1=share([noun == row[0] for noun, row in zip(nouns, best, strict=True)]),
        top5=share([noun in row for noun, row in zip(nouns, best, strict=True)]),
        view_words=share(words) if words else None,
        rejected=None if nothing is None else share(_rejected(judge, nothing)),
        wrongly_rejected=None if nothing is None else share([row[0] == NONE_OF_THESE for row in best]),
        confusions=confusions(nouns, [row[0] for row in best]),
    )


def _rejected(judge: Judge, images: Float[Tensor, "N 3 H W"]) -> list[bool]:
    return [row[0] == NONE_OF_THESE for part in images.split(BATCH) for row in judge.top_nouns(part, 1)]


def confusions(nouns: Sequence[str], found: Sequence[str]) -> list[Confusion]:
    """Pairs of nouns of which one is often taken for the other, most often first."""
    counts = collections.Counter(nouns)
    wrong = collections.Counter((a, b) for a, b in zip(nouns, found, strict=True) if a != b)
    rows = [Confusion(a, b, count / counts[a]) for (a, b), count in wrong.items()]
    rows = [row for row in rows if row.share >= CONFUSED]
    return sorted(rows, key=lambda row: (-row.share, row.noun, row.taken_for))
