"""The blur before extraction: removes surface noise without shrinking silhouettes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from distill3d.export.surface.grid import DensityGrid
from distill3d.export.surface.isosurface import EmptySurfaceError, extract_isosurface, log_ratio
from distill3d.export.surface.mesh import face_normals
from distill3d.export.surface.threshold import intersection_over_union, largest_density
from distill3d.types import Cameras

BLURS = (0.0075, 0.015, 0.03)  # shares of the object's size
LOWER = (
    1.0,
    0.8,
    0.64,
    0.5,
    0.4,
    0.3,
)  # blur lowers the density of a haze, so that its outline needs a lower level
ROUGH = 1.2  # twice the blur that takes away more of the area than this has taken away noise
EQUAL = 0.003  # agreements this close are the same
LOSS = 0.02  # agreement of the silhouettes that more blur may cost


@dataclass(frozen=True)
class BlurChoice:
    """The blur as a share of the object's size, the level that goes with it, and the silhouettes' agreement."""

    blur: float
    level: float
    agreement: float


def choose_blur(
    grid: DensityGrid, level: float, size: float, cameras: Cameras, opaque: Bool[Tensor, "B H W"]
) -> BlurChoice:
    """The least blur with a smooth surface. More is tried while it takes much area away and keeps the silhouettes.

    Area alone would smooth thin parts away, and silhouettes alone do not see relief.
    """
    chosen = _fit(grid, level, BLURS[0], size, cameras, opaque)
    for blur in BLURS[1:]:
        rough, smooth = (_area(grid, chosen.level, b * size) for b in (chosen.blur, blur))
        if smooth == 0.0 or rough < ROUGH * smooth:
            break
        more = _fit(grid, level, blur, size, cameras, opaque)
        if more.agreement < chosen.agreement - LOSS:
            break
        chosen = more
    return chosen


def _fit(
    grid: DensityGrid, level: float, blur: float, size: float, cameras: Cameras, opaque: Bool[Tensor, "B H W"]
) -> BlurChoice:
    """The level, at most the given one, whose blurred silhouettes agree best."""
    stride = max(cameras.height // 64, 1)
    opaque = opaque[:, ::stride, ::stride]
    fits: list[BlurChoice] = []
    for factor in LOWER:
        f = log_ratio(grid.values.numpy(), factor * level, blur * size / grid.spacing)
        ratio = DensityGrid(torch.from_numpy(np.exp(f)), grid.origin, grid.spacing)
        agreement = intersection_over_union(largest_density(ratio, cameras, stride) > 1.0, opaque)
        if fits and agreement < fits[-1].agreement - EQUAL:
            break  # past the best one
        fits.append(BlurChoice(blur, factor * level, agreement))
    best = max(fit.agreement for fit in fits)
    return next(fit for fit in fits if fit.agreement >= best - EQUAL)  # the highest level of the good ones


def _area(grid: DensityGrid, level: float, blur: float) -> float:
    try:
        surface = extract_isosurface(grid, level, blur)
    except EmptySurfaceError:
        return 0.0  # all of it is thinner than the blur
    return 0.5 * float(np.linalg.norm(face_normals(surface), axis=1).sum())
