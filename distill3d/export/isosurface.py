"""From a density grid to a closed triangle surface by marching cubes."""

from __future__ import annotations

import numpy as np
import torch

from distill3d.export.grid import DensityGrid
from distill3d.export.mesh import Surface

FULL = 0.98  # a level that leaves less than this share of the nodes outside has no object in it
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0)


class EmptySurfaceError(ValueError):
    """The isosurface is empty, or it fills the whole scene."""


def extract_isosurface(grid: DensityGrid, level: float) -> Surface:
    """The surface ``density == level``, oriented outwards, closed where the object touches the grid's box.

    Marching cubes with Lewiner's topological guarantees (skimage). The boundary nodes count as empty, which closes
    the surface within the last cell. Raises EmptySurfaceError where no node, or nearly every node, exceeds the level.
    """
    from skimage.measure import marching_cubes

    check_not_degenerate(grid, level)
    inside = grid.values[1:-1, 1:-1, 1:-1] > level
    low, high = zip(*(_span(inside, axis) for axis in range(3)), strict=True)
    values = grid.values[tuple(slice(lo, hi + 3) for lo, hi in zip(low, high, strict=True))].numpy() / np.float32(level)
    for axis in range(3):  # the crop's outer planes are empty already, except on the grid's own boundary
        np.moveaxis(values, axis, 0)[[0, -1]] = 0.0
    values[values == 1.0] = np.float32(1.0 - 1e-6)  # a node exactly on the surface would make triangles without area
    vertices, faces, _, _ = marching_cubes(values, 1.0, gradient_direction="ascent")
    origin = grid.origin.numpy() + grid.spacing * np.array(low)
    return Surface((origin + grid.spacing * vertices).astype(np.float32), np.ascontiguousarray(faces, np.int64))


def check_not_degenerate(grid: DensityGrid, level: float) -> None:
    """Raise EmptySurfaceError, with the density's quantiles and the setting to change, where there is no surface."""
    if not bool(grid.values.isfinite().all()):
        raise EmptySurfaceError(
            "the density is not finite everywhere: the training diverged; "
            "export an earlier checkpoint, or train again with a smaller learning rate"
        )
    share = int((grid.values > level).sum()) / grid.values.numel()
    if 0.0 < share < FULL and bool((grid.values[1:-1, 1:-1, 1:-1] > level).any()):
        return
    kind, remedy = ("empty", "lower") if share < FULL else ("full", "raise")
    raise EmptySurfaceError(
        f"the isosurface at density {level:.4g} is {kind} ({share:.1%} of the points lie inside); "
        f"{remedy} system.exporter.threshold, or train longer; density quantiles: {describe_quantiles(grid)}"
    )


def describe_quantiles(grid: DensityGrid) -> str:
    """The density's quantiles over the grid's nodes, for an error message."""
    values = np.quantile(grid.values.numpy().ravel(), QUANTILES)
    return ", ".join(f"{100 * q:g}% {v:.4g}" for q, v in zip(QUANTILES, values, strict=True))


def _span(inside: torch.Tensor, axis: int) -> tuple[int, int]:
    """First and last plane along the axis that has a node inside."""
    others = [a for a in range(3) if a != axis]
    planes = inside.any(dim=others[1]).any(dim=others[0]).nonzero()[:, 0]
    return int(planes[0]), int(planes[-1])
