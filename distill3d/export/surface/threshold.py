"""The density at which the surface lies: the candidate whose silhouettes agree best with the rendered opacity."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.camera import camera_rays
from distill3d.export.surface.grid import DensityGrid, sample_grid
from distill3d.types import Cameras

CANDIDATES = 16
RAYS = 64
PLATEAU = 0.005  # candidates this close to the best agreement are equally good; the middle one is the most robust


@dataclass(frozen=True)
class ThresholdChoice:
    """The chosen density, its agreement with the opacity, and everything that was tried."""

    threshold: float
    agreement: float  # intersection over union of the silhouettes, all views together
    candidates: list[float]
    agreements: list[float]


def choose_threshold(grid: DensityGrid, cameras: Cameras, opaque: Bool[Tensor, "B H W"]) -> ThresholdChoice:
    """Compare silhouettes with ``opaque`` (the rendered opacity above one half) for a ladder of densities.

    The silhouette of the isosurface at a threshold is where the largest density along the ray exceeds it, so one
    walk through the grid serves every candidate. The ladder is geometric: from ``ln 2 / diagonal``, the density of a
    uniform box that is half opaque, to 0.9 of the largest density. Raises ValueError if the grid holds no density.
    """
    highest, lowest = 0.9 * float(grid.values.max()), math.log(2.0) / float(grid.box.extent.norm())
    if not highest > 0.0:
        raise ValueError("the density is zero everywhere, so no threshold exists")
    lowest = min(lowest, 0.5 * highest)
    candidates = torch.logspace(math.log10(lowest), math.log10(highest), CANDIDATES).tolist()
    stride = max(cameras.height // RAYS, 1)  # so many rays in each direction tell enough
    along_rays = largest_density(grid, cameras, stride)
    opaque = opaque[:, ::stride, ::stride]
    agreements = [intersection_over_union(along_rays > candidate, opaque) for candidate in candidates]
    good = [i for i, a in enumerate(agreements) if a >= max(agreements) - PLATEAU]
    chosen = good[len(good) // 2]
    return ThresholdChoice(candidates[chosen], agreements[chosen], candidates, agreements)


def largest_density(grid: DensityGrid, cameras: Cameras, stride: int = 1) -> Float[Tensor, "B h w"]:
    """The largest density along every ``stride``-th pixel's ray within the grid's box, a sample a cell.

    Interpolated in the logarithm: linear interpolation would thicken what falls off within a cell.
    """
    floor = 1e-6 * max(float(grid.values.max()), 1e-6)
    logarithm = replace(grid, values=(grid.values.clamp_min(floor) / floor).log())
    rays = camera_rays(cameras.to("cpu"))
    origins, directions = rays.origins[:, ::stride, ::stride], rays.directions[:, ::stride, ::stride]
    distance = float((origins - grid.box.center).norm(dim=-1).amax())
    reach = 0.5 * float(grid.box.extent.norm())
    largest = torch.zeros(origins.shape[:-1])
    for t in torch.arange(max(distance - reach, 0.0), distance + reach, grid.spacing):
        largest = torch.maximum(largest, sample_grid(logarithm, origins + t * directions))
    return floor * largest.exp()


def intersection_over_union(a: Bool[Tensor, "*S"], b: Bool[Tensor, "*S"]) -> float:
    """``|a and b| / |a or b|``; two empty sets agree."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
