"""Tables and points of grid encodings, with levels that are dense, hashed, or both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill3d.scenes.nerf.grid import GridLevel, grid_levels, interpolate_reference

GRIDS = {
    "dense and hashed": (grid_levels(5, 3, 1.6, 256), 2),
    "mostly hashed": (grid_levels(4, 4, 1.6, 128), 2),
    "dense alone": (grid_levels(1, 7, 2.0), 5),
    "hashed alone": (grid_levels(2, 9, 2.0, 64), 1),
    "one feature": (grid_levels(2, 3, 2.0, 64), 1),
    "fine cells": (grid_levels(3, 500, 2.9, 2**12), 2),  # of the 4096 of a large grid
}
POINTS = 200  # for an interpreter, which is slow: a whole block of 128 and a part of one
LARGE = {"dreamfusion-sd.yaml": (grid_levels(16, 16, 1.447269237440378, 2**19), 2)}


def table_and_points(
    name: str, dtype: torch.dtype = torch.float64, count: int = 300
) -> tuple[Tensor, Tensor, tuple[GridLevel, ...]]:
    """A table that wants a gradient, points in and a little out of the volume with all its corners, and the levels."""
    levels, n_features = (GRIDS | LARGE)[name]
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(levels[-1].offset + levels[-1].size, n_features, dtype=dtype, generator=generator)
    points = torch.rand(count, 3, dtype=dtype, generator=generator) * 1.2 - 0.1
    points[:8] = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=dtype)] * 3)  # the corners of the volume
    return table.requires_grad_(), points, levels


def answered(
    interpolate: Callable[..., tuple[Tensor, Tensor]],
    table: Tensor,
    points: Tensor,
    levels: tuple[GridLevel, ...],
    need_jacobian: bool,
) -> list[Tensor]:
    """Features, the Jacobian where it is needed, and the table's gradient of their sum with fixed weights."""
    answers = interpolate(table, points, levels, need_jacobian)[: 1 + need_jacobian]
    generator = torch.Generator().manual_seed(2)
    grads = [torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x.device) for x in answers]
    return [*(x.detach() for x in answers), torch.autograd.grad(answers, table, grads)[0]]


def reference(table: Tensor, points: Tensor, levels: tuple[GridLevel, ...], _: bool) -> tuple[Tensor, Tensor]:
    """`interpolate_reference`, which has the Jacobian always, called as its twins are."""
    return interpolate_reference(table, points, levels)
