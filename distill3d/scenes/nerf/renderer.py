"""The volume renderer: cameras to images of a shaded field."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.camera import camera_rays
from distill3d.config.ranges import check_at_most, check_least, check_shares
from distill3d.config.registry import register
from distill3d.runtime.rng import rng
from distill3d.scenes.nerf.activations import activation
from distill3d.scenes.nerf.background import ray_colors
from distill3d.scenes.nerf.material import needs_normal
from distill3d.scenes.nerf.occupancy import OccupancyGrid
from distill3d.scenes.nerf.sampler import Marching, sample_rays
from distill3d.scenes.nerf.volume import accumulate, render_weights
from distill3d.types import Cameras, Light, RaySamples, RenderOutput, ShadingMode

NEARBY = 0.01  # world units
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Lit:
    """The field at samples, shaded."""

    density: Float[Tensor, "samples"]
    color: Float[Tensor, "samples 3"]
    normal: Float[Tensor, "samples 3"] | None


@register("renderer", "nerf-volume-renderer")
class NeRFVolumeRenderer(nn.Module):
    """Volume rendering by ray marching through an occupancy grid, with one point light and any background."""

    @dataclass
    class Config:
        radius: float | None = None  # null: the geometry's
        num_samples_per_ray: int = 96  # steps along the diagonal of the volume
        # on average over a training view; beyond it the steps of that view are lengthened. null: never, as threestudio
        max_samples_per_ray: int | None = 32
        randomized: bool = True  # jitter training rays
        near_plane: float = 0.0
        far_plane: float = 1e10
        bound: Literal["box", "sphere"] = "sphere"
        eval_chunk_size: int = 160_000  # points per evaluation of the field, without gradients
        eval_ray_chunk_size: int = 16_384  # rays that are marched at once, without gradients
        grid_prune: bool = True  # skip empty cells
        occupancy_resolution: int = 32
        occupancy_update_interval: int = 8
        occupancy_threshold: float = 0.01  # optical depth over one step
        occupancy_ema_decay: float = 0.9  # nerfacc's .95 would outlast a run of some hundred steps
        occupancy_warmup_steps: int = 256  # until then every cell is looked at, later about half of them

        def __post_init__(self) -> None:
            check_least(self, num_samples_per_ray=1, max_samples_per_ray=1, eval_chunk_size=1, eval_ray_chunk_size=1)
            check_least(self, occupancy_resolution=1, occupancy_update_interval=1)
            check_shares(self, "occupancy_ema_decay")
            check_at_most(
                self, {"num_samples_per_ray": 65_536, "max_samples_per_ray": 65_536, "occupancy_resolution": 512}
            )
            if self.radius is not None and self.radius <= 0:
                raise ValueError(f"radius={self.radius} must be positive")
            if not 0.0 <= self.near_plane < self.far_plane:
                raise ValueError(f"near_plane={self.near_plane} must lie in 0 .. far_plane={self.far_plane}")

    def __init__(self, cfg: Config, geometry: Any, material: Any, background: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.geometry, self.material, self.background = geometry, material, background
        if material.cfg.albedo_activation is not None:  # threestudio's place for the geometry's color_activation
            geometry.color_activation = activation(material.cfg.albedo_activation, "system.material.albedo_activation")
        self._cap_is_told = False
        radius = float(geometry.radius if cfg.radius is None else cfg.radius)
        self.marching = Marching(
            radius,
            2.0 * 3.0**0.5 * radius / cfg.num_samples_per_ray,
            cfg.near_plane,
            cfg.far_plane,
            cfg.bound == "sphere",
        )
        self.occupancy = OccupancyGrid(
            cfg.occupancy_resolution, radius, cfg.occupancy_ema_decay, cfg.occupancy_threshold
        )

    @property
    def radius(self) -> float:
        """Of the volume that is rendered, in world units."""
        return self.marching.radius

    @property
    def bound(self) -> Literal["box", "sphere"]:
        """Which part of the cube of that radius is rendered."""
        return self.cfg.bound

    def update_step(self, step: int, seed: int) -> None:
        """Before a training step: the progression of the encoding, and every few steps the occupancy grid."""
        self.geometry.update_step(step)
        self.update_occupancy(step, seed)

    def update_occupancy(self, step: int, seed: int) -> None:
        """Every few steps a look at the cells, wherever the encoding is in its progression."""
        if self.cfg.grid_prune and step % self.cfg.occupancy_update_interval == 0:
            generator = rng("occupancy", seed, step)
            every_cell = step < self.cfg.occupancy_warmup_steps
            self.occupancy.update(self.geometry.density, self.marching.step_size, generator, every_cell)

    def forward(
        self,
        cameras: Cameras,
        light: Light | None,
        shading: ShadingMode,
        step: int,
        seed: int,
        rank: int = 0,
        need_normal: bool = False,
        nearby_normals: bool = False,
    ) -> RenderOutput:
        """Render training views with all that regularisers read.

        Rays are jittered from the stream ``ray``, backgrounds augmented from ``background``. Normals are computed where
        the shading reads them, or on demand; nearby ones `NEARBY` away (one standard deviation) from each sample.
        """
        origins, directions, view = _flat_rays(cameras)
        generator = rng("ray", seed, step, rank)
        jitter = torch.rand(len(origins), generator=generator).to(origins) if self.cfg.randomized else None
        ratio = float(torch.rand((), generator=generator)) if self.material.cfg.soft_shading else None
        samples = self._capped_samples(origins, directions, jitter)
        points = _midpoints(origins, directions, samples)
        rows = None if light is None else light.position[view[samples.ray_index]]
        lit = self._lit(points, rows, shading, need_normal or needs_normal(shading), ratio)
        backdrop = ray_colors(self.background, directions, len(cameras), rng("background", seed, step, rank))
        seen = _composite(lit, samples, directions, backdrop, cameras, shading)
        if not nearby_normals:
            return seen
        near = points + NEARBY * torch.randn(points.shape, generator=generator).to(points)
        return replace(seen, nearby_normals=self.geometry.sample(near, True).normal)

    @torch.no_grad()
    def render(
        self,
        cameras: Cameras,
        light: Light | None = None,
        shading: ShadingMode = "albedo",
        background: Tensor | None = None,
        need_normal: bool = True,
    ) -> RenderOutput:
        """Render views to look at: no gradient, no jitter, no augmentation, in chunks.

        Without a light, shaded modes are lit from the camera. ``background`` is a colour that replaces the scene's.
        """
        views = [
            self._render_view(cameras[i : i + 1], light, i, shading, background, need_normal)
            for i in range(len(cameras))
        ]
        joined = lambda name: torch.cat([getattr(v, name) for v in views])  # noqa: E731
        normal = None if views[0].normal is None else joined("normal")
        return RenderOutput(joined("rgb"), joined("opacity"), joined("depth"), normal, shading)

    def _render_view(
        self,
        camera: Cameras,
        light: Light | None,
        index: int,
        shading: ShadingMode,
        background: Tensor | None,
        need_normal: bool,
    ) -> RenderOutput:
        origins, directions, _ = _flat_rays(camera)
        position = camera.position[0] if light is None else light.position[index]
        need_normal = need_normal or needs_normal(shading)
        size = self.cfg.eval_ray_chunk_size
        chunks = zip(origins.split(size), directions.split(size), strict=True)
        sums = [self._look(start, way, position, shading, need_normal, background) for start, way in chunks]
        return _as_images(torch.cat(sums).tensor_split([3, 4, 5], dim=-1), camera, shading)

    def _look(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        light_position: Float[Tensor, "3"],
        shading: ShadingMode,
        need_normal: bool,
        background: Tensor | None,
    ) -> Float[Tensor, "rays channels"]:
        """`_along_rays` for rays of a picture to look at."""
        samples = self._samples(origins, directions, None, self.marching)
        points = _midpoints(origins, directions, samples)
        parts = [
            self._lit(part, light_position.expand_as(part), shading, need_normal, None)
            for part in points.split(self.cfg.eval_chunk_size)
        ]
        if background is None:
            backdrop = ray_colors(self.background, directions, 1, None)
        else:
            backdrop = background.to(directions).reshape(-1, 3).expand_as(directions)
        lit = _joined(parts)
        return torch.cat(_along_rays(lit, render_weights(lit.density, samples), samples, backdrop), dim=-1)

    def _samples(self, origins: Tensor, directions: Tensor, jitter: Tensor | None, marching: Marching) -> RaySamples:
        jitter = torch.full_like(origins[:, 0], 0.5) if jitter is None else jitter
        grid = self.occupancy.occupied
        return sample_rays(
            origins, directions, grid if self.cfg.grid_prune else torch.ones_like(grid), marching, jitter
        )

    def _capped_samples(self, origins: Tensor, directions: Tensor, jitter: Tensor | None) -> RaySamples:
        """Samples with the configured step, or with the shortest step that keeps their number within bounds."""
        marching, cap = self.marching, self.cfg.max_samples_per_ray
        samples = self._samples(origins, directions, jitter, marching)
        limit = len(samples) if cap is None else cap * len(origins)
        if len(samples) > limit and not self._cap_is_told:
            self._cap_is_told = True
            logger.info(
                "system.renderer.max_samples_per_ray=%d shortens training views: the first had %d samples with "
                "num_samples_per_ray=%d, and its steps are lengthened until it has %d; null takes all",
                cap,
                len(samples),
                self.cfg.num_samples_per_ray,
                limit,
            )
        while len(samples) > limit:
            longer = marching.step_size * max(1.05, len(samples) / limit)
            marching = replace(marching, step_size=longer)
            samples = self._samples(origins, directions, jitter, marching)
        return samples

    def _lit(
        self, points: Tensor, light_position: Tensor | None, mode: ShadingMode, need_normal: bool, ratio: float | None
    ) -> _Lit:
        sample = self.geometry.sample(points, need_normal)
        color = self.material.shade(sample.albedo, sample.normal, points, light_position, mode, ratio)
        return _Lit(sample.density, color, sample.normal)


def _flat_rays(cameras: Cameras) -> tuple[Tensor, Tensor, Int[Tensor, "rays"]]:
    """Origins, directions and view of all rays, view after view, row after row."""
    rays = camera_rays(cameras)
    view = torch.arange(len(cameras), device=rays.origins.device)
    per_view = cameras.height * cameras.width
    return rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3), view.repeat_interleave(per_view)


def _midpoints(origins: Tensor, directions: Tensor, samples: RaySamples) -> Float[Tensor, "samples 3"]:
    t_mid = 0.5 * (samples.t_start + samples.t_end)
    return origins[samples.ray_index] + t_mid[:, None] * directions[samples.ray_index]


def _composite(
    lit: _Lit,
    samples: RaySamples,
    directions: Float[Tensor, "rays 3"],
    backdrop: Float[Tensor, "rays 3"],
    cameras: Cameras,
    shading: ShadingMode,
) -> RenderOutput:
    """Sums along rays, over the background, and what regularisers read."""
    weights = render_weights(lit.density, samples)
    pictures = _as_images(_along_rays(lit, weights, samples, backdrop), cameras, shading)
    return replace(
        pictures,
        samples=samples,
        weights=weights,
        sample_normals=lit.normal,
        sample_directions=directions[samples.ray_index],
    )


def _along_rays(
    lit: _Lit, weights: Float[Tensor, "samples"], samples: RaySamples, backdrop: Float[Tensor, "rays 3"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each ray: colour over the background (3), depth, opacity, and the normal (3, or 0 where samples have none)."""
    t_mid = 0.5 * (samples.t_start + samples.t_end)
    values = [lit.color, t_mid[:, None], torch.ones_like(t_mid)[:, None]]
    values = values if lit.normal is None else [*values, lit.normal]
    sums = accumulate(weights, torch.cat(values, dim=-1), samples)
    color, distance, opacity, normal = sums[:, :3], sums[:, 3:4], sums[:, 4:5], sums[:, 5:]
    return color + (1.0 - opacity) * backdrop, distance / opacity.clamp_min(1e-6), opacity, normal


def _as_images(sums: Sequence[Tensor], cameras: Cameras, shading: ShadingMode) -> RenderOutput:
    """What `_along_rays` gives of all rays, view after view."""
    image = lambda x: x.view(len(cameras), cameras.height, cameras.width, -1).permute(0, 3, 1, 2)  # noqa: E731
    color, distance, opacity, normal = sums
    # contiguous: the order of memory is the order in which a loss adds up, and so its last bits
    rgb, depth = (image(part.contiguous()) for part in (color, distance))
    return RenderOutput(rgb, image(opacity), depth, image(normal) if normal.shape[1] else None, shading)


def _joined(parts: list[_Lit]) -> _Lit:
    normals = [part.normal for part in parts if part.normal is not None]
    return _Lit(
        torch.cat([part.density for part in parts]),
        torch.cat([part.color for part in parts]),
        torch.cat(normals) if normals else None,
    )
