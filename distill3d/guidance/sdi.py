"""SDI, score distillation via inversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled, check_schedule
from distill3d.guidance.base import (
    Diagnostics,
    DistillationConfig,
    Draw,
    ScoreDistillation,
    classifier_free,
    guided_pair,
    mean_norm,
    per_set,
)
from distill3d.guidance.inversion import inversion_stops, invert
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import GuidanceInput, Prediction


@register("guidance", "sdi")
class SDI(ScoreDistillation):
    """SDI: x - x_hat at z_t = alpha x + sigma kappa, kappa the noise of DDIM inversion (arXiv 2405.15891).

    The inversion runs with the prompt at a negative guidance scale, in inversion_n_steps strides over the whole
    diffusion time; as released, its last step overshoots t by up to one stride (inversion_overshoot) and each step
    adds a little noise (inversion_eta). t falls linearly from 1 to .2 over the run.

    The authors' program reads the state that it found at t + delta as one of time t, instead of mixing kappa anew,
    takes x itself as its clean image in the first step, and its later times are one higher: together .09 to .19 of the
    gradient's norm. ``released: true`` does the same. One difference is left: it asks the network at t = -99 first, a
    time that it was never trained on, and here the first time is 0.
    """

    @dataclass
    class Config(DistillationConfig):
        inversion_guidance_scale: Scheduled = -8.5
        inversion_n_steps: int = 10
        inversion_eta: float = 0.3
        inversion_overshoot: bool = True
        released: bool = False  # the authors' program instead of their formula, see above

        published: ClassVar = {
            "guidance_scale": 6.5,
            "weighting_strategy": "uniform",
            "timestep_sampling": "linear",
            "min_step_percent": 0.2,
            "max_step_percent": 1.0,
        }

        def __post_init__(self) -> None:
            super().__post_init__()
            check_schedule(self.inversion_guidance_scale, "inversion_guidance_scale")
            check_least(self, inversion_n_steps=1)

    cfg: Config

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        if self.cfg.released:
            z, _ = self._inverted(prior, inputs, draw)
        else:
            z = draw.alpha * draw.x + draw.sigma * self.inverted_noise(prior, inputs, draw)
        x_hat = self._guided(prior, inputs, z, draw.t, self.at("guidance_scale", inputs)).x0
        pictures: Diagnostics = {"x_hat": x_hat} if self.look else {}
        return draw.weight * (draw.x - x_hat), {"norm_residual": mean_norm(draw.x - x_hat), **pictures}

    def inverted_noise(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> Float[Tensor, "B C h w"]:
        """``kappa = (z_T' - alpha x) / sigma`` with z_T' the inversion of x up to t, or a little further."""
        z, last = self._inverted(prior, inputs, draw)
        alpha, sigma = prior.alpha_sigma(last)
        return (z - alpha * draw.x) / sigma

    def _inverted(
        self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw
    ) -> tuple[Float[Tensor, "B C h w"], Int[Tensor, "B"]]:
        """x inverted up to t, or a little further, and that time."""
        total, w = prior.num_train_timesteps, self.at("inversion_guidance_scale", inputs)
        stride, last = max(total // self.cfg.inversion_n_steps, 1), draw.t
        if self.cfg.inversion_overshoot:
            drawn = {"generator": inputs.generator, "device": inputs.generator.device}
            unit = per_set(prior, last, lambda sets: torch.rand(sets, **drawn))
            last = (last + (unit * stride).long()).clamp_max(total - 1)

        def predict(z: Tensor, t: Int[Tensor, "B"]) -> Prediction:
            return self._guided(prior, inputs, z, t, w)

        if not self.cfg.released:
            stops = inversion_stops(draw.t, last, stride)
            return invert(prior, draw.x, stops, predict, inputs.generator, self.cfg.inversion_eta), last
        # times 1, stride + 1, ...; the first step takes x as clean, whatever the network's own guess would be
        stops = [stop + (stop < draw.t).long() for stop in inversion_stops(draw.t - 1, last, stride)[:-1]] + [last]
        first = torch.where(draw.t > 1, stops[0], last)
        z = add_noise(prior, draw.x, predict(draw.x, torch.zeros_like(draw.t)).noise, first)
        return invert(prior, z, [first, *stops[1:]], predict, inputs.generator, self.cfg.inversion_eta), last

    def _guided(
        self, prior: DiffusionPrior, inputs: GuidanceInput, z: Tensor, t: Int[Tensor, "B"], w: float
    ) -> Prediction:
        y, reference = self.predict(prior, inputs, guided_pair(z, t, w)).values()
        return Prediction(classifier_free(y.noise, reference.noise, w), classifier_free(y.x0, reference.x0, w))
