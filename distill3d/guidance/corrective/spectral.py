"""The training-free b_psi: one gain for each radial frequency and time, by least squares."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import Pass, PromptEmbedding


def radial_frequency(height: int, width: int) -> Float[Tensor, "h w2"]:
    """Cycles per pixel of each coefficient of ``rfft2``."""
    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])


def radial_sums(power: Float[Tensor, "h w2"], height: int, width: int, bins: int) -> Float[Tensor, "F"]:
    """Sums over rings of a plane of ``rfft2`` coefficients; ring i holds frequencies around ``i / (2 (bins - 1))``."""
    ring = (radial_frequency(height, width) * 2 * (bins - 1)).round().long().clamp_max(bins - 1).to(power.device)
    return torch.zeros(bins, dtype=power.dtype, device=power.device).index_add_(0, ring.flatten(), power.flatten())


class SpectralCorrective(nn.Module):
    """``b = mu + F^-1 [ g(|f|, t) F (x - mu) ]``, mu the mean colour of each image: radial filters for each time.

    One filter is for the mean over channels (grey), one for what is left (colour), of which a prior keeps less. For
    Gaussian data g is the Wiener filter ``alpha^2 S / (alpha^2 S + sigma^2)``. The gain is interpolated linearly in
    frequency (cycles per pixel, so it serves every image size) and in t, and is 1 at t = -1, before any noise.

    gains: of grey and colour; a table without that dimension serves both.
    """

    gains: Float[Tensor, "K 2 F"]
    times: Float[Tensor, "K"]

    def __init__(self, gains: Float[Tensor, "K F"] | Float[Tensor, "K 2 F"], times: Float[Tensor, "K"]) -> None:
        super().__init__()
        gains = gains if gains.ndim == 3 else gains[:, None].repeat(1, 2, 1)
        self.register_buffer("gains", gains)
        self.register_buffer("times", times)

    def gain(self, t: Int[Tensor, "B"], height: int, width: int) -> Float[Tensor, "B 2 h w2"]:
        """The filters of each row on the grid of ``rfft2``."""
        table = torch.cat([torch.ones_like(self.gains[:1]), self.gains]).flatten(1)
        knots = torch.cat([self.times.new_tensor([-1.0]), self.times])
        rows = _interpolate(table, _position(t.to(knots), knots)).view(2 * len(t), -1)
        bins = rows.shape[1]
        place = (radial_frequency(height, width).to(table) * 2 * (bins - 1)).clamp_max(bins - 1)
        return _interpolate(rows.T, place.flatten()).T.reshape(len(t), 2, *place.shape)

    def forward(
        self,
        x: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        alpha: Float[Tensor, "B 1 1 1"],
        sigma: Float[Tensor, "B 1 1 1"],
    ) -> Float[Tensor, "B C h w"]:
        x = x.float()
        mean = x.mean((2, 3), keepdim=True)
        size = x.shape[-2:]
        grey, color = self.gain(t, *size).split(1, dim=1)
        parts = grey_and_color(torch.fft.rfft2(x - mean))
        return mean + torch.fft.irfft2(parts[0] * grey + parts[1] * color, s=size)


def grey_and_color(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over channels, in all of them, and the rest."""
    grey = x.mean(1, keepdim=True).expand_as(x)
    return grey, x - grey


@torch.no_grad()
def fit_spectral(
    prior: DiffusionPrior,
    images: Float[Tensor, "N C h w"],
    text: PromptEmbedding,
    generator: torch.Generator,
    t_bins: int = 16,
    repeats: int = 1,
) -> SpectralCorrective:
    """Least squares of x_hat on x for each ring and t-bin: ``g = sum Re(X_hat X*) / sum |X|^2``.

    images: clean images in the prior's space; text: one row, what the prior is told about them. Raises ValueError
    where the images have no contrast to fit to.
    """
    edges = torch.linspace(0, prior.num_train_timesteps - 1, t_bins + 1)
    gains, times = [], (edges[1:] + edges[:-1]) / 2
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        parts = [_ring_products(prior, images, text, low, high, generator) for _ in range(repeats)]
        cross, power = torch.stack(parts).sum(0)
        gains.append(cross / power.clamp_min(1e-12))
    if not power.sum() > 1e-6:
        raise ValueError("the spectral corrective cannot be fitted: its images have no contrast; give other images")
    return SpectralCorrective(torch.stack(gains).cpu(), times)


def _ring_products(
    prior: DiffusionPrior, images: Tensor, text: PromptEmbedding, low: float, high: float, generator: torch.Generator
) -> Float[Tensor, "2 2 F"]:
    """``sum Re(X_hat X*)`` and ``sum |X|^2`` over one t-bin, of grey and of colour; t is spread evenly over it."""
    count, (height, width) = len(images), images.shape[-2:]
    t = (low + (high - low) * (torch.arange(count) + 0.5) / count).round().long().to(images.device)
    eps = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
    x_hat = prior.predict([Pass(add_noise(prior, images, eps, t), t, text[[0] * count])])[0].x0
    x, y = (torch.fft.rfft2(v - v.mean((2, 3), keepdim=True)) for v in (images.float(), x_hat))
    bins = max(height, width) // 2 + 1
    sums = []
    for part_x, part_y in zip(grey_and_color(x), grey_and_color(y), strict=True):
        products = ((part_y * part_x.conj()).real.sum((0, 1)), (part_x.abs() ** 2).sum((0, 1)))
        sums.append(torch.stack([radial_sums(plane, height, width, bins) for plane in products]))
    return torch.stack(sums, dim=1)


def _position(value: Float[Tensor, "B"], knots: Float[Tensor, "K"]) -> Float[Tensor, "B"]:
    """Fractional index into ascending knots, held at both ends."""
    right = torch.searchsorted(knots, value.contiguous()).clamp(1, len(knots) - 1)
    share = (value - knots[right - 1]) / (knots[right] - knots[right - 1])
    return right - 1 + share.clamp(0, 1)


def _interpolate(table: Float[Tensor, "K F"], position: Float[Tensor, "B"]) -> Float[Tensor, "B F"]:
    low = position.floor().long().clamp(0, max(len(table) - 2, 0))
    share = (position - low)[:, None]
    return table[low] + share * (table[(low + 1).clamp_max(len(table) - 1)] - table[low])
