"""The region of an edit: where the predictions of the prior for the two prompts differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.systems.editing.sdedit import check_strength, last_time
from distill3d.types import Pass, PromptEmbedding

EXTREME = 0.99  # quantile of a map at which it is cut before it is scaled: single pixels do not decide


@torch.no_grad()
def changed_part(
    prior: DiffusionPrior,
    images: Float[Tensor, "B 3 H W"],
    source: PromptEmbedding,
    target: PromptEmbedding,
    generator: torch.Generator,
    strength: float = 0.5,
    draws: int = 10,
    threshold: float = 0.5,
) -> Bool[Tensor, "B 1 H W"]:
    """Where the two prompts say different things of images in [0, 1] (DiffEdit, arXiv 2210.11427, step 1).

    ``|eps(z_t; y_tgt) - eps(z_t; y_src)|`` at ``t = strength (T - 1)``, averaged over channels and ``draws`` of noise,
    its extremes cut, scaled to [0, 1] in each image, and above ``threshold``. ``source`` and ``target``: one row of
    text each. It depends on no edit, so it is the same for all methods. Equal prompts mark nothing.
    Raises ValueError for a strength outside [0, 1].
    """
    check_strength(strength)
    x, rows = prior.encode(images), [0] * len(images)
    t = torch.full((len(x),), last_time(prior, strength), device=x.device)
    total = torch.zeros_like(x[:, :1])
    for _ in range(draws):
        eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        z = add_noise(prior, x, eps, t)
        ours, theirs = prior.predict([Pass(z, t, target[rows]), Pass(z, t, source[rows])])
        total += (ours.noise - theirs.noise).abs().mean(1, keepdim=True)
    share = _scaled(total)
    return F.interpolate(share, tuple(images.shape[-2:]), mode="bilinear", align_corners=False) > threshold


def put_back(
    edited: Float[Tensor, "B 3 H W"], source: Float[Tensor, "B 3 H W"], part: Bool[Tensor, "B 1 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """The edit with the source's own pixels in a part: what still differs was changed outside of it."""
    return torch.where(part, source, edited)


def _scaled(maps: Float[Tensor, "B 1 h w"]) -> Float[Tensor, "B 1 h w"]:
    """From 0 to 1 in each map; a flat one is 0."""
    flat = maps.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.quantile(EXTREME, dim=1, keepdim=True)
    return ((flat - low) / (high - low).clamp_min(1e-12)).clamp(0.0, 1.0).view_as(maps)
