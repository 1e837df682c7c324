"""Sampling a diffusion prior: DDIM (arXiv 2010.02502) in both directions of time, over the protocol alone.

A deterministic step is ``z' = alpha' x0 + sigma' eps`` with both predictions at z; for a flow it is an Euler step.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.priors.base import DiffusionPrior
from distill3d.types import Cameras, Pass, Prediction, PromptEmbedding


def ddim_step(prior: DiffusionPrior, prediction: Prediction, t_next: Int[Tensor, "B"]) -> Float[Tensor, "B C h w"]:
    """The deterministic move to another time, up or down."""
    alpha, sigma = prior.alpha_sigma(t_next)
    return alpha * prediction.x0 + sigma * prediction.noise


def ancestral_step(
    prior: DiffusionPrior,
    prediction: Prediction,
    t: Int[Tensor, "B"],
    t_next: Int[Tensor, "B"],
    eta: float,
    generator: torch.Generator,
) -> Float[Tensor, "B C h w"]:
    """Down to ``t_next`` with new noise of ``eta`` times the posterior's deviation (arXiv 2010.02502, eq. 12 and 16).

    The marginals stay what they are, and what earlier steps got wrong is forgotten. 0 is `ddim_step`, 1 is DDPM.
    """
    fresh = eta * posterior_deviation(prior, t, t_next)
    noise = torch.randn(prediction.x0.shape, generator=generator, device=generator.device).to(prediction.x0)
    return posterior_mean(prior, prediction, t, t_next, eta) + fresh * noise


def posterior_mean(
    prior: DiffusionPrior, prediction: Prediction, t: Int[Tensor, "B"], t_next: Int[Tensor, "B"], eta: float = 1.0
) -> Float[Tensor, "B C h w"]:
    """``alpha' x0 + sqrt(sigma'^2 - eta^2 s^2) eps``, s the posterior's deviation (arXiv 2010.02502, eq. 12)."""
    (alpha, sigma), (alpha_next, sigma_next) = prior.alpha_sigma(t), prior.alpha_sigma(t_next)
    along = alpha * sigma_next**2 / (alpha_next * sigma)  # sqrt(sigma'^2 - s^2), without the cancellation
    kept = ((1.0 - eta**2) * sigma_next**2 + (eta * along) ** 2).sqrt()
    return alpha_next * prediction.x0 + kept * prediction.noise


def posterior_deviation(
    prior: DiffusionPrior, t: Int[Tensor, "B"], t_next: Int[Tensor, "B"]
) -> Float[Tensor, "B 1 1 1"]:
    """Of z' given z and x0, for any schedule: ``s^2 = sigma'^2 (1 - (alpha sigma')^2 / (alpha' sigma)^2)``.

    Where alpha^2 + sigma^2 = 1 it is DDPM's (arXiv 2010.02502, eq. 16 with eta = 1).
    """
    (alpha, sigma), (alpha_next, sigma_next) = prior.alpha_sigma(t), prior.alpha_sigma(t_next)
    return sigma_next * (1.0 - (alpha * sigma_next / (alpha_next * sigma)) ** 2).clamp_min(0.0).sqrt()


def guided_prediction(
    prior: DiffusionPrior,
    z: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    text: PromptEmbedding,
    reference: PromptEmbedding | None,
    guidance_scale: float,
    cameras: Cameras | None = None,
) -> Prediction:
    """``(1 + w) eps_y - w eps_0`` and the same of x0, w in the papers' convention; one pass where w = 0.

    Both passes see the cameras, one a row, where there are any.
    """
    if reference is None or guidance_scale == 0.0:
        return prior.predict([Pass(z, t, text, cameras=cameras)])[0]
    y, ref = prior.predict([Pass(z, t, words, cameras=cameras) for words in (text, reference)])
    x0 = y.x0 + guidance_scale * (y.x0 - ref.x0)
    return Prediction(y.noise + guidance_scale * (y.noise - ref.noise), x0)


@torch.no_grad()
def ddim_sample(
    prior: DiffusionPrior,
    text: PromptEmbedding,
    generator: torch.Generator,
    size: int | None = None,
    reference: PromptEmbedding | None = None,
    guidance_scale: float = 0.0,
    steps: int = 30,
    clip: float | None = None,
    eta: float = 0.0,
    cameras: Cameras | None = None,
) -> Float[Tensor, "B C h w"]:
    """One sample x for each row of ``text``, from pure noise; ``size`` is the rendered size in pixels (the largest).

    eta: how much of the noise is drawn anew in each step, see `ancestral_step`. cameras: one for each row of text.
    """
    size = prior.spec.image_sizes[-1] if size is None else size
    shape = prior.spec.x_shape(size)
    z = torch.randn(len(text), *shape, generator=generator, device=generator.device).to(prior.device)
    last = prior.num_train_timesteps - 1
    return ddim_denoise(prior, z, last, text, reference, guidance_scale, steps, clip, eta, generator, cameras)


@torch.no_grad()
def ddim_denoise(
    prior: DiffusionPrior,
    z: Float[Tensor, "B C h w"],
    t_start: int,
    text: PromptEmbedding,
    reference: PromptEmbedding | None = None,
    guidance_scale: float = 0.0,
    steps: int = 30,
    clip: float | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    cameras: Cameras | None = None,
) -> Float[Tensor, "B C h w"]:
    """From z at ``t_start`` down to x, in ``steps`` equal steps of t (SDEdit, arXiv 2108.01073, from a noised image).

    clip: keeps x0 within +-clip at every step, which pixel priors need at high guidance scales.
    eta, generator: as in `ancestral_step`; without a generator no noise is drawn.
    """
    times = torch.linspace(t_start, 0, steps).round().long().tolist()
    for t, t_next in zip(times, [*times[1:], None], strict=True):
        rows = torch.full((len(z),), t, device=z.device)
        prediction = guided_prediction(prior, z, rows, text, reference, guidance_scale, cameras)
        if clip is not None:
            prediction = clip_x0(prior, prediction, z, rows, clip)
        if t_next is None:
            return prediction.x0
        following = torch.full_like(rows, t_next)
        if generator is None or eta == 0.0:
            z = ddim_step(prior, prediction, following)
        else:
            z = ancestral_step(prior, prediction, rows, following, eta, generator)
    return z


def clip_x0(prior: DiffusionPrior, prediction: Prediction, z: Tensor, t: Int[Tensor, "B"], limit: float) -> Prediction:
    """x0 within +-limit, and the noise that still explains z with it."""
    alpha, sigma = prior.alpha_sigma(t)
    x0 = prediction.x0.clamp(-limit, limit)
    return Prediction((z - alpha * x0) / sigma, x0)
