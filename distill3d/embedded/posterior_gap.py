"""How far a prior is from the best that its own training views allow, where that best is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from distill3d.embedded.mesh_views import ShadingMix, ViewCache, ViewSampler
from distill3d.embedded.posterior import posterior_means
from distill3d.priors.base import DiffusionPrior, PromptEncoder, add_noise
from distill3d.runtime.rng import rng
from distill3d.types import Pass

CELLS = 16


@dataclass(frozen=True)
class PosteriorGap:
    """Mean squared distances at one time t, of unlit views of single objects before one colour."""

    timestep: int
    image_size: int
    gap: float  # from the prediction to the posterior mean over all cached views: 0 for a network that is perfect
    coarse: float  # the same between means over cells of a grid of 16x16
    chance: float  # from the posterior mean to the image: what no network can know


@torch.no_grad()
def posterior_gaps(
    prior: DiffusionPrior,
    encoder: PromptEncoder,
    cache: ViewCache,
    nouns: list[str],
    count: int = 64,
    times: tuple[int, ...] = (500, 600, 700, 800, 900),
) -> list[PosteriorGap]:
    """At every native size, for ``count`` views; the mean is over all that caption and background allow."""
    sampler = ViewSampler(cache, nouns, 4, 0.0, 0.0, ShadingMix(1.0, 0.0, 0.0), with_others=True)
    gaps = []
    for size in prior.spec.image_sizes:
        batch = sampler.batch(0, count, size)
        rows = [i for i, others in enumerate(batch.others) if others is not None]
        x, others = prior.encode(0.5 + 0.5 * batch.images[rows]), [batch.others[i] for i in rows]
        text = encoder([batch.captions[i] for i in rows])
        cells = lambda image: F.adaptive_avg_pool2d(image, min(CELLS, size))  # noqa: E731, B023
        for time_step in times:
            t = torch.full((len(x),), time_step, device=x.device)
            noisy = add_noise(prior, x, torch.randn(x.shape, generator=rng("noise", time_step)).to(x), t)
            alpha, sigma = prior.alpha_sigma(t)
            mean = posterior_means(x, noisy, alpha, sigma, others)
            found = prior.predict([Pass(noisy, t, text)])[0].x0
            distance = lambda a, b: float((a - b).square().mean())  # noqa: E731
            gap, coarse = distance(found, mean), distance(cells(found), cells(mean))
            gaps.append(PosteriorGap(time_step, size, gap, coarse, distance(mean, x)))
    return gaps
