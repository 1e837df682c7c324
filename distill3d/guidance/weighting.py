"""The weight c(t) of a step."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

WeightingStrategy = Literal["sds", "uniform", "fantasia3d", "ism"]


def time_weight(
    strategy: WeightingStrategy, alpha: Float[Tensor, "B 1 1 1"], sigma: Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B 1 1 1"]:
    """c(t), written so that it means the same for flows, where alpha^2 + sigma^2 < 1.

    sds: ``sigma^2`` (arXiv 2209.14988); uniform: 1; fantasia3d: ``alpha sigma^2`` (arXiv 2303.13873);
    ism: ``.1 sigma / alpha`` (arXiv 2311.11284), alpha held above .05.
    """
    variance = alpha**2 + sigma**2
    if strategy == "sds":
        return sigma**2 / variance
    if strategy == "uniform":
        return variance.new_ones(()).expand_as(variance)
    if strategy == "fantasia3d":
        return alpha * sigma**2 / variance**1.5
    if strategy == "ism":
        return 0.1 * sigma / alpha.clamp_min(0.05)
    known = ", ".join(get_args(WeightingStrategy))
    raise ValueError(f"weighting_strategy={strategy!r} is unknown; choose one of {known}")
