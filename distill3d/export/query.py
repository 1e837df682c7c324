"""Questions to a field at many points: chunked, without gradients, on the field's device, answered on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.scenes.base import Field, Solid

POINTS_PER_CHUNK = 1 << 17  # bounds the activations of the field's network to a few hundred megabytes


@dataclass(frozen=True)
class SceneField:
    """A geometry cut to the bound of its renderer: outside, where no view was trained, the density is zero."""

    geometry: Field
    radius: float
    bound: Literal["box", "sphere"] = "box"

    @staticmethod
    def of(solid: Solid) -> SceneField:
        """The field of a scene, within the scene's bound."""
        return SceneField(solid.geometry, float(solid.radius), solid.bound)

    @property
    def device(self) -> torch.device:
        """Where the geometry's parameters live; one without parameters answers on the CPU."""
        parameters = self.geometry.parameters() if isinstance(self.geometry, nn.Module) else iter(())
        return next((p.device for p in parameters), torch.device("cpu"))

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """Density in inverse world units; zero outside the bound."""
        return self._within_bound(points, self._ask(points, self.geometry.density))

    def density_and_albedo(self, points: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, "P"], Float[Tensor, "P 3"]]:
        """Density as above, and display-referred albedo in [0, 1]."""

        def ask(chunk: Tensor) -> Tensor:
            sample = self.geometry.sample(chunk, False)
            return torch.cat([sample.density[:, None], sample.albedo.clamp(0.0, 1.0)], dim=1)

        both = self._ask(points, ask)
        return self._within_bound(points, both[:, 0]), both[:, 1:]

    def normal(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Outward unit normals; zero where the field has none. Raises ValueError for a geometry without normals."""

        def ask(chunk: Tensor) -> Tensor:
            normal = self.geometry.sample(chunk, True).normal
            if normal is None:
                raise ValueError("normal_map=true needs a geometry with normals, and this one has none")
            return normal

        return torch.nan_to_num(self._ask(points, ask))

    def _within_bound(self, points: Float[Tensor, "P 3"], density: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
        distance = points.norm(dim=-1) if self.bound == "sphere" else points.abs().amax(dim=-1)
        return torch.where(distance <= self.radius * (1.0 + 1e-6), density, 0.0)

    @torch.no_grad()
    def _ask(self, points: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([function(chunk.to(self.device)).float().cpu() for chunk in points.split(POINTS_PER_CHUNK)])
