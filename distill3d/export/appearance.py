"""The colour of a surface that stands for a volume: what a viewer sees who looks straight at it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.export.query import SceneField

FINE_STEPS = 8  # from ``reach`` outside to ``reach`` inside, where the surface of a sharp field lies
GROWING_STEPS = 5  # further in, each GROWTH times longer, for fields that are soft
GROWTH = 1.7
OPAQUE = 0.01  # transmittance below which nothing more is seen


def seen_along_normals(
    field: SceneField, points: Float[Tensor, "P 3"], normals: Float[Tensor, "P 3"], reach: float
) -> tuple[Float[Tensor, "P 3"], Float[Tensor, "P 3"]]:
    """Albedo composited along the inward normal through each point, and the mean position of what was seen.

    ``sum w_i albedo_i / sum w_i`` with the weights of volume rendering (arXiv 2003.08934, equation 3), from ``reach``
    (world units) outside. In a sharp field that is the albedo at the isosurface; in a soft one the albedo at a single
    density is that of a fringe which no view ever saw alone. Where nothing is dense the point's own albedo stands.
    """
    color, depth, weight = torch.zeros_like(points), torch.zeros(len(points)), torch.zeros(len(points))
    transmittance = torch.ones(len(points))
    for offset, step in zip(*_steps(reach), strict=True):
        rows = (transmittance > OPAQUE).nonzero()[:, 0]
        density, albedo = field.density_and_albedo(points[rows] + offset * normals[rows])
        w = transmittance[rows] * -torch.expm1(-density * step)
        color[rows] += w[:, None] * albedo
        depth[rows] += w * offset
        weight[rows] += w
        transmittance[rows] -= w
    unseen = (weight < 1e-3).nonzero()[:, 0]
    color[unseen], weight[unseen] = field.density_and_albedo(points[unseen])[1], 1.0
    return color / weight[:, None], points + (depth / weight)[:, None] * normals


def _steps(reach: float) -> tuple[list[float], list[float]]:
    """Middles (positive outside) and lengths of the intervals from ``reach`` inwards."""
    fine = 2.0 * reach / FINE_STEPS
    lengths = [fine] * FINE_STEPS + [fine * GROWTH ** (k + 1) for k in range(GROWING_STEPS)]
    ends = torch.tensor(lengths).cumsum(0)
    middles = reach - ends + 0.5 * torch.tensor(lengths)
    return middles.tolist(), lengths
