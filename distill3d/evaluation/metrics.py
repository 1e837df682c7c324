"""Image metrics that need no model: colour, sharpness, PSNR, SSIM, and distances between features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

HIGH_FREQUENCY = 0.25  # cycles a pixel: half of what a picture can hold
HIGHEST_PSNR_DB = 99.0
SSIM_WINDOW = 11  # pixels


def foreground(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """How much each pixel differs from the picture's border: 0 up to a difference of .03, 1 from .13 on.

    The border's colour is its median. So an object before one colour, or a faint gradient, is told from it; of a
    picture without a border of one colour most of it counts.
    """
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], dim=-1)
    difference = (images - border.median(dim=-1).values[..., None, None]).abs().amax(dim=1, keepdim=True)
    return ((difference - 0.03) / 0.1).clamp(0.0, 1.0)


def saturation(images: Float[Tensor, "B 3 H W"], weight: Float[Tensor, "B 1 H W"] | None = None) -> float:
    """Mean over pixels of max - min over the channels, in [0, 1]; pixels may have a weight, and 0 is that of none."""
    values = images.amax(dim=1, keepdim=True) - images.amin(dim=1, keepdim=True)
    return float(values.mean() if weight is None else (values * weight).sum() / weight.sum().clamp_min(1e-6))


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


def psnr_db(
    images: Float[Tensor, "B C H W"], truth: Float[Tensor, "B C H W"], counted: Float[Tensor, "B 1 H W"] | None = None
) -> Float[Tensor, "B"]:
    """``-10 log10 MSE`` of each image, colours in [0, 1]; at most 99 dB, since JSON has no infinity.

    ``counted``: 1 for the pixels that are compared; None compares all.
    """
    error = (images - truth).square()
    mean = error.flatten(1).mean(1)
    if counted is not None:
        pixels = (counted.flatten(1).sum(1) * images.shape[1]).clamp_min(1.0)
        mean = (error * counted).flatten(1).sum(1) / pixels
    return (-10.0 * torch.log10(mean)).clamp_max(HIGHEST_PSNR_DB)


def ssim(images: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
    """Structural similarity of each image (Wang et al., 2004), the mean over its channels, by scikit-image.

    NaN for images smaller than the window.
    """
    if min(images.shape[-2:]) < SSIM_WINDOW:
        return torch.full((len(images),), math.nan)
    border = SSIM_WINDOW // 2
    return ssim_map(images, truth)[..., border:-border, border:-border].flatten(1).mean(1)


def ssim_map(images: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """SSIM around each pixel, in a Gaussian window of 11 pixels with a deviation of 1.5."""
    from skimage.metrics import structural_similarity

    settings = {"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    pairs = zip(images.cpu().numpy(), truth.cpu().numpy(), strict=True)
    return torch.stack([torch.from_numpy(structural_similarity(a, b, full=True, **settings)[1]) for a, b in pairs])


def feature_distance(a: Float[Tensor, "B E"], b: Float[Tensor, "B E"]) -> float:
    """Mean of ``1 - cosine`` between unit features of pairs."""
    return float((1.0 - (a * b).sum(dim=1)).mean())


def share(hits: Sequence[bool]) -> float:
    """How many of them are true, in [0, 1]; there must be one."""
    return float(torch.tensor(hits, dtype=torch.float32).mean())
