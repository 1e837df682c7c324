"""ASD, asynchronous score distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.config.registry import register
from distill3d.guidance.base import (
    Diagnostics,
    DistillationConfig,
    Draw,
    Query,
    ScoreDistillation,
    classifier_free,
    mean_norm,
    per_set,
)
from distill3d.guidance.timesteps import timestep_bounds
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import GuidanceInput


def later_timesteps(
    t: Int[Tensor, "B"], t_min: int, t_last: int, range_: float, unit: Float[Tensor, "B"]
) -> Int[Tensor, "B"]:
    """``t + d`` with ``d = unit * range (t - t_min)``, at most the last t."""
    return (t + (unit * range_ * (t - t_min)).round().long()).clamp_max(t_last)


@register("guidance", "asd")
class ASD(ScoreDistillation):
    """ASD: c(t) (eps^w(z_t; y) - eps_y(z_{t+d}, t + d)) with one eps for both times (arXiv 2407.02040).

    The prediction at a later time stands in for the one of a network trained on the renders, as in VSD.
    d ~ U(0, shift_range (t - t_min)).
    """

    @dataclass
    class Config(DistillationConfig):
        shift_range: float = 0.1

        published: ClassVar = {"guidance_scale": 6.5}

    cfg: Config

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        later = self.later(prior, inputs, draw.t)
        w = self.at("guidance_scale", inputs)
        queries = draw.pair(w)
        queries["later"] = Query("conditional", add_noise(prior, draw.x, draw.eps, later), later)
        answer = {name: prediction.noise for name, prediction in self.predict(prior, inputs, queries).items()}
        guided = classifier_free(answer["conditional"], answer["negative"], w)
        diagnostics: Diagnostics = {
            "norm_cond": mean_norm(answer["conditional"] - answer["negative"]),
            "norm_shift": mean_norm(answer["conditional"] - answer["later"]),
        }
        return draw.weight * (guided - answer["later"]), diagnostics

    def later(self, prior: DiffusionPrior, inputs: GuidanceInput, t: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The later time of each row."""
        total, generator = prior.num_train_timesteps, inputs.generator
        t_min = timestep_bounds(self.at("min_step_percent", inputs), 1.0, total)[0]
        unit = per_set(prior, t, lambda sets: torch.rand(sets, generator=generator, device=generator.device))
        return later_timesteps(t, t_min, total - 1, self.cfg.shift_range, unit)
