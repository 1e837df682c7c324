"""A paper's claims against numbers: what was found, and whether that confirms the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill3d.evaluate.confidence import Interval


@dataclass
class Claim:
    """A sentence of the paper and what was found. ``sign``: the side of zero on which the difference should lie."""

    text: str
    figure: str
    sign: int
    found: Interval | None

    @property
    def verdict(self) -> str:
        if self.found is None or self.found.low is None or self.found.high is None:
            return "not tested: too few prompts"
        low, high = sorted((self.sign * self.found.low, self.sign * self.found.high))
        return "confirmed" if low > 0 else "contradicted" if high < 0 else "not confirmed"

    def row(self) -> str:
        if self.found is None or self.found.low is None:
            return f"| {self.text} | {self.figure} | | | {self.verdict} |"
        low_high = f"[{self.found.low:+.3f}, {self.found.high:+.3f}]"
        return f"| {self.text} | {self.figure} | {self.found.mean:+.3f} | {low_high} | {self.verdict} |"


def claim_table(claims: Sequence[Claim]) -> str:
    """In Markdown."""
    head = ["| claim | figure | difference | interval | verdict |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(claim.row() for claim in claims)])


def claim_records(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [{**asdict(claim), "verdict": claim.verdict} for claim in claims]
