"""How close pictures are to others: PSNR and SSIM."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SSIM_WINDOW = 11  # pixels; the Gaussian of Wang et al. with a standard deviation of 1.5


def psnr_db(
    images: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"], counted: Float[Tensor, "B 1 H W"] | None = None
) -> Float[Tensor, "B"]:
    """``-10 log10 MSE`` of each picture, colours in [0, 1]; infinite where they are equal.

    ``counted``: 1 for the pixels that are compared; None compares all.
    """
    error = (images - truth).square()
    if counted is None:
        return -10.0 * torch.log10(error.flatten(1).mean(1))
    pixels = (counted.flatten(1).sum(1) * images.shape[1]).clamp_min(1.0)
    return -10.0 * torch.log10((error * counted).flatten(1).sum(1) / pixels)


def ssim(images: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
    """Structural similarity of each picture (Wang et al., 2004), the mean over channels, by scikit-image.

    NaN for pictures smaller than the window.
    """
    from skimage.metrics import structural_similarity

    if min(images.shape[-2:]) < SSIM_WINDOW:
        return torch.full((len(images),), math.nan)
    settings = {"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    pairs = zip(images.cpu().numpy(), truth.cpu().numpy(), strict=True)
    return torch.tensor([structural_similarity(a, b, **settings) for a, b in pairs], dtype=torch.float32)
