"""SDS as a distance to the clean image that the network guesses, the loss of MVDream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from distill3d.config.ranges import check_shares
from distill3d.config.registry import register
from distill3d.guidance.base import (
    Diagnostics,
    DistillationConfig,
    Draw,
    ScoreDistillation,
    classifier_free,
    mean_norm,
)
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput


@register("guidance", "reconstruction-sds")
class ReconstructionSDS(ScoreDistillation):
    """Reconstruction SDS: c(t) (x - x0), x0 the guided guess with its deviation rescaled (MVDream, arXiv 2308.16512).

    ``x - x0^w = (sigma / alpha) (eps^w - eps)``: SDS with another weight, but that a large w inflates the contrast of
    x0^w. So its deviation is brought towards that of the conditional guess, by the share ``recon_std_rescale`` (the
    CFG rescale of arXiv 2305.08891), over all views that the prior sees together.

    Published: diffusers' scale 50 (w = 49), and a time that falls from .98 to [.02, .5] over 8000 steps. There one t
    serves a whole batch, here each set of views draws its own.
    """

    @dataclass
    class Config(DistillationConfig):
        recon_std_rescale: float = 0.5

        published: ClassVar = {
            "guidance_scale": 49.0,
            "weighting_strategy": "uniform",
            "min_step_percent": [0, 0.98, 0.02, 8000],
            "max_step_percent": [0, 0.98, 0.5, 8000],
        }

        def __post_init__(self) -> None:
            super().__post_init__()
            check_shares(self, "recon_std_rescale")

    cfg: Config

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        w = self.at("guidance_scale", inputs)
        answer = self.predict(prior, inputs, draw.pair(w))
        y, reference = answer["conditional"].x0, answer["negative"].x0
        guided = rescaled(classifier_free(y, reference, w), y, self.cfg.recon_std_rescale, prior.spec.n_view)
        residual = draw.x - guided
        pictures: Diagnostics = {"x_hat": guided} if self.look else {}
        return draw.weight * residual, {"norm_residual": mean_norm(residual), **pictures}


def rescaled(
    x0: Float[Tensor, "B C h w"], like: Float[Tensor, "B C h w"], share: float, n_view: int = 1
) -> Float[Tensor, "B C h w"]:
    """``x0 (1 - share + share std(like) / std(x0))``, deviations over each set of ``n_view`` rows."""
    deviation, wanted = (images.unflatten(0, (-1, n_view)).flatten(1).std(1) + 1e-8 for images in (x0, like))
    factor = 1.0 - share + share * wanted / deviation
    return x0 * factor.repeat_interleave(n_view)[:, None, None, None]
