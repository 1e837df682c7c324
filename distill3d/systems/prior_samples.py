"""Samples of the prior that a system draws for itself: training images, and pictures to start from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.base import DiffusionPrior
from distill3d.priors.sampling import ddim_sample
from distill3d.runtime.protocols import SampledFromPrior
from distill3d.runtime.rng import rng
from distill3d.types import PromptEmbedding

log = logging.getLogger(__name__)
SAMPLING_BATCH = 32


def fill_with_samples(
    data: Any, prior: DiffusionPrior, embed: Callable[[list[str]], PromptEmbedding], seed: int
) -> None:
    """Give a data module the prior's samples, where it asks for them."""
    if isinstance(data, SampledFromPrior):
        data.fill(draw_samples(prior, embed, data, seed))


def draw_samples(
    prior: DiffusionPrior, embed: Callable[[list[str]], PromptEmbedding], data: SampledFromPrior, seed: int
) -> Float[Tensor, "N C h w"]:
    """The samples that a datamodule asks for, in the prior's own space."""
    cfg, captions, generator = data.cfg, data.captions(), rng("data", seed, step=-1)
    parts = []
    for start in range(0, cfg.count, SAMPLING_BATCH):
        text = embed(captions[start : start + SAMPLING_BATCH])
        empty = embed([""] * len(text))
        settings = (cfg.image_size, empty, cfg.guidance_scale, cfg.sampling_steps)
        parts.append(ddim_sample(prior, text, generator, *settings))
        log.info("sampled %d of %d images of the prior", min(start + SAMPLING_BATCH, cfg.count), cfg.count)
    return torch.cat(parts)


def draw_picture(
    prior: DiffusionPrior, text: PromptEmbedding, empty: PromptEmbedding, seed: int, guidance_scale: float = 4.0
) -> Float[Tensor, "3 H W"]:
    """One sample for one row of text, as an image in [0, 1]; a function of the seed."""
    x = ddim_sample(prior, text, rng("data", seed, step=-2), None, empty, guidance_scale, clip=x_limit(prior))
    return prior.decode(x)[0]


def x_limit(prior: DiffusionPrior) -> float | None:
    """What bounds x: 1 in pixel space, nothing among latents."""
    return 1.0 if prior.spec.space == "pixels" else None
