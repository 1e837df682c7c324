"""Scenes with exact answers for the export tests: signed distance functions dressed as fields, and a plain renderer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill3d.camera import camera_rays
from distill3d.types import Cameras, FieldSample, RenderOutput


def sphere(points: Tensor, radius: float = 0.5) -> Tensor:
    return points.norm(dim=-1) - radius


def torus(points: Tensor, major: float = 0.4, minor: float = 0.15) -> Tensor:
    return ((points[:, :2].norm(dim=-1) - major) ** 2 + points[:, 2] ** 2).sqrt() - minor


def box(points: Tensor, half: tuple[float, float, float] = (0.4, 0.3, 0.2), center: tuple = (0.0, 0.0, 0.0)) -> Tensor:
    outside = (points - points.new_tensor(center)).abs() - points.new_tensor(half)
    return outside.clamp_min(0.0).norm(dim=-1) + outside.amax(dim=-1).clamp_max(0.0)


def letter_f(points: Tensor) -> Tensor:
    """An F seen from the front, its bars towards +y, with a foot towards +x: no mirror image of it fits."""
    bars = [
        box(points, (0.08, 0.08, 0.4), (0.0, -0.2, 0.0)),
        box(points, (0.08, 0.2, 0.07), (0.0, 0.05, 0.33)),
        box(points, (0.08, 0.13, 0.07), (0.0, -0.03, 0.05)),
        box(points, (0.2, 0.08, 0.07), (0.2, -0.2, -0.33)),
    ]
    return torch.stack(bars).amin(dim=0)


def smooth_colors(points: Tensor) -> Tensor:
    return 0.5 + 0.4 * torch.sin(points.flip(-1) * 3.0 + points.new_tensor([0.0, 1.0, 2.0]))


@dataclass
class AnalyticGeometry:
    """``density = peak sigmoid(-sharpness distance)``: the surface of the distance function lies at ``peak / 2``."""

    distance: Callable[[Tensor], Tensor] = sphere
    albedo: Callable[[Tensor], Tensor] = smooth_colors
    peak: float = 2000.0
    sharpness: float = 400.0
    radius: float = 1.0

    def density(self, points: Tensor) -> Tensor:
        return self.peak * torch.sigmoid(-self.sharpness * self.distance(points))

    def sample(self, points: Tensor, need_normal: bool) -> FieldSample:
        return FieldSample(self.density(points), self.albedo(points), self.normal(points) if need_normal else None)

    def normal(self, points: Tensor) -> Tensor:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.distance(points).sum(), points)
        return torch.nn.functional.normalize(gradient, dim=-1)


class MarchingRenderer:
    """Equal steps through the ball around the origin, unlit, over a colour; a `Solid` to the exporter."""

    bound = "box"
    threshold: Any = None
    resolution: int | None = None
    renderer = None
    mesh = None
    gaussians = None

    def __init__(self, geometry: AnalyticGeometry, steps: int = 96) -> None:
        self.geometry, self.steps = geometry, steps
        self.radius = geometry.radius

    @torch.no_grad()
    def render(
        self,
        cameras: Cameras,
        light: Any = None,
        shading: Any = "albedo",
        background: Tensor | None = None,
        need_normal: bool = True,
    ) -> RenderOutput:
        rays = camera_rays(cameras)
        origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
        middle, step = -(origins * directions).sum(-1), 2.0 / self.steps
        transmittance, color = torch.ones(len(origins)), torch.zeros(len(origins), 3)
        for k in range(self.steps):
            points = origins + (middle - 1.0 + (k + 0.5) * step)[:, None] * directions
            alpha = 1.0 - torch.exp(-self.geometry.density(points) * step)
            color += (transmittance * alpha)[:, None] * self.geometry.albedo(points)
            transmittance *= 1.0 - alpha
        color += transmittance[:, None] * (torch.ones(3) if background is None else background)
        image = lambda x: x.view(len(cameras), cameras.height, cameras.width, -1).permute(0, 3, 1, 2)  # noqa: E731
        opacity = image((1.0 - transmittance)[:, None])
        return RenderOutput(image(color), opacity, torch.zeros_like(opacity), None, shading)
