"""Views of the scene that an export is made from and judged by: albedo over white, from all around."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import make_cameras
from distill3d.export.surface.grid import Box
from distill3d.types import Cameras, RenderOutput

VIEW_ELEVATIONS_DEG = (10.0, 40.0)  # by turns, so that silhouettes see the sides and the top
TURN_ELEVATION_DEG = 15.0
FIT_ELEVATIONS_DEG = (-10.0, 65.0)
LENS_PIXELS = 32  # of the views that tell how narrow a lens may be
SHOWN = 0.05  # opacity from which on a pixel shall be in the frame
GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)  # its multiples fill [0, 1] evenly, however many there are


@dataclass(frozen=True)
class AlbedoViews:
    """What the scene looks like, on the CPU."""

    cameras: Cameras
    color: Float[Tensor, "B 3 H W"]  # over white
    opacity: Float[Tensor, "B 1 H W"]

    @staticmethod
    def of(cameras: Cameras, seen: RenderOutput) -> AlbedoViews:
        return AlbedoViews(cameras.to("cpu"), seen.rgb.float().cpu().clamp(0.0, 1.0), seen.opacity.float().cpu())

    def __len__(self) -> int:
        return len(self.opacity)

    def __getitem__(self, rows: slice) -> AlbedoViews:
        return AlbedoViews(self.cameras[rows], self.color[rows], self.opacity[rows])

    def smaller(self, factor: int) -> AlbedoViews:
        """Views of 1 / factor of the height and width, each pixel the mean of those that it covers."""
        if factor <= 1:
            return self
        pooled = lambda image: torch.nn.functional.avg_pool2d(image, factor)  # noqa: E731
        cameras = replace(self.cameras, height=self.cameras.height // factor, width=self.cameras.width // factor)
        return AlbedoViews(cameras, pooled(self.color), pooled(self.opacity))

    def own_color(self, least_opacity: float) -> Float[Tensor, "B 3 H W"]:
        """The colour without the white behind it, ``(C - (1 - a)) / a``, where the opacity a is at least that."""
        behind = 1.0 - self.opacity
        return ((self.color - behind) / self.opacity.clamp_min(least_opacity)).clamp(0.0, 1.0)


def surrounding_cameras(box: Box, count: int, size: int) -> Cameras:
    """Cameras around the box that see all of it, starting at the front."""
    index = torch.arange(count)
    elevation_deg = torch.tensor(VIEW_ELEVATIONS_DEG)[index % len(VIEW_ELEVATIONS_DEG)]
    return _cameras_around(box, elevation_deg, index * (360.0 / count), size)


def turning_cameras(box: Box, count: int, size: int) -> Cameras:
    """Cameras once around the box from a little above, starting at the front."""
    return _cameras_around(box, torch.full((count,), TURN_ELEVATION_DEG), torch.arange(count) * (360.0 / count), size)


def fitting_cameras(box: Box, count: int, size: int) -> Cameras:
    """Cameras around the box, evenly in azimuth and over the elevations from which scenes are looked at."""
    index = torch.arange(count)
    low, high = (math.sin(math.radians(e)) for e in FIT_ELEVATIONS_DEG)
    height = low + (high - low) * ((index + 0.5) * GOLDEN % 1.0)
    return _cameras_around(box, torch.rad2deg(torch.asin(height)), (index + 0.5) * (360.0 / count), size)


def framed(cameras: Cameras, opacity: Float[Tensor, "B 1 h w"]) -> Cameras:
    """The same cameras with one narrower lens, through which what they show fills the frame.

    ``opacity``: what they show now, of any size, square. Where nothing is seen the lens stays.
    """
    size = opacity.shape[-1]
    edge = (torch.arange(size) + 0.5 - 0.5 * size).abs() + 1.5  # of a pixel, from the middle, with one more as a margin
    shown = (opacity[:, 0] > SHOWN).any(dim=0)
    reach = torch.maximum(edge[shown.any(dim=0)].amax(), edge[shown.any(dim=1)].amax()) if shown.any() else edge.amax()
    narrowing = (reach / (0.5 * size)).clamp_max(1.0)
    return replace(cameras, fovy_rad=2.0 * torch.atan(narrowing * torch.tan(0.5 * cameras.fovy_rad)))


def _cameras_around(box: Box, elevation_deg: Tensor, azimuth_deg: Tensor, size: int) -> Cameras:
    count = len(elevation_deg)
    distance = torch.full((count,), 1.5 * float(box.extent.norm()))  # three radii of the box's sphere
    fovy_deg = torch.full((count,), 2.0 * math.degrees(math.asin(1.0 / 3.0)))
    center = box.center.expand(count, 3)
    return make_cameras(elevation_deg, azimuth_deg, distance, fovy_deg, size, size, center, center)
