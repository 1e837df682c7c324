"""CSD, classifier score distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled, check_schedule
from distill3d.guidance.base import Diagnostics, DistillationConfig, Draw, ScoreDistillation, mean_norm
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput


def classifier_score(
    conditional: Float[Tensor, "B C h w"],
    unconditional: Float[Tensor, "B C h w"],
    negative: Float[Tensor, "B C h w"],
    negative_share: float,
) -> Float[Tensor, "B C h w"]:
    """``eps_y - (1 - r) eps_0 - r eps_neg``: the coefficients sum to 0, so no noise is left to subtract."""
    return conditional - (1.0 - negative_share) * unconditional - negative_share * negative


@register("guidance", "csd")
class CSD(ScoreDistillation):
    """CSD: a eps_y + u eps_neg + n eps_0 with a + u + n = 0, the implicit classifier's score alone (arXiv 2310.19415).

    The weight c(t) is 1, as in the paper's formula. The authors' program has sigma^2, which over t = 20 .. 980 of
    Stable Diffusion's schedule is .63 on average, and .11 at t = 100. ``released: true`` takes it.

    guidance_scale is a. negative_share is r = -u/a; as published it rises from 0 to 1 over the first half of the run.
    """

    @dataclass
    class Config(DistillationConfig):
        negative_share: Scheduled | None = None
        released: bool = False  # the weight of the authors' program, sigma^2, unless weighting_strategy names one

        published: ClassVar = {"guidance_scale": 1.0, "weighting_strategy": "uniform"}
        published_over_run: ClassVar = {"negative_share": [0.0, 1.0, 500]}

        def __post_init__(self) -> None:
            if self.released and self.weighting_strategy is None:
                self.weighting_strategy = "sds"
            super().__post_init__()
            if self.negative_share is not None:
                check_schedule(self.negative_share, "negative_share")

    cfg: Config
    roles = ("conditional", "unconditional", "negative")

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        share = self.at("negative_share", inputs)
        unused = {0.0: "negative", 1.0: "unconditional"}.get(share)
        queries = {role: draw.query(role) for role in self.roles if role != unused}
        noise = {role: answer.noise for role, answer in self.predict(prior, inputs, queries).items()}
        y = noise["conditional"]
        score = classifier_score(y, noise.get("unconditional", y), noise.get("negative", y), share)
        grad = self.at("guidance_scale", inputs) * draw.weight * score
        return grad, {"norm_cond": mean_norm(score), "negative_share": share}
