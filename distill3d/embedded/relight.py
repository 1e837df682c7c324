"""Cached G-buffers to training images: recolour, light, put before a background. Everything batched, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.embedded.captions import COLORS, MATERIALS
from distill3d.scenes.mesh.raster import GBuffer, unit_vectors

CHANNELS = 11  # albedo 3, normal 3, position 3, mask, share of the second object
UNLIT = (0, 1, 2, 9)  # of these: albedo and mask
_POSITION_RANGE = 1.5
_MATERIAL_BASE = {
    "stone": (0.55, 0.53, 0.50),
    "wooden": (0.58, 0.36, 0.18),
    "golden": (0.98, 0.76, 0.18),
    "silver": (0.80, 0.82, 0.86),
    "ice": (0.68, 0.88, 0.98),
}


@dataclass(frozen=True)
class ShadedSurface:
    """A decoded batch of cached views, floats."""

    albedo: Float[Tensor, "B 3 H W"]
    normal: Float[Tensor, "B 3 H W"]
    position: Float[Tensor, "B 3 H W"]
    mask: Float[Tensor, "B 1 H W"]
    second: Float[Tensor, "B 1 H W"]  # 1 where the second object is seen


def pack(buffer: GBuffer) -> UInt8[Tensor, "B 11 H W"]:
    """A G-buffer whose attributes are colour and the second object's share, in bytes."""
    unit = [
        buffer.attributes[:, :3],
        0.5 + 0.5 * buffer.normal,
        0.5 + buffer.position / _POSITION_RANGE,
        buffer.mask,
        buffer.attributes[:, 3:4],
    ]
    return (torch.cat(unit, dim=1).clamp(0, 1) * 255.0).round().to(torch.uint8)


def unpack(packed: UInt8[Tensor, "B 11 H W"]) -> ShadedSurface:
    unit = packed.float() / 255.0
    normal = unit_vectors(2.0 * unit[:, 3:6] - 1.0)
    position = (unit[:, 6:9] - 0.5) * _POSITION_RANGE
    return ShadedSurface(unit[:, :3], normal, position, unit[:, 9:10], unit[:, 10:11])


def recolored(albedo: Float[Tensor, "B 3 H W"], mask: Tensor, color: Float[Tensor, "B 3"]) -> Tensor:
    """The colour with the light and dark pattern of the albedo, whose own hue is dropped."""
    value = albedo.amax(dim=1, keepdim=True)
    mean = (value * mask).sum(dim=(2, 3), keepdim=True) / mask.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
    pattern = (value / mean.clamp_min(0.05)).clamp(0.0, 1.8)
    return (color[:, :, None, None] * (0.5 + 0.5 * pattern)).clamp(0.0, 1.0)


def material_albedo(
    name: str, position: Float[Tensor, "B 3 H W"], facing: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """A procedural solid texture; metals and ice brighten where the surface faces the camera."""
    base = position.new_tensor(_MATERIAL_BASE[name])[None, :, None, None]
    x, y, z = position[:, 0:1], position[:, 1:2], position[:, 2:3]
    if name == "stone":
        speckle = torch.sin(37.0 * x + 11.0 * y) * torch.sin(41.0 * y - 17.0 * z) * torch.sin(31.0 * z + 23.0 * x)
        return (base * (1.0 + 0.35 * speckle)).clamp(0.0, 1.0)
    if name == "wooden":
        rings = torch.sin(45.0 * (x + 0.15 * torch.sin(6.0 * z)) + 8.0 * y)
        return (base * (1.0 + 0.25 * rings)).clamp(0.0, 1.0)
    sharpness = {"golden": 0.75, "silver": 0.7, "ice": 0.3}[name]
    return (base * (1.0 - sharpness + sharpness * facing) + 0.35 * sharpness * facing**12).clamp(0.0, 1.0)


def overridden(
    surface: ShadedSurface, eye: Float[Tensor, "B 3"], overrides: list[tuple[str | None, str | None]]
) -> Float[Tensor, "B 3 H W"]:
    """Albedo after each row's (first, second) override: the name of a colour, of a material, or None."""
    albedo = surface.albedo.clone()
    for row, names in enumerate(overrides):
        for name, share in zip(names, (1.0 - surface.second[row], surface.second[row]), strict=True):
            if name is None:
                continue
            part = slice(row, row + 1)
            if name in COLORS:
                new = recolored(surface.albedo[part], surface.mask[part] * share, albedo.new_tensor([COLORS[name]]))
            elif name in MATERIALS:
                to_eye = unit_vectors(eye[part, :, None, None] - surface.position[part])
                facing = (surface.normal[part] * to_eye).sum(dim=1, keepdim=True).clamp(0.0, 1.0)
                new = material_albedo(name, surface.position[part], facing)
            else:
                raise ValueError(f"override {name!r} is neither a colour nor a material")
            albedo[part] = albedo[part] * (1.0 - share) + new * share
    return albedo


def lambertian(
    surface: ShadedSurface, albedo: Tensor, light: Float[Tensor, "B 3"], ambient: Float[Tensor, "B"]
) -> Float[Tensor, "B 3 H W"]:
    """``albedo * (ambient + (1 - ambient) max(0, n.l))`` with a point light, as the NeRF is shaded."""
    to_light = unit_vectors(light[:, :, None, None] - surface.position)
    cosine = (surface.normal * to_light).sum(dim=1, keepdim=True).clamp_min(0.0)
    ambient = ambient[:, None, None, None]
    return albedo * (ambient + (1.0 - ambient) * cosine)


def random_backgrounds(count: int, size: int, generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
    """Middle grey (more often than not), white, any grey, one colour, or a gradient between two.

    One background dominates, since a small network that must know many learns less of the objects; it is middle grey,
    which no object hides in, and from which a picture starts.
    """
    unit = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    kind = unit(count)[:, None]
    start, end = unit(count, 3), unit(count, 3)
    start = torch.where(kind < 0.6, torch.full((3,), 0.5), start)
    start = torch.where((kind >= 0.6) & (kind < 0.7), torch.ones(3), start)
    start = torch.where((kind >= 0.7) & (kind < 0.77), unit(count, 1).expand(-1, 3), start)
    end = torch.where(kind < 0.9, start, end)
    angle = unit(count)[:, None, None] * 2.0 * torch.pi
    line = torch.linspace(-0.5, 0.5, size)
    ramp = (0.5 + 0.7 * (line[None, None, :] * angle.cos() + line[None, :, None] * angle.sin())).clamp(0, 1)[:, None]
    return start[:, :, None, None] * (1.0 - ramp) + end[:, :, None, None] * ramp
