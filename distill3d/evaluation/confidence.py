"""How sure a comparison is: paired differences, and a bootstrap over prompts first, then over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval. ``low`` and ``high`` are None where there are too few prompts to say."""

    mean: float
    low: float | None
    high: float | None
    prompts: int
    pairs: int

    @property
    def is_clear(self) -> bool:
        """Whether zero lies outside."""
        return self.low is not None and self.high is not None and (self.low > 0.0 or self.high < 0.0)


Keyed = Mapping[tuple[str, int], float]  # (prompt, seed) -> figure


def paired_difference(a: Keyed, b: Keyed, resamples: int = 2000, seed: int = 0) -> Interval | None:
    """The mean of ``b - a`` over the prompts and seeds that both have; None where they share none."""
    shared = sorted(a.keys() & b.keys())
    return interval({key: b[key] - a[key] for key in shared}, resamples, seed)


def interval(values: Keyed, resamples: int = 2000, seed: int = 0) -> Interval | None:
    """Mean over prompts of the mean over their seeds, with a percentile interval of the two-stage bootstrap.

    Each resample draws prompts with replacement, then for each drawn prompt its seeds with replacement: runs of one
    prompt are not independent of each other, as scipy.stats.bootstrap takes them to be. With fewer than three prompts
    there is no interval over prompts.
    """
    if not values:
        return None
    groups = _by_prompt(values)
    mean = float(np.mean([group.mean() for group in groups]))
    low = high = None
    if len(groups) >= 3:
        means = _resampled_means(groups, resamples, np.random.default_rng(seed))
        low, high = (float(q) for q in np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Interval(mean, low, high, len(groups), len(values))


def _by_prompt(values: Keyed) -> list[np.ndarray]:
    groups: dict[str, list[float]] = {}
    for (prompt, _), value in sorted(values.items()):
        groups.setdefault(prompt, []).append(value)
    return [np.asarray(group) for group in groups.values()]


def _resampled_means(groups: Sequence[np.ndarray], resamples: int, generator: np.random.Generator) -> np.ndarray:
    count = len(groups)
    means = np.empty((resamples, count))
    drawn = generator.integers(count, size=(resamples, count))
    for i, group in enumerate(groups):
        places = drawn == i
        rows = generator.integers(len(group), size=(int(places.sum()), len(group)))
        means[places] = group[rows].mean(axis=1)
    return means.mean(axis=1)
