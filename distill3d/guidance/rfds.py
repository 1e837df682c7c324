"""RFDS, rectified-flow distillation sampling: SDS in the flow's own velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

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
from distill3d.priors.kinds import PriorKind
from distill3d.types import GuidanceInput


@register("guidance", "rfds")
class RFDS(ScoreDistillation):
    """RFDS: c(t) (v^w(z_s) - (eps - x)) with v = eps - x, for flow priors such as SD3 and FLUX (arXiv 2406.03293).

    Raises ValueError for a prior that is no flow.
    """

    @dataclass
    class Config(DistillationConfig):
        published: ClassVar = {"weighting_strategy": "uniform"}

    cfg: Config

    def check_kind(self, kind: PriorKind) -> None:
        """Raises ValueError for a model that is no flow, before it is loaded."""
        if not kind.flow:
            raise ValueError(_needs_flow(kind.title))

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        if not prior.spec.flow:
            raise ValueError(_needs_flow(type(prior).__name__))
        w = self.at("guidance_scale", inputs)
        answer = self.predict(prior, inputs, draw.pair(w))
        y, reference = (answer[role].noise - answer[role].x0 for role in self.roles)
        velocity = classifier_free(y, reference, w)
        residual = velocity - (draw.eps - draw.x)
        return draw.weight * residual, {"norm_cond": mean_norm(y - reference), "norm_residual": mean_norm(residual)}


def _needs_flow(prior: str) -> str:
    return f"system.guidance_type=rfds needs a flow prior (SD3, FLUX), and this is {prior}; use sds for it"
