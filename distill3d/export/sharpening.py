"""Sharpening: before a surface is cut out of a soft volume, the volume is fitted to its own pictures and made thin.

Distilled densities are soft: several steps of a ray share its colour, and no single surface has the same colour as
that sum from every side. Here the field is trained on for a moment, without any prior: its pictures are what they
were, while the variance of the depth along rays (HiFA, arXiv 2305.18766) and the entropy of the opacity cost more and
more.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from distill3d.camera import camera_rays
from distill3d.export.views import AlbedoViews
from distill3d.runtime.rng import rng
from distill3d.scenes.nerf.renderer import NeRFVolumeRenderer
from distill3d.scenes.nerf.sampler import sample_rays
from distill3d.scenes.nerf.volume import accumulate, render_weights
from distill3d.types import RaySamples

log = logging.getLogger(__name__)

RAYS = 3072
LEARNING_RATE, LAST_LEARNING_RATE = 0.01, 0.002
FINER = 2.0  # how much shorter the steps are than in training: a surface shall be thinner than those
OCCUPANCY_EVERY = 16  # steps
SEEN = 1e-4  # weights below this carry no gradient worth the time
OPACITY_WEIGHT, ENTROPY_WEIGHT, THICKNESS_WEIGHT = 0.1, 0.01, 30.0
THIN = 0.008  # of the object's size: a volume that is thinner than this along its rays is a surface already
NEAR = 9  # pixels around the object that belong to the fit, so that nothing grows beside it


@dataclass(frozen=True)
class RayTargets:
    """Rays, and the picture that they shall give: colour times opacity, and opacity."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    color: Float[Tensor, "R 3"]
    opacity: Float[Tensor, "R 1"]

    @staticmethod
    def of(views: AlbedoViews) -> RayTargets:
        """The rays of all pixels on the object and beside it."""
        near = F.max_pool2d(views.opacity, NEAR, stride=1, padding=NEAR // 2) > 0.05
        rows = lambda image: image.permute(0, 2, 3, 1)[near[:, 0]]  # noqa: E731
        rays, behind = camera_rays(views.cameras), 1.0 - views.opacity
        color = rows(views.color - behind)
        return RayTargets(rays.origins[near[:, 0]], rays.directions[near[:, 0]], color, rows(views.opacity))

    def __len__(self) -> int:
        return len(self.origins)

    def drawn(self, count: int, generator: torch.Generator, device: torch.device) -> RayTargets:
        index = torch.randint(len(self), (count,), generator=generator)
        return RayTargets(*(tensor[index].to(device) for tensor in vars(self).values()))


@dataclass(frozen=True)
class Composite:
    """What the field shows along rays, and the variance of the depth of what is seen there."""

    color: Float[Tensor, "R 3"]
    opacity: Float[Tensor, "R 1"]
    variance: Float[Tensor, "R 1"]  # sum_i w_i (t_i - mean)^2, square world units


def sharpened(
    renderer: NeRFVolumeRenderer, views: AlbedoViews, size: float, steps: int, seed: int = 0
) -> NeRFVolumeRenderer:
    """A copy whose pictures are those of ``views`` and whose density is a thin layer; ``size``: of the object.

    A volume that is thin already is given back as it is.
    """
    device, targets = next(renderer.geometry.parameters()).device, RayTargets.of(views)
    generator = rng("ray", seed)
    thickness = _thickness(renderer, targets.drawn(RAYS, generator, device), size)
    if len(targets) == 0 or thickness < THIN:
        log.info("the volume is %.3g of the object's size thick along rays: thin enough", thickness)
        return renderer
    sharp = copy.deepcopy(renderer)
    sharp.marching = replace(renderer.marching, step_size=renderer.marching.step_size / FINER)
    optimizer = torch.optim.Adam(sharp.geometry.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), eps=1e-15)
    with torch.enable_grad():
        for step in range(steps):
            if step % OCCUPANCY_EVERY == 0:
                _look_for_matter(sharp, generator)
            done = step / steps
            optimizer.param_groups[0]["lr"] = LEARNING_RATE + done * (LAST_LEARNING_RATE - LEARNING_RATE)
            loss = _loss(sharp, targets.drawn(RAYS, generator, device), size, done, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    _look_for_matter(sharp, generator)
    after = _thickness(sharp, targets.drawn(RAYS, generator, device), size)
    log.info("sharpened: the volume was %.3g of the object's size thick along rays, now %.3g", thickness, after)
    return sharp.requires_grad_(False)


def composite(renderer: NeRFVolumeRenderer, rays: RayTargets, jitter: Float[Tensor, "R"]) -> Composite:
    """Volume rendering along rays, differentiable by the field; samples that nobody sees are left out."""
    samples = sample_rays(rays.origins, rays.directions, renderer.occupancy.occupied, renderer.marching, jitter)
    points = _points(rays, samples)
    with torch.no_grad():
        seen = render_weights(renderer.geometry.density(points), samples) > SEEN
    samples = RaySamples(samples.ray_index[seen], samples.t_start[seen], samples.t_end[seen], samples.ray_count)
    field = renderer.geometry.sample(points[seen], False)
    weights = render_weights(field.density, samples)
    middle = 0.5 * (samples.t_start + samples.t_end)[:, None]
    sums = accumulate(weights, torch.cat([field.albedo, middle, torch.ones_like(middle)], dim=1), samples)
    color, opacity = sums[:, :3], sums[:, 4:]
    mean = (sums[:, 3:4] / opacity.clamp_min(1e-6)).detach()
    variance = accumulate(weights, (middle - mean[samples.ray_index]).square(), samples)
    return Composite(color, opacity, variance)


def _loss(
    renderer: NeRFVolumeRenderer, rays: RayTargets, size: float, done: float, generator: torch.Generator
) -> Float[Tensor, ""]:
    """Pictures before a colour drawn at random, which tells opacity from colour, and what a thin layer costs."""
    device = rays.origins.device
    jitter = torch.rand(len(rays), generator=generator).to(device)
    behind = torch.rand(3, generator=generator).to(device)
    seen = composite(renderer, rays, jitter)
    error = seen.color - rays.color + (rays.opacity - seen.opacity) * behind
    opacity = seen.opacity.clamp(1e-3, 1.0 - 1e-3)
    entropy = -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean()
    return (
        error.square().mean()
        + OPACITY_WEIGHT * (seen.opacity - rays.opacity).square().mean()
        + ENTROPY_WEIGHT * done * entropy
        + THICKNESS_WEIGHT * math.sqrt(done) * seen.variance.mean() / size**2
    )


@torch.no_grad()
def _thickness(renderer: NeRFVolumeRenderer, rays: RayTargets, size: float) -> float:
    """The root of the mean variance of the depth, of the object's size."""
    if len(rays) == 0:
        return 0.0
    seen = composite(renderer, rays, torch.full((len(rays),), 0.5, device=rays.origins.device))
    hit = seen.opacity > 0.5
    if not bool(hit.any()):
        return 0.0
    return math.sqrt(float((seen.variance[hit] / seen.opacity[hit]).mean())) / size


def _look_for_matter(renderer: NeRFVolumeRenderer, generator: torch.Generator) -> None:
    renderer.occupancy.update(renderer.geometry.density, renderer.marching.step_size, generator, every_cell=True)


def _points(rays: RayTargets, samples: RaySamples) -> Float[Tensor, "samples 3"]:
    middle = 0.5 * (samples.t_start + samples.t_end)
    return rays.origins[samples.ray_index] + middle[:, None] * rays.directions[samples.ray_index]
