"""A paper's claims against numbers: what was found, and whether that confirms the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill3d.evaluation.confidence import Interval


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

    def reading(self) -> str:
        """The verdict as a sentence, with the numbers that it follows from."""
        start = f"- {self.text} ({self.figure}): **{self.verdict}**"
        if self.found is None:
            return f"{start}; no pair has this figure."
        mean, over = self.found.mean, f"{self.found.prompts} prompts, {self.found.pairs} pairs"
        if self.found.low is None or self.found.high is None:
            return f"{start}; {mean:+.3f} over {over}."
        side = "on the claim's side of" if self.verdict == "confirmed" else "beyond"
        zero = "around zero" if self.verdict == "not confirmed" else f"{side} zero"
        return f"{start}: {mean:+.3f}, interval [{self.found.low:+.3f}, {self.found.high:+.3f}] {zero}; {over}."

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
