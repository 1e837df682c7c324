"""From a trained scene to one clean surface: where it lies, which parts stay, how many faces."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import torch

from distill3d.export.query import SceneField
from distill3d.export.surface.alignment import aligned
from distill3d.export.surface.grid import Box, DensityGrid, level_box, opaque_box, refine, resampled, scan
from distill3d.export.surface.isosurface import (
    EmptySurfaceError,
    check_not_degenerate,
    describe_quantiles,
    extract_isosurface,
)
from distill3d.export.surface.level import choose_level
from distill3d.export.surface.manifold import made_manifold
from distill3d.export.surface.mesh import Surface, decimated, largest_parts, smoothed, with_distinct_vertices
from distill3d.export.surface.photometric import matched
from distill3d.export.surface.smoothing import BLURS, BlurChoice, choose_blur
from distill3d.export.surface.threshold import choose_threshold
from distill3d.export.surface.visibility import filling
from distill3d.export.views import LENS_PIXELS, AlbedoViews, framed, surrounding_cameras
from distill3d.scenes.base import Solid
from distill3d.types import Cameras

ExportFigures = dict[str, float | int | str]

log = logging.getLogger(__name__)

LEVEL_CELLS = 96  # of the grid on which the level is chosen
SILHOUETTES, SILHOUETTE_PIXELS = 8, 48  # so many views of such a height tell where the level is
SCAN_CELLS = 80  # the first look at the whole scene; the object may fill a quarter of it
BASE_CELLS = 64  # the coarsest grid that refinement starts from
REACH = 0.02  # of the object's size: how far the surface may lie inside what is seen
PORE = 0.02  # of the object's size: narrower openings lead into the scene's untrained inside


@dataclass(frozen=True)
class SurfaceSettings:
    """How to find and to clean the surface; ``threshold`` None means automatic."""

    threshold: float | None
    resolution: int
    blur: float | None  # share of the object's size; None: as much as the scene's noise needs
    keep_parts: int
    min_part_share: float
    smooth: int
    faces: int
    views: int
    view_size: int


@dataclass(frozen=True)
class FoundSurface:
    """The surface, and the density at which it lies."""

    field: SceneField
    surface: Surface
    detail: Surface  # the same before it was simplified
    level: float
    reach: float  # how far what is seen may lie outside the simplified surface, world units
    figures: ExportFigures


def find_surface(
    solid: Solid, settings: SurfaceSettings, box: Box | None = None, views: AlbedoViews | None = None
) -> FoundSurface:
    """Choose the level, refine, extract, clean. Raises EmptySurfaceError if there is no surface.

    ``box``: where the object is, else it is looked for. ``views``: what the surface shall look like; without them the
    level is chosen by the scene's own, and the surface is the isosurface.
    """
    field = SceneField.of(solid)
    box = object_box(field, settings.threshold) if box is None else box
    size = float(box.extent.max())
    coarse = scan(field, box, LEVEL_CELLS)  # the same for every resolution, so that the level is
    cameras = surrounding_cameras(box, settings.views, settings.view_size)
    level, blur, floor, figures = _level_and_blur(coarse, size, views or seen_views(solid, cameras), settings)
    grid = _refined(field, box, coarse, floor, level, settings.resolution)
    surface, detail, cleaning = _clean(extract_isosurface(grid, level, blur * size), 0.01 * grid.spacing, settings)
    if not settings.smooth and blur <= BLURS[0]:  # the isosurface of a noisy scene is noise
        surface = aligned(field, surface, level, max(2.0 * grid.spacing, 0.01 * size))
    if views is not None and settings.threshold is None:
        surface = matched(surface, views, size)
    surface = with_distinct_vertices(surface, 0.01 * grid.spacing)
    figures |= {"voxel": grid.spacing, **cleaning, "watertight": int(surface.is_watertight), "volume": surface.volume}
    return FoundSurface(field, surface, detail, level, REACH * size, figures)


def seen_views(solid: Solid, cameras: Cameras) -> AlbedoViews:
    """The scene's albedo over white."""
    device = SceneField.of(solid).device
    white = torch.ones(3, device=device)
    seen = solid.render(cameras.to(device), shading="albedo", background=white, need_normal=False)
    return AlbedoViews.of(cameras, seen)


def framed_views(solid: Solid, cameras: Cameras) -> AlbedoViews:
    """The same through a lens that the object fills."""
    small = replace(cameras, height=LENS_PIXELS, width=LENS_PIXELS)
    return seen_views(solid, framed(cameras, seen_views(solid, small).opacity))


def object_box(field: SceneField, threshold: float | None) -> Box:
    """The box around what is opaque, or around what exceeds a given threshold; EmptySurfaceError if nothing does."""
    radius = torch.full((3,), field.radius)
    grid = scan(field, Box(-radius, radius), SCAN_CELLS)
    if not bool(grid.values.isfinite().all()):
        check_not_degenerate(grid, 0.0)
    box = opaque_box(grid) if threshold is None else level_box(grid, threshold)
    if box is None:
        tried = "nothing is opaque" if threshold is None else f"no density > {threshold:g}"
        raise EmptySurfaceError(
            f"the scene is empty ({tried}); set system.exporter.threshold below the largest density, or train longer; "
            f"density quantiles: {describe_quantiles(grid)}"
        )
    return box


def _refined(
    field: SceneField, box: Box, coarse: DensityGrid, floor: DensityGrid, level: float, resolution: int
) -> DensityGrid:
    """Densities with ``resolution`` cells along the object, exact near the level, raised to those of the floor."""
    halvings = max(int(math.log2(resolution / BASE_CELLS)), 0)
    cells = math.ceil(resolution / 2**halvings)
    grid = coarse if cells == LEVEL_CELLS else scan(field, box, cells)
    grid = replace(grid, values=torch.maximum(grid.values, resampled(floor, grid)))
    for _ in range(halvings):
        grid = refine(field, grid, level, floor)
    return grid


def _level_and_blur(
    grid: DensityGrid, size: float, views: AlbedoViews, settings: SurfaceSettings
) -> tuple[float, float, DensityGrid, ExportFigures]:
    """The given ones, or those with which the surface looks like the views; and what nobody can see, filled."""
    if settings.threshold is not None:
        check_not_degenerate(grid, settings.threshold)
        blur = BLURS[0] if settings.blur is None else settings.blur
        floor = filling(grid, settings.threshold, PORE * size)
        return settings.threshold, blur, floor, {"threshold": settings.threshold, "blur": blur}
    opaque = views.opacity[:, 0] > 0.5
    if not bool(opaque.any()):
        raise EmptySurfaceError(
            f"the scene is empty (no view is opaque anywhere, at most {float(views.opacity.max()):.2g}); train longer, "
            f"or give system.exporter.threshold; density quantiles: {describe_quantiles(grid)}"
        )
    some = views[:: max(len(views) // SILHOUETTES, 1)]
    some = some.smaller(max(views.cameras.height // SILHOUETTE_PIXELS, 1))
    opaque = some.opacity[:, 0] > 0.5
    choice = choose_threshold(grid, some.cameras, opaque)
    tried = ", ".join(f"{c:.3g}: {a:.3f}" for c, a in zip(choice.candidates, choice.agreements, strict=True))
    log.info("threshold %.4g chosen by silhouettes (density: agreement): %s", choice.threshold, tried)
    floor = filling(grid, choice.threshold, PORE * size)
    filled = replace(grid, values=torch.maximum(grid.values, floor.values))
    if settings.blur is not None:
        blurred = BlurChoice(settings.blur, choice.threshold, choice.agreement)
    else:
        blurred = choose_blur(filled, choice.threshold, size, some.cameras, opaque)
        log.info("blurred by %.3g of the object's size, threshold %.4g", blurred.blur, blurred.level)
    level = choose_level(filled, blurred.level, blurred.blur * size, views).level
    check_not_degenerate(grid, level)
    floor = filling(grid, level, PORE * size)
    figures: ExportFigures = {"threshold": level, "blur": blurred.blur, "silhouette_agreement": blurred.agreement}
    return level, blurred.blur, floor, figures


def _clean(surface: Surface, gap: float, settings: SurfaceSettings) -> tuple[Surface, Surface, ExportFigures]:
    """The surface that is exported, the same with all its faces, and what was done."""
    extracted = len(surface.faces)
    surface, dropped = largest_parts(surface, settings.keep_parts, settings.min_part_share)
    detail = smoothed(surface, settings.smooth) if settings.smooth else surface
    surface = made_manifold(decimated(detail, settings.faces), gap)
    surface, _ = largest_parts(surface, settings.keep_parts, settings.min_part_share)  # slivers of opened pinches go
    figures: ExportFigures = {
        "faces": len(surface.faces),
        "faces_extracted": extracted,
        "parts_dropped": dropped,
    }
    log.info(
        "isosurface with %d faces, %d small or hidden parts dropped, decimated to %d faces, %s",
        *(extracted, dropped, len(surface.faces), "watertight" if surface.is_watertight else "not watertight"),
    )
    return surface, detail, figures
