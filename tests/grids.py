"""Tables and points of grid encodings, with levels that are dense, hashed, or both."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.scenes.nerf.grid import GridLevel, grid_levels

GRIDS = {
    "dense and hashed": (grid_levels(5, 3, 1.6, 256), 2),
    "mostly hashed": (grid_levels(4, 4, 1.6, 128), 2),
    "dense alone": (grid_levels(1, 7, 2.0), 5),
    "hashed alone": (grid_levels(2, 9, 2.0, 64), 1),
    "one feature": (grid_levels(2, 3, 2.0, 64), 1),
}


def table_and_points(
    name: str, dtype: torch.dtype = torch.float64, count: int = 300
) -> tuple[Tensor, Tensor, tuple[GridLevel, ...]]:
    """A table that wants a gradient, points in and a little out of the volume with all its corners, and the levels."""
    levels, n_features = GRIDS[name]
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(levels[-1].offset + levels[-1].size, n_features, dtype=dtype, generator=generator)
    points = torch.rand(count, 3, dtype=dtype, generator=generator) * 1.2 - 0.1
    points[:8] = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=dtype)] * 3)  # the corners of the volume
    return table.requires_grad_(), points, levels
