"""Materials: how a view of the field is lit by one point light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.ranges import check_shares
from distill3d.config.registry import register
from distill3d.scenes.nerf.activations import activation
from distill3d.types import SHADING_MODES, ShadingMode


@register("material", "diffuse-with-point-light-material")
class DiffuseWithPointLightMaterial(nn.Module):
    """DreamFusion's material: albedo under one point light, shaded as albedo, lambertian or textureless."""

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
            check_shares(self, "diffuse_prob", "textureless_prob")
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


def lambertian(
    normal: Float[Tensor, "points 3"],
    points: Float[Tensor, "points 3"],
    light_position: Float[Tensor, "points 3"],
    ambient: Float[Tensor, "3"],
    diffuse: Float[Tensor, "3"],
) -> Float[Tensor, "points 3"]:
    """Irradiance ``diffuse max(0, n . l) + ambient``, l towards the light (arXiv 2209.14988, section 3.1)."""
    towards_light = F.normalize(light_position - points, dim=-1)
    cosine = (normal * towards_light).sum(-1, keepdim=True)
    return cosine.clamp_min(0.0) * diffuse + ambient


def shade(
    albedo: Float[Tensor, "points 3"],
    normal: Float[Tensor, "points 3"] | None,
    points: Float[Tensor, "points 3"],
    light_position: Float[Tensor, "points 3"] | None,
    mode: ShadingMode,
    ambient: Float[Tensor, "3"],
    diffuse: Float[Tensor, "3"],
) -> Float[Tensor, "points 3"]:
    """Colours in one of four modes: ``albedo``; ``lambertian``, ``albedo * irradiance``; ``textureless``, the same with
    a white albedo; ``normal``, ``(n + 1) / 2``. Raises ValueError for another mode, or where a mode lacks its input."""
    if mode not in SHADING_MODES:
        raise ValueError(f"shading={mode!r} is unknown; choose one of {', '.join(SHADING_MODES)}")
    if mode == "albedo":
        return albedo
    if normal is None:
        raise ValueError(f"shading={mode!r} needs normals, but the field was sampled without them")
    if mode == "normal":
        return 0.5 * normal + 0.5
    if light_position is None:
        raise ValueError(f"shading={mode!r} needs a light, but none was given")
    irradiance = lambertian(normal, points, light_position, ambient, diffuse)
    return albedo * irradiance if mode == "lambertian" else irradiance


def needs_normal(mode: ShadingMode) -> bool:
    """Whether a mode reads the normal."""
    return mode != "albedo"


def draw_mode(generator: torch.Generator, diffuse_prob: float, textureless_prob: float) -> ShadingMode:
    """``albedo`` with probability ``1 - diffuse_prob``; of the rest, ``textureless`` with ``textureless_prob``."""
    is_diffuse, is_textureless = torch.rand(2, generator=generator, device=generator.device).tolist()
    if is_diffuse >= diffuse_prob:
        return "albedo"
    return "textureless" if is_textureless < textureless_prob else "lambertian"
