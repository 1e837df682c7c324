"""Occluded density: no view trains the inside of an object, so its noise must not become surface."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from distill3d.export.surface.grid import DensityGrid

BURIED, DIM = math.log(2.0), 0.2  # optical depths: half, and about a fifth, of the light is lost
SLOPES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # sideways steps for each step along an axis: 150 directions in all


def filling(grid: DensityGrid, level: float, pore: float) -> DensityGrid:
    """Ten times the level at occluded nodes inside the object, zero elsewhere.

    Two tests together, because each alone errs: narrow slots are enclosed, but light falls into them, and where the
    level lies deep within soft matter, dark nodes are still outside. A node is enclosed if it can be reached from
    outside only through openings narrower than ``2 pore`` (world units); then it must be dim. It is buried if from
    every direction more than half of the light is lost before it and its neighbours; then wider openings will do.
    """
    nodes = max(round(pore / grid.spacing), 1)
    depth = least_depth(grid)
    buried = -F.max_pool3d(-F.pad((depth > BURIED).float()[None], (1,) * 6), 3, stride=1)[0] > 0
    hidden = (enclosed(grid, level, nodes) & (depth > DIM)) | (enclosed(grid, level, 3 * nodes) & buried)
    return DensityGrid(10.0 * level * hidden, grid.origin, grid.spacing)


def enclosed(grid: DensityGrid, level: float, nodes: int) -> Bool[Tensor, "X Y Z"]:
    """Nodes that a ball of radius ``nodes`` cannot reach from outside without touching values above the level."""
    from scipy import ndimage

    solid = np.pad(grid.values.numpy() > level, nodes + 1)
    labels = np.zeros(solid.shape, np.int32)
    ndimage.label(np.logical_not(ndimage.binary_dilation(solid, iterations=nodes)), output=labels)
    touched = np.asarray(ndimage.binary_dilation(labels == labels[0, 0, 0], iterations=nodes + 1))
    inner = (slice(nodes + 1, -nodes - 1),) * 3
    return torch.from_numpy(np.logical_not(touched)[inner])


def least_depth(grid: DensityGrid) -> Float[Tensor, "X Y Z"]:
    """The smallest optical depth, ``integral of density``, between a node and the outside over all directions.

    Computed at every second node; between two of them the smaller value stands.
    """
    coarse = F.pad(grid.values, (0, 1) * 3)[::2, ::2, ::2]
    least = torch.full_like(coarse, torch.inf)
    for axis in range(3):
        values, out = coarse.movedim(axis, 0), least.movedim(axis, 0)
        for slopes in itertools.product(SLOPES, SLOPES):
            _sweep(values, out, 2.0 * grid.spacing, slopes, range(len(values)))
            _sweep(values, out, 2.0 * grid.spacing, slopes, range(len(values) - 1, -1, -1))
    for axis in range(3):
        least = _with_minima_between(least.movedim(axis, 0)).movedim(0, axis)
    return least[tuple(slice(n) for n in grid.values.shape)].contiguous()


def _with_minima_between(planes: Float[Tensor, "N *S"]) -> Float[Tensor, "2N-1 *S"]:
    between = torch.minimum(planes[:-1], planes[1:])
    return torch.cat([torch.stack([planes[:-1], between], dim=1).flatten(0, 1), planes[-1:]])


def _sweep(
    values: Float[Tensor, "X Y Z"],
    least: Float[Tensor, "X Y Z"],
    spacing: float,
    slopes: tuple[float, float],
    planes: range,
) -> None:
    """Carry the optical depth from plane to plane in one direction; lower ``least`` to it, in place."""
    length = spacing * math.sqrt(1.0 + slopes[0] ** 2 + slopes[1] ** 2)
    depth = torch.zeros_like(values[0])
    before, last = (0, 0), None
    for step, plane in enumerate(planes):
        now = (math.floor(step * slopes[0] + 0.5), math.floor(step * slopes[1] + 0.5))
        if last is not None:
            depth = _shifted(depth + 0.5 * length * values[last], now[0] - before[0], now[1] - before[1])
            depth = depth + 0.5 * length * values[plane]
        torch.minimum(least[plane], depth, out=least[plane])
        before, last = now, plane


def _shifted(plane: Float[Tensor, "Y Z"], y: int, z: int) -> Float[Tensor, "Y Z"]:
    """The plane moved by whole nodes; what enters from outside is empty."""
    rows, columns = plane.shape
    padded = F.pad(plane, (max(z, 0), max(-z, 0), max(y, 0), max(-y, 0)))
    return padded[max(-y, 0) : max(-y, 0) + rows, max(-z, 0) : max(-z, 0) + columns]
