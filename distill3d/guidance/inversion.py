"""DDIM inversion: the noise that a prior itself finds in an image, instead of random noise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.priors.base import DiffusionPrior
from distill3d.priors.sampling import ddim_step, posterior_deviation
from distill3d.types import Prediction

Predict = Callable[[Tensor, Tensor], Prediction]


def inversion_stops(until: Int[Tensor, "B"], last: Int[Tensor, "B"], stride: int) -> list[Int[Tensor, "B"]]:
    """Times 0, stride, 2 stride, ... below ``until``, then ``last``; rows that arrive early wait there."""
    count = int(-(-until.max() // stride)) if until.numel() else 0
    return [torch.where(k * stride < until, k * stride, last) for k in range(max(count, 1))] + [last]


def invert(
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    stops: list[Int[Tensor, "B"]],
    predict: Predict,
    generator: torch.Generator,
    eta: float = 0.0,
) -> Float[Tensor, "B C h w"]:
    """z at the last stop, starting with x at the first: deterministic DDIM steps upwards in time (arXiv 2010.02502).

    With ``eta`` each step adds noise of ``eta`` times the deviation of the reverse DDIM step, as SDI does.
    """
    z = x
    for now, following in itertools.pairwise(stops):
        moving = (following > now)[:, None, None, None]
        step = ddim_step(prior, predict(z, now), following)
        if eta > 0.0:
            noise = torch.randn(z.shape, generator=generator, device=generator.device).to(z)
            step = step + eta * posterior_deviation(prior, following, now) * noise
        z = torch.where(moving, step, z)
    return z
