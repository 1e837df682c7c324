"""A surface moved to where the pictures of the scene want it, by Gauss-Newton on offsets along its normals.

A volume is soft: where along a ray its colour comes from differs from the isosurface by some pixels, and then no
texture suits two views at once. Here silhouettes and colours of many views decide together where the surface lies.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from distill3d.export.color_grid import NodeGrid, fit_correction
from distill3d.export.fitted_color import SurfacePixels
from distill3d.export.surface.mesh import Surface, moved, vertex_normals
from distill3d.export.views import AlbedoViews
from distill3d.scenes.mesh.raster import Mesh, rasterize, unit_vectors
from distill3d.types import Cameras

log = logging.getLogger(__name__)

ROUNDS = 4
COLOR_CELLS, OFFSET_CELLS = 96, 48  # nodes along the object's size
SMOOTHNESS, DAMPING = 3.0, 0.05  # of the offsets, in units of the mean curvature of the error
LARGEST_MOVE = 0.01  # in one round, of the object's size
SILHOUETTE = 2.0  # how much more the silhouette counts than one channel of the colour
BLUR_PIXELS = 1.0  # of both pictures, so that an edge that is a pixel off has a slope to follow
RIM = 0.02  # share of the surface in a blurred pixel, from which on the pixel belongs to its silhouette
SUPERSAMPLE = 2  # subpixels along a pixel's side
GREY = 0.5


@dataclass(frozen=True)
class _Drawn:
    """The surface in its fitted colours, and what it would show with an offset."""

    image: Float[Tensor, "B H W 4"]  # colour over white, and SILHOUETTE times the mask, blurred
    slope: Float[Tensor, "B H W 4"]  # d(image) / d(offset along the normal), per world unit
    points: Float[Tensor, "B H W 3"]  # on the surface, continued over the rim
    near: Bool[Tensor, "B H W"]  # on the surface or its rim


def matched(surface: Surface, views: AlbedoViews, size: float) -> Surface:
    """The same faces with vertices moved along their normals; ``size``: of the object, world units."""
    for _ in range(ROUNDS):
        drawn = _draw(surface, views, size)
        if drawn is None:
            return surface
        target = _blurred(torch.cat([views.color, SILHOUETTE * views.opacity], dim=1)).permute(0, 2, 3, 1)
        offsets = _offsets(surface, drawn, target, size)
        log.debug("moved by %.2g of the object's size (root of the mean square)", np.sqrt((offsets**2).mean()) / size)
        surface = moved(surface, offsets)
    return surface


def _offsets(surface: Surface, drawn: _Drawn, target: Float[Tensor, "B H W 4"], size: float) -> Float[ndarray, "V"]:
    """One step: ``min_d sum_p |J_p d(x_p) - r_p|^2 + h (SMOOTHNESS sum |d_i - d_j|^2 + DAMPING |d|^2)``.

    d lives on a grid around the surface, h is the mean of ``|J_p|^2``. Offsets of the object's size inside, world
    units outside.
    """
    points = drawn.points[drawn.near].numpy()
    slope = size * drawn.slope[drawn.near].numpy()
    residual = (target - drawn.image)[drawn.near].numpy()
    grid = NodeGrid.around(np.concatenate([surface.vertices, points]), size / OFFSET_CELLS)
    curvature, pull = np.square(slope).sum(axis=1), (slope * residual).sum(axis=1)
    scale = max(float(curvature.mean()), 1e-12)
    step = grid.least_squares(points, curvature, pull[:, None], SMOOTHNESS, DAMPING, scale)[:, 0]
    moves = np.asarray(grid.interpolation(surface.vertices) @ step)
    return size * np.clip(moves, -LARGEST_MOVE, LARGEST_MOVE)


def _draw(surface: Surface, views: AlbedoViews, size: float) -> _Drawn | None:
    """None where no view shows the surface."""
    pixels = SurfacePixels.of(surface, views)
    if len(pixels.points) == 0:
        return None
    centers = surface.vertices[surface.faces].mean(axis=1)
    everywhere = np.concatenate([surface.vertices, centers])
    colors = fit_correction(everywhere, size / COLOR_CELLS, pixels.points, pixels.color - GREY, pixels.weight)
    mesh = Mesh(surface.vertices, surface.faces, vertex_normals(surface))
    seen = rasterize(mesh, views.cameras, SUPERSAMPLE)
    share = seen.mask  # of a pixel: an outline of whole pixels would move by up to half of one
    mask = share > 0.0
    color = torch.zeros(*mask[:, 0].shape, 3)
    at = seen.position.permute(0, 2, 3, 1)[mask[:, 0]].numpy()
    color[mask[:, 0]] = torch.from_numpy(GREY + colors.at(at)).float()
    image = color.permute(0, 3, 1, 2) * share + 1.0 - share
    blurred, around = _blurred(torch.cat([image, SILHOUETTE * share], dim=1)), _blurred(share)
    continued = lambda x: torch.where(mask, x, _blurred(x * share) / around.clamp_min(1e-6))  # noqa: E731
    points, normals = continued(seen.position), unit_vectors(continued(seen.attributes))
    shift = _shift(points.permute(0, 2, 3, 1), normals.permute(0, 2, 3, 1), views.cameras)
    return _Drawn(blurred.permute(0, 2, 3, 1), _slope(blurred, shift), points.permute(0, 2, 3, 1), (around > RIM)[:, 0])


def _slope(image: Float[Tensor, "B C H W"], shift: Float[Tensor, "B H W 2"]) -> Float[Tensor, "B H W C"]:
    """What a pixel gains when all around it moves by ``shift`` (columns, rows): minus the gradient along it."""
    columns = F.pad(0.5 * (image[..., 2:] - image[..., :-2]), (1, 1))
    rows = F.pad(0.5 * (image[..., 2:, :] - image[..., :-2, :]), (0, 0, 1, 1))
    return -(columns * shift[:, None, ..., 0] + rows * shift[:, None, ..., 1]).permute(0, 2, 3, 1)


def _shift(
    points: Float[Tensor, "B H W 3"], normals: Float[Tensor, "B H W 3"], cameras: Cameras
) -> Float[Tensor, "B H W 2"]:
    """Pixels (columns, rows) by which points move in the picture for each world unit along their normals."""
    to_camera = cameras.c2w[:, :3, :3]
    local = torch.einsum("bhwi,bij->bhwj", points - cameras.position[:, None, None], to_camera)
    along = torch.einsum("bhwi,bij->bhwj", normals, to_camera)
    focal = (0.5 * cameras.height / torch.tan(0.5 * cameras.fovy_rad))[:, None, None, None]
    depth = (-local[..., 2:]).clamp_min(1e-6)
    flat = focal * (along[..., :2] + local[..., :2] * along[..., 2:] / depth) / depth
    return flat * flat.new_tensor([1.0, -1.0])  # rows grow downwards


def _blurred(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """By a Gaussian, separably; the border is continued."""
    reach = int(3.0 * BLUR_PIXELS)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / BLUR_PIXELS) ** 2)
    kernel, count = kernel / kernel.sum(), image.shape[1]
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)
    return F.conv2d(rows, kernel.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
