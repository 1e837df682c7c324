"""The learned b_psi: a spectral filter and a small U-Net for what it leaves (arXiv 2401.05293; a reconstruction)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad, pixel_shuffle, pixel_unshuffle, silu

from distill3d.guidance.corrective.spectral import SpectralCorrective

MIN_ALPHA = 0.05
MAX_NOISE_RATIO = 50.0
TIME_FEATURES = 32


class Precondition(NamedTuple):
    c_skip: Float[Tensor, "B 1 1 1"]
    c_out: Float[Tensor, "B 1 1 1"]


def noise_ratio(alpha: Float[Tensor, "B 1 1 1"], sigma: Float[Tensor, "B 1 1 1"]) -> Float[Tensor, "B 1 1 1"]:
    """``n = sigma / alpha``, bounded for t near T, where alpha vanishes."""
    return (sigma / alpha.clamp_min(MIN_ALPHA)).clamp_max(MAX_NOISE_RATIO)


def precondition(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Precondition:
    """``c_skip = s^2 / (n^2 + s^2)`` and ``c_out = n s / sqrt(n^2 + s^2)``, s the data's deviation.

    As in EDM (arXiv 2206.00364). b is the exact identity at t -> 0; without this the error of b_psi is multiplied by
    alpha/sigma, up to 50, and LMC-SDS diverges.
    """
    n = noise_ratio(alpha, sigma)
    variance = n**2 + sigma_data**2
    return Precondition(sigma_data**2 / variance, n * sigma_data / variance.sqrt())


class CorrectiveNetwork(nn.Module):
    """``b = base(x, t) + (s / sigma_data) c_out net((x - mu) / s, t)``, for images of any size.

    mu is the mean colour of each input image and s its deviation, so that image statistics are not learned. base is the
    best radial filter where one was fitted (the network then starts from the training-free b_psi, and learns what no
    filter does), else EDM's ``mu + c_skip (x - mu)``. filter_shape: t-bins and frequencies of that filter.
    """

    def __init__(
        self,
        channels: int,
        num_train_timesteps: int,
        sigma_data: float = 0.5,
        width: int = 16,
        patch: int = 1,
        filter_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.num_train_timesteps = channels, num_train_timesteps
        self.sigma_data, self.width, self.patch, self.filter_shape = sigma_data, width, patch, filter_shape
        self.net = ShallowUNet(channels, width, patch)
        if filter_shape is not None:
            bins, frequencies = filter_shape
            self.filter = SpectralCorrective(torch.ones(bins, 2, frequencies), torch.arange(float(bins)))

    def settings(self) -> dict[str, Any]:
        """What the constructor needs to build this network again."""
        names = ("channels", "num_train_timesteps", "sigma_data", "width", "patch", "filter_shape")
        return {name: getattr(self, name) for name in names}

    def forward(
        self,
        x: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        alpha: Float[Tensor, "B 1 1 1"],
        sigma: Float[Tensor, "B 1 1 1"],
    ) -> Float[Tensor, "B C h w"]:
        with torch.autocast(x.device.type, enabled=False):
            x, (c_skip, c_out) = x.float(), precondition(alpha, sigma, self.sigma_data)
            mean = x.mean((2, 3), keepdim=True)
            centred = x - mean
            # 1e-6 inside the root, not added to it: the deviation of a flat image must have a gradient
            deviation = ((centred**2).mean((1, 2, 3), keepdim=True) + 1e-6).sqrt()
            base = mean + c_skip * centred if self.filter_shape is None else self.filter(x, t, alpha, sigma)
            learned = self.net(centred / deviation, t / self.num_train_timesteps)
            return base + (deviation / self.sigma_data) * c_out * learned


class ShallowUNet(nn.Module):
    """Three resolutions, a residual block each, no normalisation, no attention: 290 k parameters at width 32.

    patch: pixels of a side that are stacked into channels first (a permutation), which makes wide layers cheap.
    """

    def __init__(self, channels: int, width: int, patch: int = 1) -> None:
        super().__init__()
        self.patch = patch
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.stem = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        self.down = Block(width, 2 * width, 4 * width)
        self.bottom = Block(2 * width, 2 * width, 4 * width)
        self.up = Block(4 * width, width, 4 * width)
        self.top = Block(2 * width, width, 4 * width)
        self.head = nn.Conv2d(width, channels * patch**2, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "B C h w"], time: Float[Tensor, "B"]) -> Float[Tensor, "B C h w"]:
        height, width = x.shape[2:]
        code = silu(self.time(positional_code(time)))
        full = self.stem(pixel_unshuffle(_to_multiple(x, self.patch), self.patch))
        half = self.down(_halved(full), code)
        quarter = self.bottom(_halved(half), code)
        half = self.up(torch.cat([_enlarged(quarter, half), half], 1), code)
        full = self.top(torch.cat([_enlarged(half, full), full], 1), code)
        return pixel_shuffle(self.head(silu(full)), self.patch)[:, :, :height, :width]


class Block(nn.Module):
    """``skip(x) + conv(silu(scale(t) conv(silu(x)) + shift(t)))``."""

    def __init__(self, channels_in: int, channels_out: int, code: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.film = nn.Linear(code, 2 * channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, code: Float[Tensor, "B D"]) -> Tensor:
        scale, shift = self.film(code)[:, :, None, None].chunk(2, 1)
        hidden = self.first(silu(x)) * (1 + scale) + shift
        return self.skip(x) + self.second(silu(hidden))


def positional_code(time: Float[Tensor, "B"]) -> Float[Tensor, "B D"]:
    """Sines and cosines of t / T at frequencies from 1 to 1000 radians, equally spaced in their logarithm."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(torch.arange(half, device=time.device) * (math.log(1000.0) / (half - 1)))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def _to_multiple(x: Tensor, patch: int) -> Tensor:
    """With its right and lower borders repeated, where its sides are no multiples of the patch."""
    height, width = x.shape[2:]
    return pad(x, (0, -width % patch, 0, -height % patch), mode="replicate")


def _halved(x: Tensor) -> Tensor:
    return avg_pool2d(x, 2, ceil_mode=True)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, like.shape[2:], mode="nearest")
