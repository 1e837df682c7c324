"""Density on a regular grid: a scan of the scene, a tight box around what is opaque, refinement near a level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from distill3d.export.query import POINTS_PER_CHUNK, SceneField

SLACK = 0.25  # a cell with this share of the level counts as close to the surface: its parts may be thinner than a cell


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in world units."""

    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    @property
    def center(self) -> Float[Tensor, "3"]:
        return 0.5 * (self.low + self.high)

    @property
    def extent(self) -> Float[Tensor, "3"]:
        return self.high - self.low


@dataclass(frozen=True)
class DensityGrid:
    """Densities at the nodes ``origin + (i, j, k) * spacing``."""

    values: Float[Tensor, "X Y Z"]
    origin: Float[Tensor, "3"]
    spacing: float

    @property
    def box(self) -> Box:
        return Box(self.origin, self.origin + self.spacing * (torch.tensor(self.values.shape) - 1))


def scan(field: SceneField, box: Box, cells: int) -> DensityGrid:
    """Evaluate every node of a grid of cubes around the box's centre, with ``cells`` of them along its longest side."""
    spacing = float(box.extent.max()) / cells
    count = (box.extent / spacing - 1e-3).ceil().long().clamp_min(2)  # cells an axis
    origin = box.center - 0.5 * spacing * count
    shape = cast(list[int], (count + 1).tolist())
    values = torch.empty(shape)
    for rows in torch.arange(values.numel()).split(POINTS_PER_CHUNK):
        nodes = torch.stack(torch.unravel_index(rows, tuple(shape)), dim=-1)
        values.view(-1)[rows] = field.density(origin + spacing * nodes)
    return DensityGrid(values, origin, spacing)


def refine(field: SceneField, grid: DensityGrid, level: float, floor: DensityGrid) -> DensityGrid:
    """Halve the spacing: nodes of cells near the level are evaluated, the others are interpolated.

    Densities are raised to those of ``floor``, of any spacing.
    Memory is five bytes for each fine node; only a thin shell of them is ever evaluated.
    """
    shape = [2 * n - 1 for n in grid.values.shape]
    values = F.interpolate(grid.values[None, None], size=shape, mode="trilinear", align_corners=True)[0, 0]
    spacing = 0.5 * grid.spacing
    near = torch.zeros(shape, dtype=torch.bool)
    cells = 2 * _cells_near(grid.values, level).nonzero()
    for offset in torch.cartesian_prod(*[torch.arange(3)] * 3):
        near[tuple((cells + offset).unbind(dim=1))] = True
    points = grid.origin + spacing * near.nonzero()
    values[near] = torch.maximum(field.density(points), sample_grid(floor, points))
    return DensityGrid(values, grid.origin, spacing)


def opaque_box(grid: DensityGrid, opacity: float = 0.5) -> Box | None:
    """The box of what is opaque along an axis: ``1 - exp(-sum density spacing) > opacity``; None if nothing is."""
    depth = -math.log1p(-opacity) / grid.spacing
    x, y, z = (grid.values.sum(dim=axis) > depth for axis in range(3))  # what is opaque when looking along each axis
    if not any(bool(hit.any()) for hit in (x, y, z)):
        return None
    along = [y.any(dim=1) | z.any(dim=1), x.any(dim=1) | z.any(dim=0), x.any(dim=0) | y.any(dim=0)]
    return _padded(grid, along)


def level_box(grid: DensityGrid, level: float) -> Box | None:
    """The box of the nodes above ``SLACK * level``; None if there are none."""
    above = grid.values > SLACK * level
    if not bool(above.any()):
        return None
    return _padded(grid, [above.any(dim=2).any(dim=1), above.any(dim=2).any(dim=0), above.any(dim=1).any(dim=0)])


def sample_grid(grid: DensityGrid, points: Float[Tensor, "*P 3"]) -> Float[Tensor, "*P"]:
    """Trilinear interpolation; zero outside."""
    extent = grid.box.extent
    unit = (2.0 * (points - grid.origin) / extent - 1.0).flip(-1)  # grid_sample wants the last axis first
    sampled = F.grid_sample(grid.values[None, None], unit.view(1, 1, 1, -1, 3), align_corners=True)
    return sampled.view(points.shape[:-1])


def resampled(grid: DensityGrid, like: DensityGrid) -> Float[Tensor, "X Y Z"]:
    """The densities of one grid at the nodes of another; zero outside."""
    if grid.values.shape == like.values.shape and grid.spacing == like.spacing:
        return grid.values
    nodes = torch.cartesian_prod(*[torch.arange(n) for n in like.values.shape])
    return sample_grid(grid, like.origin + like.spacing * nodes).view(like.values.shape)


def _cells_near(values: Float[Tensor, "X Y Z"], level: float) -> Bool[Tensor, "X-1 Y-1 Z-1"]:
    """Cells that the level crosses, or may cross below the grid's resolution, and their neighbours."""
    highest = F.max_pool3d(values[None], 2, stride=1)
    lowest = -F.max_pool3d(-values[None], 2, stride=1)
    crossed = (highest > SLACK * level) & (lowest <= level)
    return F.max_pool3d(crossed.float(), 3, stride=1, padding=1)[0] > 0


def _padded(grid: DensityGrid, along: list[Bool[Tensor, "N"]]) -> Box:
    """The box of the marked planes, two cells wider and within the grid."""
    low, high = [], []
    for axis, marked in enumerate(along):
        planes = marked.nonzero()[:, 0]
        low.append(max(int(planes[0]) - 2, 0))
        high.append(min(int(planes[-1]) + 2, grid.values.shape[axis] - 1))
    return Box(grid.origin + grid.spacing * torch.tensor(low), grid.origin + grid.spacing * torch.tensor(high))
