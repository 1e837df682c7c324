"""How b_psi is trained and judged: denoised images of a frozen prior against clean ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.prior.base import DiffusionPrior, add_noise
from distill3d.types import Pass, PromptEmbedding

MAX_WEIGHT = 20.0

Predictor = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def corrective_losses(
    corrective: Predictor,
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    text: PromptEmbedding,
    t: Int[Tensor, "B"],
    eps: Float[Tensor, "B C h w"],
) -> Float[Tensor, "B"]:
    """``min((alpha/sigma)^2, 20) || b(x, t) - x_hat_t ||^2`` for each row, averaged over its pixels.

    That is the squared error in eps-space, in which LMC-SDS uses b (arXiv 2401.05293; the weight is derived).
    """
    with torch.no_grad():
        x_hat = prior.predict([Pass(add_noise(prior, x, eps, t), t, text)])[0].x0
    alpha, sigma = prior.alpha_sigma(t)
    weight = ((alpha / sigma) ** 2).clamp_max(MAX_WEIGHT)
    return (weight * (corrective(x, t, alpha, sigma) - x_hat) ** 2).flatten(1).mean(1)


def identity(x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The corrective with which LMC-SDS is SDS."""
    return x


def bin_timesteps(count: int, bins: int, num_train_timesteps: int) -> Int[Tensor, "bins count"]:
    """Times spread evenly over equal bins of the diffusion time."""
    share = (torch.arange(bins * count) + 0.5) / (bins * count)
    return (share * num_train_timesteps).long().view(bins, count)


@torch.no_grad()
def losses_by_time(
    correctives: dict[str, Predictor],
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    text: PromptEmbedding,
    generator: torch.Generator,
    bins: int = 10,
) -> dict[str, list[float]]:
    """The loss of each corrective in each t-bin, all on the same images and noise; compare with `identity`."""
    losses: dict[str, list[float]] = {name: [] for name in correctives}
    for t in bin_timesteps(len(x), bins, prior.num_train_timesteps).to(x.device):
        eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
        for name, corrective in correctives.items():
            losses[name].append(float(corrective_losses(corrective, prior, x, text, t, eps).mean()))
    return losses
