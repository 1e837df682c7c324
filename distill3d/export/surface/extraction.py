"""From a trained scene to one clean surface: where it lies, which parts stay, how many faces."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import torch

from distill3d.camera import make_cameras
from distill3d.export.query import SceneField
from distill3d.export.surface.alignment import aligned
from distill3d.export.surface.grid import Box, DensityGrid, level_box, opaque_box, refine, scan
from distill3d.export.surface.isosurface import (
    EmptySurfaceError,
    check_not_degenerate,
    describe_quantiles,
    extract_isosurface,
)
from distill3d.export.surface.manifold import made_manifold
from distill3d.export.surface.mesh import Surface, decimated, largest_parts, smoothed
from distill3d.export.surface.smoothing import BLURS, BlurChoice, choose_blur
from distill3d.export.surface.threshold import choose_threshold
from distill3d.export.surface.visibility import filling
from distill3d.scenes.base import Solid
from distill3d.types import Cameras, RenderOutput

ExportFigures = dict[str, float | int | str]

log = logging.getLogger(__name__)

SCAN_CELLS = 80  # the first look at the whole scene; the object may fill a quarter of it
BASE_CELLS = 64  # the coarsest grid that refinement starts from
REACH = 0.02  # of the object's size: how far the surface may lie inside what is seen
PORE = 0.02  # of the object's size: narrower openings lead into the scene's untrained inside
VIEW_ELEVATIONS_DEG = (10.0, 40.0)  # by turns, so that silhouettes see the sides and the top


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
    """The surface, the density at which it lies, and the views in which the scene was looked at."""

    field: SceneField
    surface: Surface
    level: float
    reach: float  # how far what is seen may lie outside the simplified surface, world units
    cameras: Cameras
    views: RenderOutput
    figures: ExportFigures


def find_surface(solid: Solid, settings: SurfaceSettings) -> FoundSurface:
    """Scan, choose the level, refine, extract, clean. Raises EmptySurfaceError if there is no surface."""
    field = SceneField.of(solid)
    box = object_box(field, settings.threshold)
    size = float(box.extent.max())
    halvings = max(int(math.log2(settings.resolution / BASE_CELLS)), 0)
    grid = scan(field, box, math.ceil(settings.resolution / 2**halvings))
    cameras = surrounding_cameras(box, settings.views, settings.view_size)
    white = torch.ones(3, device=field.device)
    views = solid.render(cameras.to(field.device), shading="albedo", background=white, need_normal=False)
    level, blur, figures = _level_and_blur(grid, size, cameras, views, settings)
    check_not_degenerate(grid, level)
    floor = filling(grid, level, PORE * size)
    grid = replace(grid, values=torch.maximum(grid.values, floor.values))
    for _ in range(halvings):
        grid = refine(field, grid, level, floor)
    surface, cleaning = _clean(extract_isosurface(grid, level, blur * size), 0.01 * grid.spacing, settings)
    if not settings.smooth and blur <= BLURS[0]:  # the isosurface of a noisy scene is noise
        surface = aligned(field, surface, level, max(2.0 * grid.spacing, 0.01 * size))
    cleaning |= {"watertight": int(surface.is_watertight), "volume": surface.volume}
    return FoundSurface(
        field, surface, level, REACH * size, cameras, views, figures | {"voxel": grid.spacing} | cleaning
    )


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


def surrounding_cameras(box: Box, count: int, size: int) -> Cameras:
    """Cameras around the box that see all of it, starting at the front."""
    index = torch.arange(count)
    elevation_deg = torch.tensor(VIEW_ELEVATIONS_DEG)[index % len(VIEW_ELEVATIONS_DEG)]
    distance = 1.5 * float(box.extent.norm())  # three radii of the box's sphere
    fovy_deg = torch.full((count,), 2.0 * math.degrees(math.asin(1.0 / 3.0)))
    center = box.center.expand(count, 3)
    full = torch.full((count,), distance)
    return make_cameras(elevation_deg, index * (360.0 / count), full, fovy_deg, size, size, center, center)


def _level_and_blur(
    grid: DensityGrid, size: float, cameras: Cameras, views: RenderOutput, settings: SurfaceSettings
) -> tuple[float, float, ExportFigures]:
    """The given ones, or those whose silhouettes agree with the views."""
    if settings.threshold is not None:
        blur = BLURS[0] if settings.blur is None else settings.blur
        return settings.threshold, blur, {"threshold": settings.threshold, "blur": blur}
    opaque = views.opacity[:, 0].cpu() > 0.5
    if not bool(opaque.any()):
        raise EmptySurfaceError(
            f"the scene is empty (no view is opaque anywhere, at most {float(views.opacity.max()):.2g}); train longer, "
            f"or give system.exporter.threshold; density quantiles: {describe_quantiles(grid)}"
        )
    choice = choose_threshold(grid, cameras, opaque)
    tried = ", ".join(f"{c:.3g}: {a:.3f}" for c, a in zip(choice.candidates, choice.agreements, strict=True))
    log.info("threshold %.4g chosen by silhouettes (density: agreement): %s", choice.threshold, tried)
    if settings.blur is not None:
        chosen = BlurChoice(settings.blur, choice.threshold, choice.agreement)
    else:
        floor = filling(grid, choice.threshold, PORE * size)
        filled = replace(grid, values=torch.maximum(grid.values, floor.values))
        chosen = choose_blur(filled, choice.threshold, size, cameras, opaque)
        log.info("blurred by %.3g of the object's size, threshold %.4g", chosen.blur, chosen.level)
    figures: ExportFigures = {"threshold": chosen.level, "blur": chosen.blur, "silhouette_agreement": chosen.agreement}
    return chosen.level, chosen.blur, figures


def _clean(surface: Surface, gap: float, settings: SurfaceSettings) -> tuple[Surface, ExportFigures]:
    extracted = len(surface.faces)
    surface, dropped = largest_parts(surface, settings.keep_parts, settings.min_part_share)
    surface = smoothed(surface, settings.smooth) if settings.smooth else surface
    surface = made_manifold(decimated(surface, settings.faces), gap)
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
    return surface, figures
