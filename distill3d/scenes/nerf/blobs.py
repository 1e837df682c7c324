"""Density biases: a blob in the middle of the scene, so that an optimisation starts with something to shape."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BLOBS = ("blob_dreamfusion", "blob_magic3d")


def blob(
    kind: str, points: Float[Tensor, "points 3"], scale: float, std: float
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
    """The value added to the density's pre-activation, and its gradient.

    ``blob_dreamfusion`` (arXiv 2209.14988, appendix A.2): ``scale exp(-|x|^2 / (2 std^2))``.
    ``blob_magic3d`` (arXiv 2211.10440): ``scale (1 - |x| / std)``.
    Raises ValueError for another kind.
    """
    squared = points.square().sum(-1)
    if kind == "blob_dreamfusion":
        value = scale * torch.exp(-0.5 * squared / std**2)
        return value, -points * (value / std**2)[:, None]
    if kind == "blob_magic3d":
        distance = squared.sqrt()
        gradient = points * (-scale / std / distance.clamp_min(1e-9))[:, None]  # the tip of the cone is flat
        return scale * (1.0 - distance / std), gradient
    raise ValueError(f"density_bias={kind!r} is unknown; choose a number or one of {', '.join(BLOBS)}")
