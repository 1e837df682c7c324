"""Shading of surface points by one point light: pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.types import SHADING_MODES, ShadingMode


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
