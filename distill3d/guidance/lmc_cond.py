"""L_cond alone: classifier-free guidance without any pull towards the model's images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distill3d.config.registry import register
from distill3d.guidance.base import Diagnostics, DistillationConfig, Draw, ScoreDistillation, mean_norm
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput


@register("guidance", "lmc-cond")
class LMCCond(ScoreDistillation):
    """L_cond alone: c(t) w (eps_y - eps_0), the ablation of LMC-SDS without its corrective (arXiv 2401.05293)."""

    @dataclass
    class Config(DistillationConfig):
        published: ClassVar = {"guidance_scale": 20.0}

    cfg: Config

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        answer = self.predict(prior, inputs, {role: draw.query(role) for role in self.roles})
        condition = answer["conditional"].noise - answer["negative"].noise
        pictures: Diagnostics = {"x_hat": answer["conditional"].x0} if self.look else {}
        grad = draw.weight * self.at("guidance_scale", inputs) * condition
        return grad, {"norm_cond": mean_norm(condition), **pictures}
