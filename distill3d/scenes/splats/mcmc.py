"""Density control as sampling: 3D Gaussian splatting as Markov chain Monte Carlo (arXiv 2404.09591)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.scenes.splats.density import Change, DensitySettings, rows
from distill3d.scenes.splats.gaussians import Gaussians, logit, rotations

MOST_COPIES = 50  # of one Gaussian at a time; the binomial sums beyond are of no use
SHARPNESS, FAINT = 100.0, 0.995  # of the gate that shakes only faint Gaussians


def relocated(gaussians: Gaussians, settings: DensitySettings, generator: torch.Generator) -> Change:
    """Faint Gaussians go to where opaque ones are, drawn by opacity, and up to 5 % more join them.

    A Gaussian that n copies share gets the opacity and the size at which all together look as it did (equation 9).
    """
    opacity = gaussians.opacities.sigmoid()
    alive = opacity >= settings.min_opacity
    alive = alive if bool(alive.any()) else torch.ones_like(alive)
    dead = len(alive) - int(alive.sum())
    more = max(min(settings.max_count - len(alive), math.ceil(0.05 * len(alive))), 0)
    if dead + more == 0:
        return Change(alive.nonzero()[:, 0], rows(gaussians, torch.zeros_like(alive)))
    weights = torch.where(alive, opacity, 0.0).cpu()
    drawn = torch.multinomial(weights, dead + more, replacement=True, generator=generator).to(alive.device)
    copies = torch.bincount(drawn, minlength=len(alive)).clamp_max(MOST_COPIES - 1)
    shared = copies > 0
    members = torch.cat([shared.nonzero()[:, 0], drawn])
    return Change((alive & ~shared).nonzero()[:, 0], _sharing(rows(gaussians, members), 1 + copies[members]))


def _sharing(gaussians: Gaussians, count: Int[Tensor, "M"]) -> Gaussians:
    opacity = gaussians.opacities.sigmoid().double().clamp(1e-6, 1.0 - 1e-6)
    each = 1.0 - (1.0 - opacity) ** (1.0 / count)
    scales = gaussians.scales + _size_ratio(opacity, each, count).log().to(gaussians.scales)[:, None]
    changed = {"opacities": logit(each).to(gaussians.opacities), "scales": scales}
    return Gaussians(**{**gaussians.tensors(), **changed})


def _size_ratio(opacity: Tensor, each: Tensor, count: Tensor) -> Tensor:
    """``o / sum_{i=1}^n sum_{k=0}^{i-1} C(i-1, k) (-1)^k o_n^(k+1) / sqrt(k+1)`` for n copies of opacity ``o_n``."""
    ratio = torch.empty_like(opacity)
    for n in count.unique().tolist():
        at = count == n
        ratio[at] = opacity[at] / _mass(each[at], n)
    return ratio


def _mass(each: Tensor, n: int) -> Tensor:
    """The inner sums exchanged: ``sum_i C(i-1, k) = C(n, k+1)``; in float64, as the terms alternate."""
    terms = [math.comb(n, k + 1) * (-1.0) ** k * each ** (k + 1) / math.sqrt(k + 1) for k in range(n)]
    return torch.stack(terms).sum(dim=0).clamp_min(1e-6)


def shaken(gaussians: Gaussians, step_size: float, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Noise that only faint Gaussians feel, their covariance times a unit one (equation 8); an offset of the means."""
    gate = torch.sigmoid(SHARPNESS * ((1.0 - gaussians.opacities.sigmoid()) - FAINT))
    root = rotations(gaussians.quaternions) * gaussians.scales.exp()[:, None]
    unit = torch.randn(len(gaussians), 3, generator=generator).to(root)
    return step_size * gate[:, None] * (root @ (root.transpose(1, 2) @ unit[..., None]))[..., 0]
