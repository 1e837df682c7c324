"""SDEdit: a picture noised part of the way and denoised again, with another text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.priors.sampling import ddim_denoise
from distill3d.types import PromptEmbedding


@torch.no_grad()
def sdedit(
    prior: DiffusionPrior,
    images: Float[Tensor, "B 3 H W"],
    text: PromptEmbedding,
    generator: torch.Generator,
    reference: PromptEmbedding | None = None,
    strength: float = 0.5,
    guidance_scale: float = 6.5,
    steps: int = 20,
    clip: float | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """Images in [0, 1], redrawn for the text (arXiv 2108.01073).

    ``z = alpha_t x + sigma_t eps`` at ``t = strength (T - 1)``, then deterministic DDIM to x. ``steps`` are those of
    the whole range of t, of which the share ``strength`` is taken. At strength 0 the images come back as they are.
    Raises ValueError for a strength outside [0, 1].
    """
    check_strength(strength)
    if strength == 0.0:
        return images.clone()
    t_start = last_time(prior, strength)
    z = noised(prior, prior.encode(images), t_start, generator)
    count = max(1, round(steps * strength))
    return decoded(prior, ddim_denoise(prior, z, t_start, text, reference, guidance_scale, count, clip), images)


def noised(prior: DiffusionPrior, x: Float[Tensor, "B C h w"], t: int, generator: torch.Generator) -> Tensor:
    """x at time t, with noise from the generator."""
    eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
    return add_noise(prior, x, eps, torch.full((len(x),), t, device=x.device))


def check_strength(strength: float) -> None:
    """Raise ValueError unless it is a share of the diffusion time."""
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength={strength} must lie in 0 (nothing changes) .. 1 (nothing is kept)")


def last_time(prior: DiffusionPrior, strength: float) -> int:
    """The diffusion time that a strength in [0, 1] means."""
    return round(strength * (prior.num_train_timesteps - 1))


def decoded(prior: DiffusionPrior, x: Float[Tensor, "B C h w"], like: Tensor) -> Float[Tensor, "B 3 H W"]:
    """x as images in [0, 1] of the size of ``like``, which may not be one of the prior's."""
    images = prior.decode(x)
    size = tuple(like.shape[-2:])
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False).clamp(0.0, 1.0)
