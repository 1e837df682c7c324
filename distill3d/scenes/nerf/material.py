"""Materials: how a view of the field is lit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.registry import register
from distill3d.scenes.nerf.activations import activation
from distill3d.scenes.nerf.shading import draw_mode, shade
from distill3d.types import ShadingMode


@register("material", "diffuse-with-point-light-material")
class DiffuseWithPointLightMaterial(nn.Module):
    """DreamFusion's material: an albedo under one point light, drawn as albedo, lambertian or textureless."""

    @dataclass
    class Config:
        ambient_light_color: tuple[float, float, float] = (0.1, 0.1, 0.1)
        diffuse_light_color: tuple[float, float, float] = (0.9, 0.9, 0.9)
        ambient_only_steps: int = 1000  # absolute steps before the first shaded view
        diffuse_prob: float = 0.75
        textureless_prob: float = 0.5
        albedo_activation: str | None = None  # null: the geometry's color_activation
        soft_shading: bool = False  # each shaded training view draws its own ratio of diffuse to ambient light

        def __post_init__(self) -> None:
            for name in ("diffuse_prob", "textureless_prob"):
                if not 0.0 <= getattr(self, name) <= 1.0:
                    raise ValueError(f"{name}={getattr(self, name)} is a probability; it must lie in 0 .. 1")
            if self.albedo_activation is not None:
                activation(self.albedo_activation, "albedo_activation")

    ambient: Tensor
    diffuse: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("ambient", torch.tensor(cfg.ambient_light_color), persistent=False)
        self.register_buffer("diffuse", torch.tensor(cfg.diffuse_light_color), persistent=False)

    def pick_mode(self, step: int, generator: torch.Generator) -> ShadingMode:
        """Albedo only before ``ambient_only_steps``; then 25 / 37.5 / 37.5 % by default (arXiv 2209.14988, A.2)."""
        if step < self.cfg.ambient_only_steps:
            return "albedo"
        return draw_mode(generator, self.cfg.diffuse_prob, self.cfg.textureless_prob)

    def shade(
        self,
        albedo: Float[Tensor, "points 3"],
        normal: Float[Tensor, "points 3"] | None,
        points: Float[Tensor, "points 3"],
        light_position: Float[Tensor, "points 3"] | None,
        mode: ShadingMode,
        diffuse_ratio: float | None = None,
    ) -> Float[Tensor, "points 3"]:
        """Colours of points; a ``diffuse_ratio`` in [0, 1] mixes white light in place of the two settings."""
        ambient, diffuse = self.ambient, self.diffuse
        if diffuse_ratio is not None:
            ambient, diffuse = torch.full_like(ambient, 1.0 - diffuse_ratio), torch.full_like(diffuse, diffuse_ratio)
        return shade(albedo, normal, points, light_position, mode, ambient, diffuse)
