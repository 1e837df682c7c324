"""Gaussians in the world to Gaussians on the screen: the local affine approximation of EWA splatting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.scenes.splats.gaussians import rotations
from distill3d.types import Cameras

NEAR = 0.05  # world units; what is nearer is not drawn
LOW_PASS = 0.3  # added to the variance, in square pixels, so that nothing is thinner than a pixel
WIDEST = 1.3  # how far outside the picture, in units of half its size, the affine approximation is taken at


@dataclass(frozen=True)
class ScreenGaussians:
    """N Gaussians on the screens of B cameras. Pixels: x to the right, y down, (0.5, 0.5) the first centre."""

    centers: Float[Tensor, "B N 2"]
    conics: Float[Tensor, "B N 3"]  # a, b, c of the inverse covariance [[a, b], [b, c]]
    share: Float[Tensor, "B N"]  # of the opacity that is left when the low-pass filter has widened a Gaussian
    depths: Float[Tensor, "B N"]  # along the view axis
    visible: Bool[Tensor, "B N"]  # in front of the near plane


def project(
    means: Float[Tensor, "N 3"],
    scales: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    cameras: Cameras,
    antialiased: bool = True,
) -> ScreenGaussians:
    """``Sigma' = J W Sigma W^T J^T + LOW_PASS I`` (arXiv 2308.04079, equation 5), J the Jacobian of the perspective.

    ``antialiased`` scales opacities by ``sqrt(det Sigma'_without / det Sigma')`` (arXiv 2311.16493), so that a Gaussian
    far smaller than a pixel does not grow when the picture gets smaller.
    """
    c2w = cameras.c2w.to(means)
    focal = (0.5 * cameras.height / torch.tan(0.5 * cameras.fovy_rad.to(means)))[:, None]
    local = (means - c2w[:, None, :3, 3]) @ c2w[:, :3, :3]  # B N 3: x right, y up, looking along -z
    depth = -local[..., 2]
    visible = depth.detach() > NEAR
    safe = torch.where(visible, depth, torch.ones_like(depth))
    x, y = local[..., 0] / safe, local[..., 1] / safe
    centers = torch.stack([0.5 * cameras.width + focal * x, 0.5 * cameras.height - focal * y], dim=-1)
    half = WIDEST * 0.5 / focal
    x_near = torch.minimum(torch.maximum(x, -half * cameras.width), half * cameras.width)
    y_near = torch.minimum(torch.maximum(y, -half * cameras.height), half * cameras.height)
    axes = torch.einsum("bij,nik->bnjk", c2w[:, :3, :3], rotations(quaternions) * scales.exp()[:, None])
    across = (focal / safe)[..., None] * (axes[..., 0, :] + x_near[..., None] * axes[..., 2, :])
    down = -(focal / safe)[..., None] * (axes[..., 1, :] + y_near[..., None] * axes[..., 2, :])
    conics, share = _inverse(across, down)
    return ScreenGaussians(centers, conics, share if antialiased else torch.ones_like(share), depth, visible)


def _inverse(across: Float[Tensor, "B N 3"], down: Float[Tensor, "B N 3"]) -> tuple[Tensor, Tensor]:
    """The conic of the covariance with rows ``across`` and ``down``, low-pass filtered, and the share of opacity."""
    xx, yy = across.square().sum(-1), down.square().sum(-1)
    xy = (across * down).sum(-1)
    # |across x down|^2 and not xx yy - xy^2, which cancels for a Gaussian seen edge on
    before = torch.linalg.cross(across, down, dim=-1).square().sum(-1)
    determinant = before + LOW_PASS * (xx + yy) + LOW_PASS**2
    conics = torch.stack([yy + LOW_PASS, -xy, xx + LOW_PASS], dim=-1) / determinant[..., None]
    return conics, (before / determinant).clamp_min(1e-8).sqrt()  # the clamp keeps the root's slope finite
