"""Questions to a field at many points: chunked, without gradients, on the field's device, answered on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.types import FieldSample

POINTS_PER_CHUNK = 1 << 17  # bounds the activations of the field's network to a few hundred megabytes


class Geometry(Protocol):
    """What an exporter needs of a geometry, which fills at most the cube ``[-radius, radius]^3``."""

    radius: float

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]: ...

    def sample(self, points: Float[Tensor, "P 3"], need_normal: bool) -> FieldSample: ...


@dataclass(frozen=True)
class SceneField:
    """A geometry within the bound that its renderer draws; nobody ever saw what lies outside, so that is empty."""

    geometry: Geometry
    radius: float
    bound: Literal["box", "sphere"] = "box"

    @staticmethod
    def of(renderer: Any) -> SceneField:
        """The renderer's geometry; its own ``radius`` and ``bound`` settings, where it has them, go before the cube."""
        settings = getattr(renderer, "cfg", None)
        radius = getattr(settings, "radius", None)
        own = renderer.geometry.radius if radius is None else radius
        return SceneField(renderer.geometry, float(own), getattr(settings, "bound", "box"))

    @property
    def device(self) -> torch.device:
        """Where the geometry's parameters live; one without parameters answers on the CPU."""
        parameters = self.geometry.parameters() if isinstance(self.geometry, nn.Module) else iter(())
        return next((p.device for p in parameters), torch.device("cpu"))

    def setting(self, name: str) -> Any:
        """A setting that the geometry keeps for the exporter, or None."""
        return getattr(getattr(self.geometry, "cfg", None), name, None)

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """Density in inverse world units; zero outside the bound."""
        density = self._ask(points, self.geometry.density)
        distance = points.norm(dim=-1) if self.bound == "sphere" else points.abs().amax(dim=-1)
        return torch.where(distance <= self.radius * (1.0 + 1e-6), density, 0.0)

    def albedo(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Display-referred albedo in [0, 1]."""
        return self._ask(points, lambda chunk: self.geometry.sample(chunk, False).albedo).clamp(0.0, 1.0)

    def normal(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Outward unit normals; zero where the field has none. Raises ValueError for a geometry without normals."""

        def ask(chunk: Tensor) -> Tensor:
            normal = self.geometry.sample(chunk, True).normal
            if normal is None:
                raise ValueError("normal_map=true needs a geometry with normals, and this one has none")
            return normal

        return torch.nan_to_num(self._ask(points, ask))

    @torch.no_grad()
    def _ask(self, points: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([function(chunk.to(self.device)).float().cpu() for chunk in points.split(POINTS_PER_CHUNK)])


def project_to_isosurface(
    field: SceneField,
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
        density = field.density(points[rows] + t[:, None] * directions[rows])
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
