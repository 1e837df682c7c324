"""The density at which the surface looks most like the scene, in silhouette and colour."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch

from distill3d.export.color_grid import fit_correction
from distill3d.export.fitted_color import SurfacePixels
from distill3d.export.surface.grid import DensityGrid
from distill3d.export.surface.isosurface import EmptySurfaceError, extract_isosurface
from distill3d.export.surface.mesh import Surface
from distill3d.export.views import AlbedoViews
from distill3d.scenes.mesh.raster import Mesh, rasterize

log = logging.getLogger(__name__)

STEP = 1.6  # from one candidate to the next
MOST_STEPS = 7
VIEW_PIXELS = 48  # along a side; finer views tell no more about where a soft surface lies
CELLS = 48  # colours of a candidate, along the object's size
GREY = 0.5
GAIN_DB = 0.02  # a step must gain so much, so that a plateau ends the search


@dataclass(frozen=True)
class LevelChoice:
    """The chosen density, its likeness in dB, and everything that was tried."""

    level: float
    likeness_db: float
    tried: dict[float, float]


def choose_level(grid: DensityGrid, start: float, blur: float, views: AlbedoViews) -> LevelChoice:
    """Climb from ``start`` up, then down, by factors of STEP while the likeness grows; ``blur`` in world units."""
    if len(views) < 2:
        return LevelChoice(start, -math.inf, {})  # nothing to judge by
    views = views.smaller(views.cameras.height // VIEW_PIXELS)
    tried = {start: likeness_db(grid, start, blur, views)}
    best = start
    for factor in (STEP, 1.0 / STEP):
        for _ in range(MOST_STEPS):
            level = best * factor
            if level in tried:
                break
            tried[level] = likeness_db(grid, level, blur, views)
            if tried[level] < tried[best] + GAIN_DB:
                break
            best = level
        if best != start:
            break
    described = ", ".join(f"{level:.3g}: {tried[level]:.2f}" for level in sorted(tried))
    log.info("level %.4g chosen by silhouettes and colours (density: dB): %s", best, described)
    return LevelChoice(best, tried[best], tried)


def likeness_db(grid: DensityGrid, level: float, blur: float, views: AlbedoViews) -> float:
    """PSNR on the object between every second view and the surface in colours that were fitted to the others.

    -inf where there is no surface.
    """
    try:
        surface = extract_isosurface(grid, level, blur)
    except EmptySurfaceError:
        return -math.inf
    return surface_likeness_db(surface, views)


def surface_likeness_db(surface: Surface, views: AlbedoViews) -> float:
    """As `likeness_db`, for a surface."""
    shown = SurfacePixels.of(surface, views[::2])
    if len(shown.points) == 0:
        return -math.inf
    spacing = float(np.ptp(surface.vertices, axis=0).max()) / CELLS
    colors = fit_correction(surface.vertices, spacing, shown.points, shown.color - GREY, shown.weight)
    others = views[1::2]
    buffer = rasterize(Mesh(surface.vertices, surface.faces, surface.vertices[:, :1]), others.cameras, supersample=1)
    mask = buffer.mask[:, 0] > 0.5
    drawn = torch.ones_like(others.color).permute(0, 2, 3, 1)
    drawn[mask] = torch.from_numpy(GREY + colors.at(buffer.position.permute(0, 2, 3, 1)[mask].numpy())).to(drawn)
    either = mask | (others.opacity[:, 0] > 0.5)
    error = (drawn - others.color.permute(0, 2, 3, 1))[either].square().mean()
    return -10.0 * math.log10(max(float(error), 1e-12))
