"""The scene of Gaussian splats: parameters, their views, and their number over time (arXiv 2308.04079)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.registry import make, register
from distill3d.runtime.files import write_atomically
from distill3d.runtime.rng import rng
from distill3d.scenes.base import Scene, Solid, Step, Views
from distill3d.scenes.nerf.background import backdrop
from distill3d.scenes.nerf.losses import opaque_loss, sparsity_loss
from distill3d.scenes.nerf.material import needs_normal
from distill3d.scenes.rows import change_rows, forget, take_sizes
from distill3d.scenes.splats.density import DensitySettings, adapted
from distill3d.scenes.splats.draw import draw
from distill3d.scenes.splats.field import SplatField
from distill3d.scenes.splats.files import ply_bytes, splat_bytes
from distill3d.scenes.splats.gaussians import Gaussians, ball, shortest_axes, turned_to
from distill3d.scenes.splats.mcmc import relocated, shaken
from distill3d.scenes.splats.sources import read_source
from distill3d.types import Cameras, Light, RenderOutput, ShadingMode

NAMES = ("means", "scales", "quaternions", "opacities", "colors")
THINNEST = 1e-3  # standard deviation, of the radius
MANY = 50_000  # Gaussians, from which on their cost is told
BYTES = 14 * 4 * 4  # of a Gaussian: 14 numbers, their gradients and two moments
log = logging.getLogger(__name__)


@register("scene", "splats")
class SplatScene(Scene):
    """Anisotropic Gaussians with an albedo, lit with their shortest axes as normals, before a background.

    Batches have ``cameras`` and ``light``, as those of a NeRF; material and background are the NeRF's.
    """

    @dataclass
    class Config:
        """Settings of the scene.

        init: ``ball``; a file of Gaussians (.ply, .splat), of points (.ply) or of a mesh; or the folder of a trial,
            whose Gaussians or whose volume it begins with.
        count: Gaussians at the start; of a file of Gaussians all are taken.
        radius: of the ball that nothing leaves, in world units. ``init_radius``: of that of the beginning.
        size, flatness, opacity: standard deviation at the start (world units; null: by count), how much smaller it is
            along the normal, and the opacity.
        max_size: the largest standard deviation, world units.
        antialiased: keep the look of small Gaussians at every picture size.
        """

        init: str = "ball"
        count: int = 2000
        radius: float = 0.55
        init_radius: float = 0.4
        size: float | None = None
        flatness: float = 0.5
        opacity: float = 0.2
        max_size: float = 0.1
        antialiased: bool = True
        density: DensitySettings = field(default_factory=DensitySettings)
        material_type: str = "diffuse-with-point-light-material"
        material: dict[str, Any] = field(default_factory=dict)
        background_type: str = "solid-color-background"
        background: dict[str, Any] = field(default_factory=dict)

        def __post_init__(self) -> None:
            if not 1 <= self.count <= 1_000_000:
                raise ValueError(f"count={self.count} must lie in 1 .. 1 000 000 Gaussians")
            for name in ("radius", "init_radius", "flatness", "max_size"):
                if not 0.0 < getattr(self, name) < math.inf:
                    raise ValueError(f"{name}={getattr(self, name)} must be positive")
            if self.size is not None and not 0.0 < self.size < math.inf:
                raise ValueError(f"size={self.size} must be positive, in world units, or null")
            if not 0.0 < self.opacity < 1.0:
                raise ValueError(f"opacity={self.opacity} must lie between 0 and 1")

        @property
        def first_size(self) -> float:
            """Such that neighbours in the ball of the beginning touch."""
            return self.size or 0.7 * self.init_radius * self.count ** (-1 / 3)

    has_cameras = True
    shared_settings = ("material_type", "material", "background_type", "background")
    optimizer_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "means": {"lr": 0.002},
        "scales": {"lr": 0.01},
        "quaternions": {"lr": 0.01},
        "opacities": {"lr": 0.05},
        "colors": {"lr": 0.03},
    }
    remedies: ClassVar[Mapping[str, str]] = {
        "empty": "lower system.loss.lambda_sparsity or system.scene.density.min_opacity, raise system.scene.count or "
        "system.scene.opacity, or lower the rate of scene.opacities in system.optimizer.params",
        "full": "raise system.loss.lambda_sparsity or data.camera_distance_range, or lower system.scene.radius or "
        "system.scene.max_size",
        "bounds": "raise system.loss.lambda_sparsity, lower system.scene.init_radius or the rate of scene.means in "
        "system.optimizer.params, or try another seed",
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        first = ball(cfg.count, cfg.init_radius, cfg.first_size, cfg.flatness, cfg.opacity, generator)
        self.means = nn.Parameter(first.means)
        self.scales = nn.Parameter(first.scales)
        self.quaternions = nn.Parameter(first.quaternions)
        self.opacities = nn.Parameter(first.opacities)
        self.colors = nn.Parameter(first.colors)
        self.material = make("material", cfg.material_type, cfg.material, "system.scene.material")
        self.background = make("background", cfg.background_type, cfg.background, "system.scene.background")
        self.register_buffer("pull", torch.zeros(cfg.count))  # gradients of the centres since the last change, summed
        self.register_buffer("pulled", torch.zeros(cfg.count))  # how many views they are from
        self.pull: Tensor
        self.pulled: Tensor
        self._centers: list[tuple[Tensor, Cameras]] = []  # of the views of this step

    def parameters_by_row(self) -> dict[str, nn.Parameter]:
        return {name: getattr(self, name) for name in NAMES}

    @property
    def gaussians(self) -> Gaussians:
        """As they are now, with their graph."""
        return Gaussians(**self.parameters_by_row())

    @property
    def radius(self) -> float:
        return self.cfg.radius

    def parameter_groups(self) -> dict[str, nn.Module]:
        """``geometry`` is empty: settings of an optimiser that were written for a NeRF name it."""
        parts = {"background": self.background, "material": self.material, "geometry": nn.Module()}
        return {**parts, "scene": self}

    # -- where it begins ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        if self.cfg.init != "ball":
            read_source(self.cfg, 0)

    def prepare(self, seed: int) -> None:
        if self.cfg.init != "ball":
            for name, value in read_source(self.cfg, seed).tensors().items():
                parameter = getattr(self, name)
                parameter.data = value.to(parameter)
            self._start_watching()
        if len(self.means) > MANY:
            log.warning(
                "system.scene begins with %d Gaussians: with gradients and Adam's memory they take %.2f GB, and a step "
                "on a CPU takes some %.0f times as long as with the usual 2000; thin out system.scene.init, or lower "
                "system.scene.count",
                *(len(self.means), len(self.means) * BYTES / 1e9, len(self.means) / 2000),
            )

    def state_for(self, state: Mapping[str, Tensor]) -> None:
        take_sizes(self, state)

    # -- views -------------------------------------------------------------------------------------------------------

    def views(self, batch: Any, step: Step) -> Views:
        light, mode, ratio = None, "albedo", None
        if batch.light is not None:
            light, mode = batch.light, self.material.pick_mode(step.number, step.rng("shading"))
            if self.material.cfg.soft_shading:
                ratio = float(torch.rand((), generator=step.rng("light", 1)))
        colors = self._colors(batch.cameras, light, mode, ratio)
        with_depth = "z_variance" in step.losses
        values = torch.cat([colors, *self._depth_powers(batch.cameras)], dim=2) if with_depth else colors
        seen, opacity = self._drawn(values, batch.cameras)
        image = seen[:, :3] + (1.0 - opacity) * self.backdrop(batch.cameras, step)
        terms = {"sparsity": partial(sparsity_loss, opacity), "opaque": partial(opaque_loss, opacity)}
        if with_depth:
            terms["z_variance"] = partial(depth_variance, seen[:, 3:], opacity)
        shading = None if light is None else (mode,) * len(batch.cameras)
        return Views(image, batch.cameras, shading, terms, opacity)

    def fitted(self, cameras: Cameras, step: Step, need_normal: bool = False) -> RenderOutput:
        seen, opacity = self._drawn(self._colors(cameras, None, "albedo", None), cameras)
        image = seen + (1.0 - opacity) * self.backdrop(cameras, step)
        return RenderOutput(image, opacity, torch.zeros_like(opacity), None, "albedo")

    def _drawn(self, values: Float[Tensor, "B N C"], cameras: Cameras) -> tuple[Tensor, Float[Tensor, "B 1 H W"]]:
        drawn = draw(self.gaussians, values, cameras, self.cfg.antialiased)
        if drawn.centers.requires_grad and self.cfg.density.strategy == "adaptive":
            drawn.centers.retain_grad()
            self._centers.append((drawn.centers, cameras))
        return drawn.values, 1.0 - drawn.passed

    def _colors(
        self, cameras: Cameras, light: Light | None, mode: ShadingMode, ratio: float | None
    ) -> Float[Tensor, "B N 3"]:
        """What each Gaussian shows to each camera: it is shaded as a whole, by its middle and its normal."""
        albedo = self.colors.sigmoid()
        if mode == "albedo":
            return albedo.expand(len(cameras), -1, -1)
        axes, lights = (
            shortest_axes(self.scales, self.quaternions),
            cameras.position if light is None else light.position,
        )

        def lit(position: Tensor, lamp: Tensor) -> Tensor:
            normals = turned_to(axes, self.means, position)
            return self.material.shade(albedo, normals, self.means, lamp.expand_as(normals), mode, ratio)

        return torch.stack([lit(*pair) for pair in zip(cameras.position.to(albedo), lights.to(albedo), strict=True)])

    def _depth_powers(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        distance = (self.means - cameras.position[:, None].to(self.means)).norm(dim=-1, keepdim=True)
        return distance, distance.square()

    def backdrop(self, cameras: Cameras, step: Step | None = None) -> Float[Tensor, "B 3 H W"]:
        return backdrop(self.background, cameras, None if step is None else step.rng("background"))

    @torch.no_grad()
    def preview(
        self,
        cameras: Cameras,
        light: Light | None = None,
        shading: ShadingMode = "albedo",
        background: Tensor | None = None,
        need_normal: bool = True,
    ) -> RenderOutput:
        parts = [self._colors(cameras, light, shading, None), self._depth_powers(cameras)[0]]
        if need_normal or needs_normal(shading):
            parts.append(self._normals(cameras))
        seen, opacity = self._drawn(torch.cat(parts, dim=2), cameras)
        behind = self.backdrop(cameras) if background is None else background.to(seen).view(1, 3, 1, 1)
        return RenderOutput(
            rgb=seen[:, :3] + (1.0 - opacity) * behind,
            opacity=opacity,
            depth=seen[:, 3:4] / opacity.clamp_min(1e-6),
            normal=seen[:, 4:] if len(parts) == 3 else None,
            shading=shading,
        )

    def _normals(self, cameras: Cameras) -> Float[Tensor, "B N 3"]:
        axes = shortest_axes(self.scales, self.quaternions)
        return torch.stack([turned_to(axes, self.means, p) for p in cameras.position.to(axes)])

    # -- their number over time --------------------------------------------------------------------------------------

    @torch.no_grad()
    def after_backward(self, optimizer: torch.optim.Optimizer, step: Step) -> None:
        settings, done = self.cfg.density, step.number + 1
        generator = rng("scene", step.seed, step.number)
        if self.means.grad is not None:
            self._watch()
        self._centers.clear()
        if settings.strategy == "mcmc" and done <= settings.until:
            rate = next(g["lr"] for g in optimizer.param_groups if any(p is self.means for p in g["params"]))
            self.means += shaken(self.gaussians, settings.noise * rate, generator)
        if settings.is_due(done):
            self._change(optimizer, generator)
        if settings.resets(done):
            self.opacities.clamp_(max=math.log(settings.reset_opacity / (1.0 - settings.reset_opacity)))
            forget(optimizer, self.opacities)
        self._stay_within_bounds()

    def _watch(self) -> None:
        """Add up how the loss pulls at the projected centres, in halves of the picture's width."""
        for centers, cameras in self._centers:
            if centers.grad is None:
                continue
            norm = 0.5 * cameras.width * centers.grad.norm(dim=-1)
            self.pull += norm.sum(dim=0)
            self.pulled += (norm > 0.0).sum(dim=0)

    def _change(self, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        settings, now = self.cfg.density, Gaussians(**{k: v.detach() for k, v in self.parameters_by_row().items()})
        if settings.strategy == "mcmc":
            change = relocated(now, settings, generator)
        else:
            change = adapted(now, self.pull / self.pulled.clamp_min(1.0), settings, generator)
        change_rows(optimizer, self.parameters_by_row(), change.keep, change.added.tensors())
        self._start_watching()

    def _start_watching(self) -> None:
        self.pull = self.means.new_zeros(len(self.means))
        self.pulled = torch.zeros_like(self.pull)

    def _stay_within_bounds(self) -> None:
        """Inside the ball, and neither thinner than THINNEST nor larger than ``max_size``."""
        distance = self.means.norm(dim=1, keepdim=True)
        self.means *= (self.cfg.radius / distance.clamp_min(1e-12)).clamp_max(1.0)
        self.scales.clamp_(math.log(THINNEST * self.cfg.radius), math.log(self.cfg.max_size))

    # -- as a solid, and as a file -----------------------------------------------------------------------------------

    def surface(self) -> Solid:
        geometry = SplatField.of(self.gaussians, self.cfg.radius)
        return Solid(geometry, self.cfg.radius, self.preview, "sphere", gaussians=splat_bytes(self.gaussians))

    def export(self, folder: Path) -> list[Path]:
        """gaussians.ply and gaussians.splat, as viewers read them."""
        contents = {"gaussians.ply": ply_bytes(self.gaussians), "gaussians.splat": splat_bytes(self.gaussians)}
        return [write_atomically(folder / name, data) for name, data in contents.items()]


def depth_variance(
    powers: Float[Tensor, "B 2 H W"], opacity: Float[Tensor, "B 1 H W"], min_opacity: float = 0.5
) -> Float[Tensor, ""]:
    """Variance of the distance along rays that hit the object, as `z_variance_loss` has it (arXiv 2305.18766)."""
    first, second = (powers / opacity.clamp_min(1e-6)).unbind(1)
    hit = (opacity[:, 0] > min_opacity).to(first)
    variance = (second - first.square()).clamp_min(0.0)
    return (variance * hit).sum() / hit.sum().clamp_min(1.0)
