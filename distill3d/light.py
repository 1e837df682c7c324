"""Point lights drawn around the camera."""

from __future__ import annotations

from typing import Literal

import torch

from distill3d.camera import for_each_view
from distill3d.types import Cameras, Light

LightStrategy = Literal["dreamfusion", "magic3d"]


def random_lights(
    cameras: Cameras,
    generator: torch.Generator,
    strategy: LightStrategy = "dreamfusion",
    light_position_perturb: float = 1.0,
    light_distance_range: tuple[float, float] = (0.8, 1.5),
    n_view: int = 1,
) -> Light:
    """One light for each camera; what is drawn for it is the same in each set of ``n_view`` cameras in a row.

    ``dreamfusion`` (arXiv 2209.14988): direction ~ N(camera position, perturb^2), distance uniform.
    ``magic3d`` (arXiv 2211.10440): uniform within a cone of 60 degrees around the camera's direction, same distances.
    Raises ValueError for an unknown strategy.
    """
    position = cameras.position
    sets = len(position) // n_view
    each = lambda drawn: for_each_view(drawn.to(position), n_view)  # noqa: E731
    normal = each(torch.randn(sets, 3, generator=generator))
    unit = each(torch.rand(sets, generator=generator))
    distance = light_distance_range[0] + (light_distance_range[1] - light_distance_range[0]) * unit
    if strategy == "dreamfusion":
        direction = position + normal * light_position_perturb
    elif strategy == "magic3d":
        direction = _within_cone(position, normal, each(torch.rand(sets, generator=generator)))
    else:
        raise ValueError(f"light_sample_strategy={strategy!r} is unknown; choose dreamfusion or magic3d")
    return Light(torch.nn.functional.normalize(direction, dim=-1) * distance[:, None])


def _within_cone(axis: torch.Tensor, normal: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Directions at most 60 degrees from the axis, uniform by solid angle."""
    axis = torch.nn.functional.normalize(axis, dim=-1)
    across = torch.nn.functional.normalize(normal - (normal * axis).sum(-1, keepdim=True) * axis, dim=-1)
    cosine = (1.0 - 0.5 * unit)[:, None]
    return cosine * axis + (1.0 - cosine**2).sqrt() * across
