"""Settings against each other: which pairs, on which figures, and how sure the difference is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill3d.evaluation.confidence import Interval, paired_difference

MAX_COMPARISONS = 400
_FEW = 3  # differences below this number are listed, never averaged alone

Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Measured:
    """One run's figures, and where it stands in the comparison."""

    prompt: str
    seed: int
    settings: Mapping[str, str]
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """``figure`` of ``after`` minus that of ``before``, on the same prompts and seeds."""

    figure: str
    before: Settings
    after: Settings
    difference: Interval
    differences: tuple[float, ...]  # each of them, where they are too few for more

    def as_dict(self) -> dict[str, Any]:
        bare = self.difference.low is None
        return {
            "figure": self.figure,
            "before": dict(self.before),
            "after": dict(self.after),
            "mean": None if bare and self.difference.pairs < _FEW else self.difference.mean,
            "low": self.difference.low,
            "high": self.difference.high,
            "prompts": self.difference.prompts,
            "pairs": self.difference.pairs,
            "differences": list(self.differences) if bare else [],
            "clear": self.difference.is_clear,
        }


def compare(runs: Sequence[Measured], figures: Sequence[str], resamples: int = 2000) -> list[Comparison]:
    """All pairs of settings that differ in exactly one; where there is none, each against the first."""
    groups: dict[Settings, list[Measured]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings.items()), []).append(run)
    found = []
    for before, after in itertools.islice(_pairs(list(groups)), MAX_COMPARISONS):
        for figure in figures:
            a, b = _keyed(groups[before], figure), _keyed(groups[after], figure)
            difference = paired_difference(a, b, resamples)
            if difference is not None:
                each = tuple(b[key] - a[key] for key in sorted(a.keys() & b.keys()))
                found.append(Comparison(figure, before, after, difference, each))
    return found


def _pairs(settings: list[Settings]) -> Iterator[tuple[Settings, Settings]]:
    close = [(a, b) for a, b in itertools.combinations(settings, 2) if len(set(a) ^ set(b)) == 2]
    same_names = [(a, b) for a, b in close if {key for key, _ in a} == {key for key, _ in b}]
    yield from same_names or ((settings[0], other) for other in settings[1:])


def _keyed(runs: Sequence[Measured], figure: str) -> dict[tuple[str, int], float]:
    values = {(run.prompt, run.seed): run.figures.get(figure) for run in runs}
    return {key: value for key, value in values.items() if value is not None}
