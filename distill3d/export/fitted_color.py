"""A surface's colours as pictures of the scene show them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from distill3d.export.appearance import seen_along_normals
from distill3d.export.color_grid import ColorCorrection, fit_correction
from distill3d.export.query import SceneField
from distill3d.export.surface.mesh import Surface, vertex_normals
from distill3d.export.views import AlbedoViews
from distill3d.scenes.mesh.raster import Mesh, rasterize, unit_vectors

LEAST_OPACITY = 0.3  # pixels that show less of the object tell too little of its colour
CELLS = 128  # nodes of the correction along the object's size: about one a pixel of the views


@dataclass(frozen=True)
class SurfacePixels:
    """The pixels of views that show a surface: where they see it, and the scene's own colour there."""

    points: Float[ndarray, "P 3"]
    normals: Float[ndarray, "P 3"]
    color: Float[ndarray, "P 3"]
    weight: Float[ndarray, "P"]  # the opacity

    @staticmethod
    def of(surface: Surface, views: AlbedoViews) -> SurfacePixels:
        seen = rasterize(Mesh(surface.vertices, surface.faces, vertex_normals(surface)), views.cameras, supersample=1)
        shown = (seen.mask > 0.5) & (views.opacity > LEAST_OPACITY)
        rows = lambda image: image.permute(0, 2, 3, 1)[shown[:, 0]].numpy()  # noqa: E731
        normals = unit_vectors(seen.attributes)
        color = views.own_color(LEAST_OPACITY)
        return SurfacePixels(rows(seen.position), rows(normals), rows(color), views.opacity[shown].numpy())


@dataclass(frozen=True)
class SurfaceColors:
    """Colours at points of a surface: what is seen straight at it, corrected by what views from all sides show."""

    field: SceneField
    reach: float
    correction: ColorCorrection | None = None

    def at(self, points: Float[ndarray, "P 3"], normals: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        """Display-referred colours in [0, 1]; normals have unit length and point outwards."""
        color = self.straight(points, normals)
        return color if self.correction is None else np.clip(color + self.correction.at(points), 0.0, 1.0)

    def straight(self, points: Float[ndarray, "P 3"], normals: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        """Without the correction."""
        at, along = (torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (points, normals))
        return seen_along_normals(self.field, at, along, self.reach)[0].numpy()


def fitted_colors(field: SceneField, surface: Surface, reach: float, views: AlbedoViews | None) -> SurfaceColors:
    """The surface's colours, corrected to what the views show; without views, or where none shows it, as they are."""
    colors = SurfaceColors(field, reach)
    if views is None:
        return colors
    pixels = SurfacePixels.of(surface, views)
    if len(pixels.points) == 0:
        return colors
    spacing = float(np.ptp(surface.vertices, axis=0).max()) / CELLS
    residual = pixels.color - colors.straight(pixels.points, pixels.normals)
    everywhere = np.concatenate([surface.vertices, surface.vertices[surface.faces].mean(axis=1)])
    return SurfaceColors(field, reach, fit_correction(everywhere, spacing, pixels.points, residual, pixels.weight))
