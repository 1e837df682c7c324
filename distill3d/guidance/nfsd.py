"""NFSD, noise-free score distillation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.config.registry import register
from distill3d.guidance.base import Diagnostics, DistillationConfig, Draw, ScoreDistillation, mean_norm
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput, Prompt, TextRequest

NEGATIVE_PROMPT = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
)


def denoised_direction(
    unconditional: Float[Tensor, "B C h w"], negative: Float[Tensor, "B C h w"], little_noise: Bool[Tensor, "B"]
) -> Float[Tensor, "B C h w"]:
    """delta_D: ``eps_0`` where there is little noise, else ``eps_0 - eps_neg``, in which the noise cancels."""
    return torch.where(little_noise[:, None, None, None], unconditional, unconditional - negative)


@register("guidance", "nfsd")
class NFSD(ScoreDistillation):
    """NFSD: c(t) (delta_D + s (eps_y - eps_0)), SDS without the noise's residue (arXiv 2310.17590); s = w + 1.

    delta_D is eps_0 below t = 200 of 1000 and eps_0 - eps_neg above. default_negative_prompt stands in where the user
    gives none, since the rule needs one.
    """

    @dataclass
    class Config(DistillationConfig):
        default_negative_prompt: str = NEGATIVE_PROMPT
        little_noise_percent: float = 0.2

        published: ClassVar = {"guidance_scale": 6.5}

    cfg: Config
    roles = ("conditional", "unconditional", "negative")

    def texts(self, prompt: Prompt) -> dict[str, TextRequest]:
        return super().texts(replace(prompt, negative=prompt.negative or self.cfg.default_negative_prompt))

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        little_noise = draw.t < self.cfg.little_noise_percent * prior.num_train_timesteps
        roles = self.roles[:2] if bool(little_noise.all()) else self.roles
        answer = self.predict(prior, inputs, {role: draw.query(role) for role in roles})
        y, unconditional = answer["conditional"].noise, answer["unconditional"].noise
        negative = answer["negative"].noise if "negative" in answer else unconditional
        direction = denoised_direction(unconditional, negative, little_noise)
        scale = self.at("guidance_scale", inputs) + 1.0
        diagnostics: Diagnostics = {"norm_cond": mean_norm(y - unconditional), "norm_denoised": mean_norm(direction)}
        return draw.weight * (direction + scale * (y - unconditional)), diagnostics
