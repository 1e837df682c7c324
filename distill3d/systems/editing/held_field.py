"""A field of which only a part may change: its colour, what lies in a box, or both."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distill3d.config.check import ConfigError
from distill3d.types import FieldSample

BoxCorners = tuple[tuple[float, float, float], tuple[float, float, float]]


class HeldField(nn.Module):
    """An edited field that answers as the original does wherever it must not change.

    Both are grids with shared parameters, so a mask on gradients could not hold a part of space: a parameter that is
    moved from inside the box also acts outside it. What the original answers, no parameter can move.

    keep_geometry: densities and normals are the original's everywhere. box: the two corners, in world units, of what
    may change; None is everywhere.
    """

    def __init__(self, edited: Any, original: Any, keep_geometry: bool = False, box: BoxCorners | None = None) -> None:
        super().__init__()
        self.edited = edited
        self.original = original.requires_grad_(False)
        self.keep_geometry = keep_geometry
        self.box = None if box is None else check_box(box)

    @property
    def radius(self) -> float:
        return self.edited.radius

    @property
    def cfg(self) -> Any:
        """The settings that exporters read."""
        return self.edited.cfg

    def update_step(self, step: int) -> None:
        """Only the edited field trains."""
        self.edited.update_step(step)

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """Density in inverse world units at world points."""
        if self.keep_geometry:
            return self.original.density(points)
        if self.box is None:
            return self.edited.density(points)
        return torch.where(self.may_change(points), self.edited.density(points), self.original.density(points))

    def sample(self, points: Float[Tensor, "P 3"], need_normal: bool) -> FieldSample:
        """Density, albedo and, on demand, normal: the original's where they must not change."""
        edited = self.edited.sample(points, need_normal and not self.keep_geometry)
        original = self.original.sample(points, need_normal)
        shape = original if self.keep_geometry else edited
        merged = FieldSample(shape.density, edited.albedo, shape.normal)
        if self.box is None:
            return merged
        inside = self.may_change(points)
        normal = None
        if merged.normal is not None and original.normal is not None:
            normal = torch.where(inside[:, None], merged.normal, original.normal)
        return FieldSample(
            torch.where(inside, merged.density, original.density),
            torch.where(inside[:, None], merged.albedo, original.albedo),
            normal,
        )

    def may_change(self, points: Float[Tensor, "P 3"]) -> Bool[Tensor, "P"]:
        """Whether points lie in the box, its faces included."""
        if self.box is None:
            return torch.ones(len(points), dtype=torch.bool, device=points.device)
        low, high = (points.new_tensor(corner) for corner in self.box)
        return ((points >= low) & (points <= high)).all(-1)


def check_box(box: BoxCorners) -> BoxCorners:
    """The box. Raises ValueError unless its first corner is the lower one."""
    if any(low >= high for low, high in zip(*box, strict=True)):
        raise ValueError(f"box={[list(corner) for corner in box]}: give the lower corner, then the upper one")
    return box


def check_box_within(box: BoxCorners | None, radius: float | None) -> None:
    """Raise ConfigError for a box that has nothing of the scene, which fills the cube of ``radius``, in it."""
    if box is None or radius is None or all(low < radius and high > -radius for low, high in zip(*box, strict=True)):
        return
    corners = [list(corner) for corner in box]
    raise ConfigError(
        f"system.edit_box={corners} lies outside the scene, which reaches from {-radius:g} to {radius:g} along each "
        "axis: nothing could change; give corners within it",
        "system.edit_box",
    )
