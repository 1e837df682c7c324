"""Edit-friendly DDPM inversion: the noise of every sampling step of an image, kept while the text changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.base import DiffusionPrior
from distill3d.priors.sampling import clip_x0, guided_prediction, posterior_mean
from distill3d.systems.editing.sdedit import check_strength, decoded, last_time, noised
from distill3d.types import Prediction, PromptEmbedding

PredictPair = Callable[[Tensor, Tensor], Prediction]


@dataclass(frozen=True)
class StochasticLatents:
    """What takes an image apart: z at the first time, and for each step what the model's mean leaves unexplained.

    ``residuals[i] = x_{i+1} - mu(x_i)`` is ``s_i z_i`` in the paper's letters. Kept undivided, it is also there in the
    last step, whose deviation s is 0, so that a picture comes back whole.
    """

    times: tuple[int, ...]  # descending; after the last of them comes the image itself
    start: Float[Tensor, "B C h w"]
    residuals: tuple[Float[Tensor, "B C h w"], ...]


def step_mean(
    prior: DiffusionPrior, z: Float[Tensor, "B C h w"], t: int, t_next: int | None, predict: PredictPair
) -> Float[Tensor, "B C h w"]:
    """The mean of one DDPM step from t to t', with x0 as predicted; to the image itself it is x0."""
    rows = torch.full((len(z),), t, device=z.device)
    prediction = predict(z, rows)
    if t_next is None:
        return prediction.x0
    return posterior_mean(prior, prediction, rows, torch.full_like(rows, t_next))


@torch.no_grad()
def stochastic_latents(
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    predict: PredictPair,
    times: tuple[int, ...],
    generator: torch.Generator,
) -> StochasticLatents:
    """x taken apart along ``times`` (arXiv 2304.06140, algorithm 1).

    ``x_t = alpha_t x + sigma_t eps_t`` with an eps of its own at each t: the residuals are then larger and less
    correlated than those of the sampler, which is what carries the structure of the image into an edit.
    """
    path = [noised(prior, x, t, generator) for t in times]
    following = [*path[1:], x]
    means = [
        step_mean(prior, z, t, t_next, predict) for z, t, t_next in zip(path, times, [*times[1:], None], strict=True)
    ]
    return StochasticLatents(times, path[0], tuple(a - b for a, b in zip(following, means, strict=True)))


@torch.no_grad()
def regenerate(prior: DiffusionPrior, latents: StochasticLatents, predict: PredictPair) -> Float[Tensor, "B C h w"]:
    """The image of the same noise under a prediction: the original's own gives the original back."""
    z, times = latents.start, latents.times
    for t, t_next, residual in zip(times, [*times[1:], None], latents.residuals, strict=True):
        z = step_mean(prior, z, t, t_next, predict) + residual
    return z


@torch.no_grad()
def ddpm_inversion(
    prior: DiffusionPrior,
    images: Float[Tensor, "B 3 H W"],
    source: PromptEmbedding,
    target: PromptEmbedding,
    generator: torch.Generator,
    reference: PromptEmbedding | None = None,
    strength: float = 0.64,
    source_guidance_scale: float = 2.5,
    guidance_scale: float = 14.0,
    steps: int = 100,
    clip: float | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """Images in [0, 1] that show the source, redrawn for the target (arXiv 2304.06140).

    As published: 100 steps of which the noisiest 36 are skipped, scales of 3.5 and 15 in diffusers' convention. With
    the source's text and scale the images come back. Raises ValueError for a strength outside [0, 1].
    """
    check_strength(strength)
    if strength == 0.0:
        return images.clone()
    times = sampling_times(last_time(prior, strength), max(1, round(steps * strength)))
    predict = partial(_clipped, prior, reference, clip)
    latents = stochastic_latents(
        prior, prior.encode(images), partial(predict, source, source_guidance_scale), times, generator
    )
    return decoded(prior, regenerate(prior, latents, partial(predict, target, guidance_scale)), images)


def sampling_times(t_start: int, count: int) -> tuple[int, ...]:
    """``count`` times from ``t_start`` down, equally spaced, the last of them one stride above the image; distinct."""
    times = torch.linspace(t_start, 0, count + 1)[:-1].round().long().tolist()
    return tuple(dict.fromkeys(times))


def _clipped(
    prior: DiffusionPrior,
    reference: PromptEmbedding | None,
    clip: float | None,
    text: PromptEmbedding,
    guidance_scale: float,
    z: Tensor,
    t: Tensor,
) -> Prediction:
    prediction = guided_prediction(prior, z, t, text, reference, guidance_scale)
    return prediction if clip is None else clip_x0(prior, prediction, z, t, clip)
