"""Figures of pictures that need no model: saturation, colourfulness, sharpness, and similarity to an original."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

HIGH_FREQUENCY = 0.25  # cycles a pixel: half of what a picture can hold


def saturation(images: Float[Tensor, "B 3 H W"]) -> float:
    """Mean over pixels of max - min over the channels, in [0, 1]."""
    return float((images.amax(dim=1) - images.amin(dim=1)).mean())


def colourfulness(images: Float[Tensor, "B 3 H W"]) -> float:
    """``sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2)``, a mean over images in [0, 1].

    Hasler and Suesstrunk, Measuring colourfulness in natural images, 2003: rg = R - G, yb = (R + G)/2 - B, with the
    standard deviations s and the means m over pixels.
    """
    red, green, blue = images.unbind(dim=1)
    opponents = torch.stack([red - green, 0.5 * (red + green) - blue], dim=1).flatten(2)
    spread = opponents.std(dim=2, correction=0).norm(dim=1)
    return float((spread + 0.3 * opponents.mean(dim=2).norm(dim=1)).mean())


def high_frequency_ratio(images: Float[Tensor, "B 3 H W"], cutoff: float = HIGH_FREQUENCY) -> float:
    """The share of the luminance's energy, its mean left out, above ``cutoff`` cycles a pixel; 0 for flat images.

    A Hann window keeps the edges of the picture from counting as detail.
    """
    grey = images.mean(dim=1)
    height, width = grey.shape[-2:]
    window = torch.outer(torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False))
    window = window.to(grey)
    mean = (grey * window).sum(dim=(1, 2), keepdim=True) / window.sum()
    energy = torch.fft.rfft2((grey - mean) * window).abs() ** 2
    columns = torch.full((energy.shape[-1],), 2.0)  # rfft2 leaves out the mirrored half
    columns[0] = 1.0
    if width % 2 == 0:
        columns[-1] = 1.0
    energy = energy * columns.to(energy)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]).to(grey)
    total = energy.sum(dim=(1, 2))
    high = (energy * (frequency > cutoff)).sum(dim=(1, 2))
    return float(torch.where(total > 1e-8, high / total.clamp_min(1e-8), torch.zeros_like(total)).mean())


def view_consistency(features: Float[Tensor, "V E"]) -> float:
    """Mean cosine between views that are neighbours on the circle; ``features`` have unit length."""
    return float((features * features.roll(1, dims=0)).sum(dim=1).mean())


def diversity(features: Float[Tensor, "N E"]) -> float:
    """Mean of ``1 - cosine`` over all pairs; 0 for a single one."""
    count = len(features)
    if count < 2:
        return 0.0
    cosines = features @ features.T
    return float(1.0 - (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def ssim(a: Float[Tensor, "B 3 H W"], b: Float[Tensor, "B 3 H W"]) -> float:
    """Structural similarity of images in [0, 1] (Wang et al., 2004): Gaussian window of 11 pixels and sigma 1.5."""
    x = torch.arange(11, dtype=a.dtype, device=a.device) - 5.0
    gauss = torch.exp(-(x**2) / (2 * 1.5**2))
    kernel = torch.outer(gauss, gauss)
    kernel = (kernel / kernel.sum()).expand(3, 1, 11, 11)
    blur = lambda image: F.conv2d(image, kernel, groups=3)  # noqa: E731
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def feature_distance(a: Float[Tensor, "B E"], b: Float[Tensor, "B E"]) -> float:
    """Mean of ``1 - cosine`` between unit features of pairs."""
    return float((1.0 - (a * b).sum(dim=1)).mean())
