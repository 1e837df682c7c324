"""Figures as text: means with their intervals, in Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from distill3d.evaluation.confidence import Interval


def shown(value: Interval | None, signed: bool = False) -> str:
    """``mean [low, high]``; the mean alone where there are too few prompts for an interval."""
    if value is None:
        return "-"
    mean = f"{value.mean:+.2f}" if signed else f"{value.mean:.2f}"
    return mean if value.low is None else f"{mean} [{value.low:.2f}, {value.high:.2f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
