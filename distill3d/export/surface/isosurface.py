"""From a density grid to a closed triangle surface by marching cubes."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from distill3d.export.surface.grid import DensityGrid
from distill3d.export.surface.mesh import Surface

CLAMP = math.log(2.0)  # twice the level is as good as full, half of it as good as empty
FULL = 0.98  # a level that leaves less than this share of the nodes outside has no object in it
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0)


class EmptySurfaceError(ValueError):
    """The isosurface is empty, or it fills the whole scene."""


def extract_isosurface(grid: DensityGrid, level: float, blur: float = 0.0) -> Surface:
    """The surface ``density == level``, oriented outwards, closed where the object touches the grid's box.

    Marching cubes with Lewiner's topological guarantees (skimage) on the logarithm of ``density / level``, clamped
    to +-log 2: symmetric about the surface although densities span orders of magnitude, so that a Gaussian of standard
    deviation ``blur`` (world units) removes noise without moving flat surfaces.
    Raises EmptySurfaceError where no node, or nearly every node, exceeds the level.
    """
    from skimage.measure import marching_cubes

    check_not_degenerate(grid, level)
    sigma = blur / grid.spacing  # nodes
    crop = _around(grid.values > level, math.ceil(3.0 * sigma) + 1)
    f = log_ratio(grid.values[crop].numpy(), level, sigma)
    for axis in range(3):
        np.moveaxis(f, axis, 0)[[0, -1]] = -CLAMP
    if not (f > 0.0).any():
        raise EmptySurfaceError(
            f"nothing above density {level:.4g} is thicker than the blur; lower system.exporter.blur or threshold"
        )
    f[f == 0.0] = -1e-6  # a node exactly on the surface would make triangles without area
    vertices, faces, _, _ = marching_cubes(f, 0.0, gradient_direction="ascent")
    origin = grid.origin.numpy() + grid.spacing * np.array([axis.start for axis in crop])
    return Surface((origin + grid.spacing * vertices).astype(np.float32), np.ascontiguousarray(faces, np.int64))


def log_ratio(values: Float[ndarray, "X Y Z"], level: float, sigma: float) -> Float[ndarray, "X Y Z"]:
    """``log(density / level)`` clamped to +-log 2, then blurred by ``sigma`` nodes; what lies outside is empty."""
    from scipy.ndimage import gaussian_filter

    f = np.clip(np.log(np.maximum(values / level, 1e-6)), -CLAMP, CLAMP).astype(np.float32)
    return gaussian_filter(f, sigma, truncate=3.0, mode="constant", cval=-CLAMP) if sigma > 0.0 else f


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


def _around(inside: Bool[Tensor, "X Y Z"], margin: int) -> tuple[slice, slice, slice]:
    """The smallest crop that holds every node inside and so many planes around it, as far as there are any."""
    crop = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        planes = inside.any(dim=others[1]).any(dim=others[0]).nonzero()[:, 0]
        crop.append(slice(max(int(planes[0]) - margin, 0), int(planes[-1]) + margin + 1))
    return crop[0], crop[1], crop[2]
