"""Questions to a field at many points: chunked, without gradients, on the field's device, answered on the CPU."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.types import FieldSample

POINTS_PER_CHUNK = 1 << 17  # bounds the activations of the field's network to a few hundred megabytes


class Field(Protocol):
    """What an exporter needs of a geometry. The scene fills the cube ``[-radius, radius]^3``; outside it is empty."""

    radius: float

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]: ...

    def sample(self, points: Float[Tensor, "P 3"], need_normal: bool) -> FieldSample: ...


@torch.no_grad()
def density_at(field: Field, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
    """Density in inverse world units; zero outside the field's cube."""
    device = device_of(field)
    parts = [field.density(chunk.to(device)).float().cpu() for chunk in points.split(POINTS_PER_CHUNK)]
    density = torch.cat(parts) if parts else points.new_zeros(0)
    return torch.where((points.abs() <= field.radius * (1.0 + 1e-6)).all(dim=-1), density, 0.0)


@torch.no_grad()
def albedo_at(field: Field, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
    """Display-referred albedo in [0, 1]."""
    device = device_of(field)
    parts = [field.sample(chunk.to(device), False).albedo.float().cpu() for chunk in points.split(POINTS_PER_CHUNK)]
    return torch.cat(parts).clamp(0.0, 1.0) if parts else points.new_zeros(0, 3)


@torch.no_grad()
def normal_at(field: Field, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
    """Outward unit normals; zero where the field has none."""
    device = device_of(field)
    parts = []
    for chunk in points.split(POINTS_PER_CHUNK):
        normal = field.sample(chunk.to(device), True).normal
        if normal is None:
            raise ValueError("the geometry answered no normal although one was asked for; set normal_map=false")
        parts.append(normal.detach().float().cpu())
    return torch.nan_to_num(torch.cat(parts)) if parts else points.new_zeros(0, 3)


def device_of(field: Field) -> torch.device:
    """Where the field's parameters live; a field without parameters answers on the CPU."""
    parameters = field.parameters() if isinstance(field, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def project_to_isosurface(
    field: Field,
    points: Float[Tensor, "P 3"],
    directions: Float[Tensor, "P 3"],
    level: float,
    reach: float,
    iterations: int = 4,
) -> Float[Tensor, "P 3"]:
    """Move points along their outward unit directions, at most ``reach``, to where the density equals ``level``.

    A point inside looks outwards, a point outside looks inwards; one that sees no crossing stays. The root of
    ``f(t) = clamp(log(density / level), -3, 3)`` is bracketed, then found by regula falsi with the Illinois rule.
    """

    def f(rows: Tensor, t: Tensor) -> Tensor:
        density = density_at(field, points[rows] + t[:, None] * directions[rows])
        return (density / level).clamp_min(1e-6).log().clamp(-3.0, 3.0)

    rows = torch.arange(len(points))
    near, f_near = torch.zeros(len(points)), f(rows, torch.zeros(len(points)))
    far = torch.where(f_near > 0, reach, -reach)
    f_far = f(rows, far)
    crossing = (f_near * f_far <= 0) & (f_near != f_far)
    rows, near, far, f_near, f_far = (x[crossing] for x in (rows, near, far, f_near, f_far))
    root = near - f_near * (far - near) / (f_far - f_near)
    for _ in range(iterations - 1):
        f_root = f(rows, root)
        same_side = f_root * f_near > 0
        f_far = torch.where(same_side, 0.5 * f_far, f_near)  # Illinois: the end that stays loses half its weight
        far = torch.where(same_side, far, near)
        near, f_near = root, f_root
        slope = torch.where(f_far == f_near, 1.0, f_far - f_near)
        root = torch.where(f_near == 0, near, near - f_near * (far - near) / slope)
    moved = points.clone()
    moved[rows] = points[rows] + root[:, None] * directions[rows]
    return moved
