"""What a cloud of Gaussians is, before any optimiser or camera: plain tensors, and what is made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

MAX_COUNT = 1_000_000  # what is read at most: a step of more takes minutes on a CPU and gigabytes everywhere


@dataclass(frozen=True)
class Gaussians:
    """N anisotropic Gaussians as the optimiser sees them (arXiv 2308.04079, section 4).

    The covariance is ``R diag(exp(2 scales)) R^T``; opacity and colour are the sigmoid of what is kept.
    """

    means: Float[Tensor, "N 3"]  # world units
    scales: Float[Tensor, "N 3"]  # logarithm of the standard deviation along each axis
    quaternions: Float[Tensor, "N 4"]  # w, x, y, z; of any length but 0
    opacities: Float[Tensor, "N"]  # logits
    colors: Float[Tensor, "N 3"]  # logits of the albedo

    def __len__(self) -> int:
        return len(self.means)

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def rotations(quaternions: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 3 3"]:
    """Rotation matrices of quaternions ``w, x, y, z``, which need not have unit length; columns are the axes."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).view(*quaternions.shape[:-1], 3, 3)


def shortest_axes(scales: Float[Tensor, "N 3"], quaternions: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3"]:
    """The unit axis along which each is thinnest: the normal of the surface that it lies on, up to its sign."""
    thinnest = scales.detach().argmin(dim=1)
    return rotations(quaternions)[torch.arange(len(scales), device=scales.device), :, thinnest]


def turned_to(
    axes: Float[Tensor, "N 3"], means: Float[Tensor, "N 3"], position: Float[Tensor, "3"]
) -> Float[Tensor, "N 3"]:
    """The axes, each with the sign that faces a camera at ``position``."""
    faces = (axes.detach() * (position - means.detach())).sum(dim=1, keepdim=True) >= 0.0
    return torch.where(faces, axes, -axes)


def facing_outward(directions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 4"]:
    """Quaternions that turn +z to these unit directions."""
    w = 1.0 + directions[:, 2]
    around = torch.stack([w, -directions[:, 1], directions[:, 0], torch.zeros_like(w)], dim=1)
    upside_down = around.new_tensor([0.0, 1.0, 0.0, 0.0]).expand_as(around)
    return F.normalize(torch.where(w[:, None] > 1e-6, around, upside_down), dim=1)


def logit(values: Tensor, margin: float = 1e-3) -> Tensor:
    """The inverse of the sigmoid, with values kept ``margin`` from 0 and 1, where it has none."""
    return torch.logit(values, eps=margin)


def ball(
    count: int, radius: float, size: float, flatness: float, opacity: float, generator: torch.Generator
) -> Gaussians:
    """Grey Gaussians, uniform in a ball; like the layers of an onion, each is thinner towards the middle.

    size: standard deviation in world units; ``flatness``: how much smaller it is along the radius.
    """
    direction = F.normalize(torch.randn(count, 3, generator=generator), dim=1)
    means = radius * torch.rand(count, 1, generator=generator) ** (1 / 3) * direction
    deviations = torch.tensor([size, size, size * flatness]).expand(count, 3)
    opacities = torch.full((count,), math.log(opacity / (1.0 - opacity)))
    return Gaussians(means, deviations.log(), facing_outward(direction), opacities, torch.zeros(count, 3))
